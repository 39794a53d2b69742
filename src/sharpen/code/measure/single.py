"""What one program takes: time, instructions and memory by input, and how time grows."""

from __future__ import annotations

import os
from collections.abc import Sequence, Sized
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sharpen.code.measure.comparison import Inputs, calibrated
from sharpen.code.measure.process import Timer, encode_inputs
from sharpen.code.measure.program import Program
from sharpen.core.errors import DataError

__all__ = ["Figures", "Growth", "growth", "measure", "sizes_of"]


@dataclass(frozen=True, slots=True)
class Growth:
    """``t = c n^exponent``, by least squares of the logarithms."""

    exponent: float
    r2: float
    """Share of the variance that it explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a program takes."""

    seconds: list[float]
    """[inputs] medians over processes."""

    spread: list[float]
    """[inputs] half the distance of the quartiles, divided by the median."""

    opcodes: list[int]
    """[inputs] instructions of Python's interpreter."""

    peak_mib: float
    """Memory beyond an idle process, over all inputs."""

    processes: int
    clock: str
    growth: Growth | None = None
    """Where the inputs have a size."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def measure(program: Program, inputs: Inputs, *, clock: str = "cpu", processes: int = 7) -> Figures:
    """Time a program on each input.

    Args:
        program: what is timed; it is trusted.
        inputs: arguments, by position and by name.
        clock: ``cpu``, ``thread`` or ``wall``.
        processes: times are medians over so many.

    Raises:
        ConfigError: an input cannot be handed to another process.
        ExecutionError: the program does not load, raises, or ends its process.
        Late: a call of each input takes longer than a minute.
    """
    encoded = encode_inputs(inputs)
    with Timer(program, encoded, min(os.sched_getaffinity(0))) as timer:
        loops = calibrated(timer, clock, 60.0)
        rows = []
        for k in range(processes):
            timer.restart(k)
            rows.append(timer.time(loops, clock=clock))
        opcodes, peak = timer.opcodes(), timer.peak_mib()
    times = np.array(rows)
    low, middle, high = np.percentile(times, [25, 50, 75], axis=0)
    sizes = sizes_of(inputs)
    return Figures(
        seconds=middle.tolist(),
        spread=((high - low) / 2 / middle).tolist(),
        opcodes=opcodes,
        peak_mib=peak,
        processes=processes,
        clock=clock,
        growth=None if sizes is None else growth(sizes, middle.tolist()),
    )


def sizes_of(inputs: Inputs) -> list[int] | None:
    """The size of each input by its first argument, a length or a whole number; None if unclear.

    At least three different sizes are needed, the largest four times the least.
    """
    found = []
    for args, kwargs in inputs:
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, int) and not isinstance(first, bool):
            found.append(first)
        elif isinstance(first, Sized):
            found.append(len(first))
        else:
            return None
    distinct = {n for n in found if n > 0}
    if len(distinct) < 3 or min(found) < 1 or max(found) < 4 * min(found):
        return None
    return found


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> Growth:
    """How time grows with size.

    Raises:
        DataError: a number is not above 0, or there are not two sizes.
    """
    n, t = np.asarray(sizes, np.float64), np.asarray(seconds, np.float64)
    if n.shape != t.shape or len(set(sizes)) < 2 or not ((n > 0).all() and (t > 0).all()):
        raise DataError("sizes and times must be above 0, of at least two sizes.")
    x, y = np.log(n), np.log(t)
    slope, start = np.polyfit(x, y, 1)
    rest = float(((y - slope * x - start) ** 2).sum())
    whole = float(((y - y.mean()) ** 2).sum())
    return Growth(float(slope), 1.0 - rest / whole if whole > 0 else 1.0)
