"""Parzen estimators: densities over a search space that are mixtures of products of kernels.

James Bergstra, Remi Bardenet, Yoshua Bengio and Balazs Kegl, "Algorithms for Hyper-Parameter
Optimization", NIPS 2011, section 4; kernels over all parameters at once: Stefan Falkner, Aaron
Klein and Frank Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML
2018, arXiv 1807.01774; their details compared: Shuhei Watanabe, "Tree-Structured Parzen Estimator:
Understanding Its Algorithm Components and Their Roles for Better Empirical Performance", 2023,
arXiv 2304.11127.

::

    p(x) = sum_i w_i prod_j k_ij(x_j) / sum_i w_i,     i = 1 .. n, and the prior, of weight w_0

    real number   k_ij(u) = phi((u - mu_ij) / s_ij) / (s_ij Z_ij),  Z_ij the mass within [0, 1]
    with steps    k_ij(u) = mass of that normal within the bin of u, over Z_ij and the bin's width
    choice        k_ij(c) = (1[c = c_i] + a q_c) / ((1 + a) q_c),   a = C w_0 / (n + 1)
    inactive      k_ij = 1
    prior         mu = 1/2, s = 1; choices as likely as q, the parameter's weights

    s_ij = the larger distance to the next of mu_.j below and above, within [1 / min(100, m + 2), 1]
           for the m points where parameter j is active

Everything is measured on the unit cube, relative to the uniform distribution: k = 1 is what drawing
at random gives, whatever the kind. So a parameter that is not active in an observation is as if
drawn at random there, and the density of a part of the parameters is the product without the rest:
one mixture serves configurations with different active parameters. Items of a subset are choices
of two; places of a permutation are real numbers.

Differs from the papers: bandwidths are those of the one-dimensional estimator of the first paper in
the mixture of products, too (as in Watanabe's table of common settings); the outermost points take
the distance to their one neighbour; of equal points only the first and the last are wide. A range
of more than a million values counts as real.
Time O((n + q) d) to fit and draw, O(n q d) for the density at q points; memory O(n q).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.core.collections import Subset
from sharpen.core.errors import DependencyNotInstalled
from sharpen.core.parameters import Bool, Categorical, Fixed, Int, Scalar
from sharpen.core.space import Space

__all__ = ["Axes", "Parzen", "bandwidths"]

# n observations, q points, d coordinates
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_MOST_BINS = 1_000_000  # beyond, the difference of two normal masses loses its digits
_NARROWEST = 100.0


@dataclass(frozen=True, slots=True)
class _Bins:
    """A coordinate that is cut into bins."""

    column: int
    count: int
    log: tuple[float, float] | None
    """Logarithms of the ends of an Int with ``log=True``, whose bins are not of equal width."""

    def edges(self, u: Floats) -> tuple[Floats, Floats]:
        """Where the bins of the points begin and end."""
        if self.log is None:
            index = np.minimum(np.floor(u * self.count), self.count - 1)
            return index / self.count, (index + 1) / self.count
        bottom, top = self.log
        value = np.floor(np.exp(bottom + u * (top - bottom)) + 0.5)
        ends = [(np.log(value + half) - bottom) / (top - bottom) for half in (-0.5, 0.5)]
        return np.maximum(ends[0], 0.0), np.minimum(ends[1], 1.0)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A coordinate whose bins are choices without an order."""

    column: int
    edges: Floats
    """[C + 1] where the bins begin and end."""

    def index(self, u: Floats) -> npt.NDArray[np.int64]:
        """Which choice each point is."""
        found: npt.NDArray[np.int64] = np.searchsorted(self.edges[1:-1], u, side="right")
        return found

    @property
    def shares(self) -> Floats:
        """[C] how likely each choice is at random."""
        return np.diff(self.edges)


class Axes:
    """What kind each coordinate of a space is: real, with steps, or a choice.

    Args:
        space: d coordinates.
    """

    def __init__(self, space: Space) -> None:
        self.dimensions = space.dimensions
        self.bins: list[_Bins] = []
        self.choices: list[_Choice] = []
        normal: list[int] = []
        for name, parameter in space.items():
            columns = range(*space.columns[name].indices(self.dimensions))
            if isinstance(parameter, (Categorical, Bool, Subset)):
                weights = getattr(parameter, "weights", None)
                count = int(parameter.cardinality) if isinstance(parameter, Categorical) else 2
                shares = np.full(count, 1 / count) if weights is None else np.asarray(weights)
                edges = np.concatenate([[0.0], np.cumsum(shares / shares.sum())[:-1], [1.0]])
                self.choices += [_Choice(column, edges) for column in columns]
            elif not isinstance(parameter, Fixed):
                normal += columns
                if isinstance(parameter, Scalar) and parameter.cardinality <= _MOST_BINS:
                    log = None
                    if isinstance(parameter, Int) and parameter.log:
                        log = (np.log(parameter.low - 0.5), np.log(parameter.high + 0.5))
                    self.bins.append(_Bins(columns[0], int(parameter.cardinality), log))
        self.normal = np.array(normal, dtype=np.int64)
        """Columns with normal kernels: real ones and those with steps."""
        stepped = {b.column for b in self.bins}
        self.is_real = np.array([column not in stepped for column in normal], dtype=bool)
        """Which of those are real."""


def bandwidths(mu: Floats, mask: Bools) -> Floats:
    """Standard deviations of normal kernels; see the module.

    Args:
        mu: [n, d] centres in [0, 1].
        mask: [n, d] which are active.

    Returns:
        [n, d]; of no meaning where inactive.
    """
    on = np.ascontiguousarray(mask.T)
    count = on.sum(axis=1)
    centres = np.where(on, mu.T, np.inf)
    order = np.argsort(centres, axis=1)
    ranked = np.take_along_axis(centres, order, axis=1)
    if (ranked[:, 1:] == ranked[:, :-1]).any():  # the slower sort, for an order that is defined
        order = np.argsort(centres, axis=1, kind="stable")
    ranked[np.isinf(ranked)] = 0.0
    gaps = np.diff(ranked, axis=1)
    gaps[np.arange(gaps.shape[1]) >= count[:, None] - 1] = 0.0
    widest = np.zeros_like(centres)
    widest[:, :-1] = gaps
    np.maximum(widest[:, 1:], gaps, out=widest[:, 1:])
    s = np.empty_like(centres)
    np.put_along_axis(s, order, widest, axis=1)
    s[count == 1] = np.maximum(mu.T, 1 - mu.T)[count == 1]
    narrowest = 1 / np.minimum(_NARROWEST, count + 2.0)
    return np.clip(s, narrowest[:, None], 1.0).T


class Parzen:
    """A density fitted to observations; see the module.

    Args:
        axes: of the space.
        x: [n, d] observations in the unit cube, at the centres of bins; n may be 0.
        mask: [n, d] which coordinates are active.
        weights: [n] positive.
        prior_weight: of the prior, positive.

    Raises:
        DependencyNotInstalled: SciPy is missing.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.space import Space
        >>> x = np.array([[0.2], [0.3]])
        >>> found = Parzen(Axes(Space(a=Float(0, 1))), x, x > 0, np.ones(2), 1.0)
        >>> found.log_density(np.array([[0.25], [0.9]]), np.ones((2, 1), bool)).round(2).tolist()
        [0.46, -1.0]
    """

    def __init__(
        self, axes: Axes, x: Floats, mask: Bools, weights: Floats, prior_weight: float
    ) -> None:
        try:
            from scipy.special import ndtr
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("Parzen estimators", "search") from None
        self._axes, self._x, self._mask = axes, x, mask
        self._count = len(x)
        self._weights = np.append(weights, prior_weight)
        self._weights /= self._weights.sum()
        self._smoothing = prior_weight / (self._count + 1)
        columns = axes.normal
        active = mask[:, columns]
        one = np.ones((1, len(columns)))
        centres = x[:, columns]
        self._mu = np.concatenate([centres, 0.5 * one])
        self._s = np.concatenate([bandwidths(centres, active), one])
        self._active = np.concatenate([active, one.astype(bool)])
        self._low = ndtr((0 - self._mu) / self._s)
        self._mass = ndtr((1 - self._mu) / self._s) - self._low

    def draw(self, rng: np.random.Generator, q: int) -> Floats:
        """[q, d] points from the density; those of bins lie anywhere in them."""
        from scipy.special import ndtri

        picked = rng.choice(self._count + 1, size=q, p=self._weights)
        u = rng.random((q, self._axes.dimensions))
        columns = self._axes.normal
        quantile = self._low[picked] + u[:, columns] * self._mass[picked]
        drawn = np.clip(self._mu[picked] + self._s[picked] * ndtri(quantile), 0.0, 1.0)
        points = u.copy()
        points[:, columns] = np.where(self._active[picked], drawn, u[:, columns])
        stays = rng.random((q, len(self._axes.choices)))
        for k, choice in enumerate(self._axes.choices):
            share = self._smoothing * len(choice.shares)
            keeps = (picked < self._count) & (stays[:, k] < 1 / (1 + share))
            rows = np.flatnonzero(keeps)
            rows = rows[self._mask[picked[rows], choice.column]]
            index = choice.index(self._x[picked[rows], choice.column])
            points[rows, choice.column] = (
                choice.edges[index] + u[rows, choice.column] * choice.shares[index]
            )
        return points

    def log_density(self, x: Floats, mask: Bools) -> Floats:
        """[q] logarithms of the density relative to drawing at random.

        Args:
            x: [q, d] points, at the centres of bins.
            mask: [q, d] which coordinates count.
        """
        terms = self._log_real(x, mask)
        for bins in self._axes.bins:
            terms += self._log_bins(bins, x[:, bins.column], mask[:, bins.column])
        for choice in self._axes.choices:
            terms[:, :-1] += self._log_choice(choice, x[:, choice.column], mask[:, choice.column])
        terms += np.log(self._weights)
        most = terms.max(axis=1, keepdims=True)
        terms -= most
        total: Floats = np.log(np.exp(terms, out=terms).sum(axis=1)) + most[:, 0]
        return total

    def _log_real(self, x: Floats, mask: Bools) -> Floats:
        """[q, n + 1] sums over the real coordinates.

        The squares are multiplied out, so that the sum over coordinates is a matrix product; they
        are at most 1e4, which leaves 12 digits.
        """
        real = self._axes.is_real
        columns = self._axes.normal[real]
        mu, s, active = self._mu[:, real] - 0.5, self._s[:, real], self._active[:, real]
        precision = active / s**2
        scale = active * np.log(np.sqrt(2 * np.pi) * s * self._mass[:, real])
        kernels = (-0.5 * precision, precision * mu, -0.5 * precision * mu**2 - scale)
        counted = mask[:, columns].astype(np.float64)
        point = (x[:, columns] - 0.5) * counted
        squares: Floats = np.hstack([point**2, point, counted]) @ np.hstack(kernels).T
        return squares

    def _log_bins(self, bins: _Bins, u: Floats, mask: Bools) -> Floats:
        """[q, n + 1] of one coordinate with steps."""
        from scipy.special import ndtr

        k = int(np.searchsorted(self._axes.normal, bins.column))
        cells, where = np.unique(u, return_inverse=True)
        # Equal values have few bandwidths among them, so most kernels of a short range repeat.
        pairs, which = np.unique(self._mu[:, k] + 1j * self._s[:, k], return_inverse=True)
        low, high = bins.edges(cells)
        mu, s = pairs.real, pairs.imag
        mass = ndtr((high[:, None] - mu) / s) - ndtr((low[:, None] - mu) / s)
        mass /= (high - low)[:, None] * (ndtr((1 - mu) / s) - ndtr((0 - mu) / s))
        with np.errstate(divide="ignore"):
            table = np.log(mass)
        found: Floats = table[np.ix_(where, which)]
        found[~(mask[:, None] & self._active[:, k])] = 0.0
        return found

    def _log_choice(self, choice: _Choice, u: Floats, mask: Bools) -> Floats:
        """[q, n] of one choice."""
        column = choice.column
        given, centre = choice.index(u), choice.index(self._x[:, column])
        share = self._smoothing * len(choice.shares)
        hit = np.log((1 / choice.shares + share) / (1 + share))
        found = np.where(given[:, None] == centre, hit[given][:, None], np.log(share / (1 + share)))
        found[~(mask[:, None] & self._mask[:, column])] = 0.0
        return found
