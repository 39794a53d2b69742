"""What is made less: which number decides, how it is taken, and in which words it is told.

Times come with the interval of their pairs. Memory is the peak of five processes each; its interval
goes from the least ratio of two of these to the greatest. So does that of ``tmu``, the area under
the memory of a process over its processor time, in MiB s (Huang et al., *Effi-Code*, 2024, arXiv
2410.10209), the interpreter's memory included. Instructions are counted once: those of the
interpreter are the same in every run, those of the machine to within 1 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from sharpen.code.inputs import Input
from sharpen.code.measure.comparison import Comparison
from sharpen.code.measure.instructions import count_instructions
from sharpen.code.measure.process import Timer
from sharpen.code.metrics import overhead

__all__ = [
    "LEAST_MIB",
    "OBJECTIVES",
    "TIMES",
    "Gain",
    "area",
    "counted",
    "gain_of_time",
    "said",
    "size_s",
]

OBJECTIVES = ("cpu", "wall", "opcodes", "memory", "tmu", "instructions")
TIMES = ("cpu", "wall")
LEAST_MIB = 0.1  # less memory than this is noise
_PROCESSES = 5
_LEAST_AREA = 1e-6
_REPEATS = 1.01  # between two counts of the machine's instructions
_COUNTED_S = 0.01  # to count instructions takes some fifty times as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a text takes of the objective at the largest inputs, and what it took before."""

    objective: str
    before: float
    """Seconds, instructions, MiB or MiB s."""

    after: float
    ratio: float
    """Before divided by after."""

    low: float
    high: float

    def summary(self) -> str:
        """A part of a line."""
        words = {
            "memory": f"needs {self.after:.1f} MiB at its peak, before {self.before:.1f} MiB",
            "tmu": f"takes {self.after:.3g} MiB s of memory, before {self.before:.3g} MiB s",
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
        "tmu": "times as little memory over time",
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
        objective: ``memory``, ``tmu``, ``opcodes``, or ``instructions``, of programs that are
            trusted.
        old: the original.
        new: the other.
        inputs: those of both.

    Raises:
        ExecutionError: it could not be measured.
        DependencyNotInstalled: there is no valgrind.
    """
    margin = 1.0
    if objective in ("memory", "tmu"):
        take = _peak if objective == "memory" else area
        before, after = _in_turns(old, new, take)
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


def _in_turns(
    old: Timer, new: Timer, take: Callable[[Timer], float]
) -> tuple[list[float], list[float]]:
    """[processes] of the original and of the other, one after another."""
    before: list[float] = []
    after: list[float] = []
    for k in range(_PROCESSES):
        for timer, found in ((old, before), (new, after)):
            timer.restart(k)
            found.append(take(timer))
    return before, after


def _peak(timer: Timer) -> float:
    return max(timer.peak_mib(), LEAST_MIB)


def area(timer: Timer) -> float:
    """MiB s of a call of each input: what the process holds over its processor time."""
    return max(overhead(timer.curve()).tmu, _LEAST_AREA)
