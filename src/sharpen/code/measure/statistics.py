"""Is b faster than a? From ratios of times that were measured in pairs.

The two times of a pair follow one another on one processor, so what disturbs the machine strikes
both. With ``d = ln(t_a / t_b)`` of each pair, the estimate is that of Hodges and Lehmann
(*Estimates of Location Based on Rank Tests*, 1963): the median of the means of all pairs of ``d``.
Its interval comes from the ranks of the same means (Wilcoxon's signed-rank test turned round),
which needs no normal distribution; outliers are ranks like others.

Time is looked at up to three times. To stop as soon as an interval leaves 1 out would find a
difference too often, so the error is divided among the looks, and a difference must also reach
``min_effect``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

__all__ = ["Decision", "Ratio", "decide", "pairs_needed", "ratio_of_pairs"]

Decision = Literal["faster", "slower", "same", "unclear"]

_EXACT = 25  # pairs up to which the distribution of ranks is counted


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long a takes as b."""

    value: float
    low: float
    high: float


def pairs_needed(error: float) -> int:
    """Pairs below which no interval of such an error is finite."""
    return math.ceil(math.log2(2 / error))


def _rank_counts(n: int) -> npt.NDArray[np.float64]:
    """[n (n + 1) / 2 + 1] chances of the sum of ranks with a positive sign."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return chances


def _cut(n: int, error: float) -> int:
    """How many of the sorted means lie outside of the interval at each end."""
    if n <= _EXACT:
        tail = np.cumsum(_rank_counts(n))
        return int(np.searchsorted(tail, error / 2 * (1 + 1e-12), side="right"))
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return max(int(n * (n + 1) / 4 + norm.ppf(error / 2) * spread), 0)


def ratio_of_pairs(a: Sequence[float], b: Sequence[float], error: float = 0.01) -> Ratio:
    """Estimate and interval of ``t_a / t_b``.

    Args:
        a: [pairs] times of the one, above 0.
        b: [pairs] times of the other.
        error: chance that the interval leaves out the true ratio.

    Returns:
        The interval is from 0 to infinity where there are too few pairs.
    """
    d = np.log(np.asarray(a, np.float64)) - np.log(np.asarray(b, np.float64))
    i, j = np.triu_indices(len(d))
    means = np.sort((d[i] + d[j]) / 2)
    cut = _cut(len(d), error)
    value = float(np.exp(np.median(means)))
    if cut < 1:
        return Ratio(value, 0.0, math.inf)
    return Ratio(value, float(np.exp(means[cut - 1])), float(np.exp(means[-cut])))


def decide(ratio: Ratio, min_effect: float = 1.025) -> Decision:
    """What an interval says of b: ``faster`` than a, ``slower``, the ``same``, or nothing.

    Args:
        ratio: of a to b.
        min_effect: the least ratio that matters.
    """
    if ratio.low > 1 and ratio.value >= min_effect:
        return "faster"
    if ratio.high < 1 and ratio.value <= 1 / min_effect:
        return "slower"
    if ratio.low >= 1 / min_effect and ratio.high <= min_effect:
        return "same"
    return "unclear"
