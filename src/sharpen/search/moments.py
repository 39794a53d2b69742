"""Mean and standard deviation of losses in any unit, 1e300 and 1e-300 included.

A loss may be a likelihood or a count of cycles, and its square beyond what a float64 holds. The
sums are taken in a unit of a power of two, so that nothing overflows and nothing else changes: the
results are numpy's to the bit where numpy's squares are neither infinite nor subnormal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["deviation", "exponent", "mean"]

Floats = npt.NDArray[np.float64]


def mean(values: Floats) -> Any:
    """[...] mean over the first axis of [n, ...] finite ``values``."""
    unit = exponent(values)
    return np.ldexp(np.ldexp(values, -unit).mean(axis=0), unit)


def deviation(values: Floats) -> Any:
    """[...] standard deviation over the first axis of [n, ...] finite ``values``."""
    unit = exponent(values)
    return np.ldexp(np.ldexp(values, -unit).std(axis=0), unit)


def exponent(values: Floats) -> Any:
    """[...] k of the least 2^k above all sizes along the first axis of [n, ...] ``values``."""
    return np.frexp(np.abs(values).max(axis=0))[1]
