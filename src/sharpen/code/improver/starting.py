"""What the first call in a process costs: code that is compiled then, modules that are imported.

    cost = seconds of the first call - seconds of the second, with the same arguments
    worth it from n calls on:  n >= (cost after - cost before) / (seconds before - seconds after)

Processor time of loading the program, such as imports at the top of the module, is no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sharpen.code.improver.observer import Observer
from sharpen.code.inputs import Input
from sharpen.code.measure.process import encode_inputs

__all__ = ["FirstCall", "costly_start", "first_call_s"]

_LEAST_S = 0.005  # less is noise
_PROCESSES = 3
_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstCall:
    """Seconds that the first call in a process takes beyond later ones."""

    before_s: float
    after_s: float
    calls: int
    """Calls of the largest size from which on a process has gained; 2 or more."""

    def summary(self) -> str:
        """One sentence."""
        return (
            f"The first call in a process takes {self.after_s:.3g} s more than later ones, before"
            f" {self.before_s:.3g} s: from {self.calls:,} calls of the largest size on it is worth"
            " it."
        )


def first_call_s(program: Observer, call: Input) -> float:
    """Seconds of processor time of the first call beyond those of the second; NaN if it fails.

    Args:
        program: each of its series of calls is in a fresh process.
        call: arguments.
    """
    data = encode_inputs([call]) * 2
    found = []
    for _ in range(_PROCESSES):
        seen = program.observe(data, each_s=_LIMIT_S, whole_s=2 * _LIMIT_S).seen
        if len(seen) < 2 or any(one.what is None for one in seen):
            return math.nan
        first, second = (float(one.what["seconds"]) for one in seen if one.what is not None)
        found.append(max(first - second, 0.0))
    return median(found)


def costly_start(
    before: Observer, after: Observer, inputs: Sequence[Input], saved_s: float
) -> FirstCall | None:
    """What first calls cost, where they take back a gain; None where one call is worth it.

    Args:
        before: the original.
        after: the text that is to stand for it.
        inputs: of the largest size.
        saved_s: seconds that it saves in a call of each.
    """
    old, new = (first_call_s(one, inputs[0]) for one in (before, after))
    each_s = saved_s / len(inputs)
    if not new - old > max(each_s, _LEAST_S) or each_s <= 0:
        return None
    return FirstCall(before_s=old, after_s=new, calls=math.ceil((new - old) / each_s))
