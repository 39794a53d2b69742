"""What is made less: which number decides, how it is taken, and in which words it is told.

Times come with the interval of their pairs. Memory is the peak of five processes each; its interval
goes from the least ratio of two of these to the greatest. Instructions are counted once: those of
the interpreter are the same in every run, those of the machine to within 1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sharpen.code.inputs import Input
from sharpen.code.measure.comparison import Comparison
from sharpen.code.measure.instructions import count_instructions
from sharpen.code.measure.process import Timer

__all__ = ["LEAST_MIB", "OBJECTIVES", "TIMES", "Gain", "counted", "gain_of_time", "said", "size_s"]

OBJECTIVES = ("cpu", "wall", "opcodes", "memory", "instructions")
TIMES = ("cpu", "wall")
LEAST_MIB = 0.1  # less memory than this is noise
_PROCESSES = 5
_REPEATS = 1.01  # between two counts of the machine's instructions
_COUNTED_S = 0.01  # to count instructions takes some fifty times as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a text takes of the objective at the largest inputs, and what it took before."""

    objective: str
    before: float
    """Seconds, instructions or MiB."""

    after: float
    ratio: float
    """Before divided by after."""

    low: float
    high: float

    def summary(self) -> str:
        """A part of a line."""
        words = {
            "memory": f"needs {self.after:.1f} MiB at its peak, before {self.before:.1f} MiB",
            "opcodes": f"runs {self.after:,.0f} instructions of the interpreter, before"
            f" {self.before:,.0f}",
            "instructions": f"runs {self.after:,.0f} instructions, before {self.before:,.0f}",
        }
        told = words.get(self.objective, f"takes {self.after:.3g} s, before {self.before:.3g} s")
        return f"{told}: {self.ratio:.3g} x [{self.low:.3g}, {self.high:.3g}]"


def size_s(objective: str, top_s: float) -> float:
    """Seconds that the function should take at the largest size."""
    return min(top_s, _COUNTED_S) if objective in ("opcodes", "instructions") else top_s


def said(objective: str, score: float) -> str:
    """What a first look has shown; for instructions of the machine it is a look at time."""
    words = {
        "memory": "times as little memory",
        "opcodes": "times as few instructions of the interpreter",
    }
    return f"{score:.3g} {words.get(objective, 'times as fast')}"


def gain_of_time(objective: str, found: Comparison) -> Gain:
    """The gain that times in pairs tell."""
    return Gain(
        objective=objective,
        before=found.a_s,
        after=found.b_s,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
    )


def counted(objective: str, old: Timer, new: Timer, inputs: Sequence[Input]) -> Gain:
    """What is counted of two programs, of a call of each input.

    Args:
        objective: ``memory``, ``opcodes``, or ``instructions``, of programs that are trusted.
        old: the original.
        new: the other.
        inputs: those of both.

    Raises:
        ExecutionError: it could not be measured.
        DependencyNotInstalled: there is no valgrind.
    """
    margin = 1.0
    if objective == "memory":
        before, after = _peaks(old), _peaks(new)
    elif objective == "opcodes":
        before, after = [float(sum(old.opcodes()))], [float(sum(new.opcodes()))]
    else:
        before, after = ([count_instructions(one.program, inputs)] for one in (old, new))
        margin = _REPEATS**2
    a, b = median(before), median(after)
    return Gain(
        objective=objective,
        before=a,
        after=b,
        ratio=a / b,
        low=min(before) / max(after) / margin,
        high=max(before) / min(after) * margin,
    )


def _peaks(timer: Timer) -> list[float]:
    """[processes] MiB."""
    found = []
    for k in range(_PROCESSES):
        timer.restart(k)
        found.append(max(timer.peak_mib(), LEAST_MIB))
    return found
