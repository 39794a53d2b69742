"""How sure a mean over problems is: the bootstrap over problems.

Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993: problems are drawn with replacement,
each with all that belongs to it, and the statistic is computed anew; the interval is that of the
middle of what comes out (percentiles).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError

__all__ = ["Estimate", "bootstrap"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and where it lies."""

    value: float
    low: float
    high: float


def _mean(values: Floats) -> float:
    return float(values.mean())


def bootstrap(
    values: npt.ArrayLike,
    statistic: Callable[[Floats], float] = _mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic over problems with its interval.

    Args:
        values: [problems, ...] what is known of each.
        statistic: of such an array; the mean by default.
        confidence: of the interval.
        resamples: draws.
        seed: of the draws.

    Raises:
        ConfigError: ``confidence`` or ``resamples`` is out of range.
        DataError: there are no problems.
    """
    x = np.asarray(values, np.float64)
    if not 0 < confidence < 1 or resamples < 1:
        raise ConfigError(f"confidence={confidence} and resamples={resamples} are out of range.")
    if not x.ndim or not len(x):
        raise DataError("there are no problems.")
    rng = np.random.default_rng(seed)
    drawn = [statistic(x[rng.integers(len(x), size=len(x))]) for _ in range(resamples)]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(statistic(x), float(low), float(high))
