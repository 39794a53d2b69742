"""Quantiles of a stream of numbers: exact as long as they fit, then by t-digest.

Dunning, "The t-digest: efficient estimates of distributions", Software Impacts 7, 2021. Sorted
values are merged into clusters whose ends differ by at most 1 in ``k(q) = c / (2 pi) asin(2 q -
1)``, so that clusters are small in the tails, where thresholds lie.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["Sketch"]

Floats = npt.NDArray[np.float64]

_EXACT = 1_000_000
_COMPRESSION = 2000.0


class Sketch:
    """Counts, moments and quantiles of numbers that come one batch after the other.

    Args:
        exact: how many numbers to keep as they are.
        compression: c, about twice the number of clusters.
    """

    def __init__(self, exact: int = _EXACT, compression: float = _COMPRESSION) -> None:
        self.count = self.missing = 0
        self.mean = self._squares = 0.0
        self.least, self.greatest = math.inf, -math.inf
        self._exact, self._compression = exact, compression
        self._values: list[Floats] = []
        self._weights: list[Floats] = []
        self._held = 0
        self.is_exact = True

    def add(self, values: npt.NDArray[np.generic]) -> None:
        """Count numbers; those that are none are counted as missing, infinite ones too."""
        given = np.asarray(values, np.float64)
        numbers = given[np.isfinite(given)]
        self.missing += len(given) - len(numbers)
        if not len(numbers):
            return
        n, mean = len(numbers), float(numbers.mean())
        total = self.count + n
        delta = mean - self.mean
        squares = float(((numbers - mean) ** 2).sum())
        self._squares += squares + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.count = total
        self.least = min(self.least, float(numbers.min()))
        self.greatest = max(self.greatest, float(numbers.max()))
        self._values.append(numbers)
        self._weights.append(np.ones(n))
        self._held += n
        if self._held > self._exact:
            self._merge()

    def _merge(self) -> None:
        values, weights = np.concatenate(self._values), np.concatenate(self._weights)
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order]
        middle = (np.cumsum(weights) - weights / 2) / weights.sum()
        k = np.floor(self._compression / (2 * math.pi) * np.arcsin(2 * middle - 1))
        starts = np.nonzero(np.diff(k, prepend=k[0] - 1))[0]
        merged = np.add.reduceat(weights, starts)
        self._values = [np.add.reduceat(values * weights, starts) / merged]
        self._weights = [merged]
        self._held = len(starts)
        self.is_exact = False

    @property
    def deviation(self) -> float:
        """Standard deviation, of the numbers themselves and not of a sample."""
        return math.sqrt(self._squares / self.count) if self.count else math.nan

    def values(self) -> Floats:
        """The numbers in order, or the means of their clusters where they do not fit."""
        return self._placed()[0]

    def _placed(self) -> tuple[Floats, Floats]:
        """Values in order, and the share of numbers below the middle of each."""
        values = np.concatenate(self._values) if self._values else np.zeros(0)
        weights = np.concatenate(self._weights) if self._weights else np.zeros(0)
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order]
        return values, (np.cumsum(weights) - weights / 2) / max(weights.sum(), 1)

    def quantile(self, q: float | Floats) -> Floats:
        """Values below which shares of the numbers lie; NaN without numbers.

        Exact ones are those of ``numpy.quantile``.
        """
        shares = np.asarray(q, np.float64)
        if not self.count:
            return np.full(shares.shape, np.nan)
        if self.is_exact:
            found: Floats = np.quantile(np.concatenate(self._values), shares)
            return found
        values, middle = self._placed()
        xs = np.concatenate([[0], middle, [1]])
        found = np.interp(shares, xs, np.concatenate([[self.least], values, [self.greatest]]))
        return np.asarray(found)

    def below(self, value: float | Floats) -> Floats:
        """Shares of the numbers that are less than some values."""
        bounds = np.asarray(value, np.float64)
        if not self.count:
            return np.full(bounds.shape, np.nan)
        if self.is_exact:
            ordered = np.sort(np.concatenate(self._values))
            return np.searchsorted(ordered, bounds, side="left") / self.count
        values, middle = self._placed()
        xs = np.concatenate([[self.least], values, [self.greatest]])
        found: Floats = np.interp(bounds, xs, np.concatenate([[0], middle, [1]]))
        return found

    def histogram(self, bins: int = 40) -> tuple[Floats, Floats]:
        """Edges of equal width between the 0.5 % and 99.5 % quantiles, and the share in each bin.

        The first and the last bin hold the tails.
        """
        low, high = self.quantile(np.array([0.005, 0.995]))
        if not low < high:
            low, high = self.least, max(self.greatest, self.least + 1)
        edges = np.linspace(low, high, bins + 1)
        below = self.below(edges)
        below[0], below[-1] = 0.0, 1.0
        return edges, np.diff(below)
