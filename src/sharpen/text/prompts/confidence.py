"""How sure a score and a difference of scores are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpen.core.errors import DataError

__all__ = ["Interval", "mcnemar", "mean_interval", "paired_difference"]

_RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(scores: Sequence[float], seed: int = 0) -> Interval:
    """The mean of scores: Wilson's interval where all are 0 or 1, else a bootstrap.

    Raises:
        DataError: there are none.

    References:
        Wilson, *Probable inference, the law of succession, and statistical inference*, 1927.
    """
    x = np.asarray(scores, dtype=np.float64)
    if not len(x):
        raise DataError("there are no scores.")
    mean, n = float(x.mean()), len(x)
    if np.isin(x, (0.0, 1.0)).all():
        z = 1.959963984540054
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
        return Interval(mean, max(0.0, centre - half), min(1.0, centre + half))
    return Interval(mean, *_bootstrap(x, seed))


def paired_difference(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Interval:
    """The mean of ``ours - theirs`` on the same examples, by a paired bootstrap.

    Raises:
        DataError: they have no equal, positive number of scores.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if not len(a) or len(a) != len(b):
        raise DataError(f"a paired difference needs equal scores, got {len(a)} and {len(b)}.")
    return Interval(float((a - b).mean()), *_bootstrap(a - b, seed))


def _bootstrap(x: np.ndarray, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = x[rng.integers(len(x), size=(_RESAMPLES, len(x)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The exact two-sided p of McNemar's test that two prompts are right equally often.

    An example counts where exactly one of them scores higher.

    References:
        McNemar, *Note on the sampling error of the difference between correlated proportions*,
        1947.
    """
    wins = sum(a > b for a, b in zip(ours, theirs, strict=True))
    losses = sum(a < b for a, b in zip(ours, theirs, strict=True))
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    return min(1.0, 2.0 * float(tail))
