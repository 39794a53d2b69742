"""Where an acquisition function is largest: many starts, gradients, and exchange of values.

::

    raw       points drawn in the cube, and near the best known ones at several distances
    screen    a cheaper acquisition, where the one wanted is costly, leaves 32 of them
    starts    the best of them near and far, half each
    moving    coordinates climb by gradients, all starts at once (:mod:`sharpen.search.gp.optimize`)
    discrete  coordinate exchange: the best change of one discrete parameter, until none helps
    rounds    moving and discrete take turns

Coordinate exchange: Ruth K. Meyer and Christopher J. Nachtsheim, "The Coordinate-Exchange Algorithm
for Constructing Exact Optimal Experimental Designs", Technometrics 37(1), 1995.

Differs from the paper: None. Every value that counts is one of an allowed configuration: rounded,
with inactive parameters away, and moved out of forbidden combinations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sharpen.core.collections import Permutation, Subset
from sharpen.core.parameters import Parameter
from sharpen.search.gp.acquisition import Acquisition, value_and_slopes
from sharpen.search.gp.features import Features
from sharpen.search.gp.optimize import minimize_all

__all__ = ["maximize"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_DISTANCES = (0.1, 0.01, 0.001)  # of points near a known one, in shares of the range
_SWEEPS = 10  # most changes of discrete parameters in one round
_SCREENED = 32
_RACE = 16  # evaluations that leave half of the restarts in a space of real numbers
_MOST_CHANGES = 64  # of one collection


def maximize(
    acquisition: Acquisition,
    features: Features,
    anchors: Floats,
    rng: np.random.Generator,
    *,
    screen: Acquisition | None = None,
    samples: int = 512,
    restarts: int = 8,
    evaluations: int = 60,
    lower: Floats | None = None,
    upper: Floats | None = None,
) -> list[dict[str, Any]]:
    """Configurations where an acquisition function is large, best first.

    Args:
        acquisition: of features.
        features: map of the space.
        anchors: [a, d] coordinates of good known configurations.
        rng: draws the raw points.
        screen: a cheaper acquisition that chooses among raw points first.
        samples: raw points in the whole cube.
        restarts: starts that are improved.
        evaluations: most evaluations of each.
        lower: [d] corner of the box to draw and move in; None is the cube.
        upper: [d] the other corner.

    Returns:
        At most ``restarts`` of them.
    """
    d = features.space.dimensions
    lower = np.zeros(d) if lower is None else lower
    upper = np.ones(d) if upper is None else upper
    far = lower + (upper - lower) * rng.random((samples, d))
    near = _near(anchors, lower, upper, samples // 2, rng)
    found = _Points(features, np.concatenate([far, near]), rng)
    if screen is not None and restarts < _SCREENED:
        found, samples = _best(found, found.value(screen), samples, _SCREENED)
    found, _ = _best(found, found.value(acquisition), samples, restarts)
    if features.is_continuous:
        x, loss = minimize_all(
            _descent(acquisition, None, features.moving),
            found.x,
            lower,
            upper,
            evaluations=evaluations,
            tolerance=1e-7,
            race=_RACE,
        )
        order = np.argsort(loss, kind="stable")
        return features.space.decode(x[order])
    value = found.value(acquisition)
    for _ in range(2):
        found, value = _climb(found, value, acquisition, lower, upper, evaluations, rng)
        found, value, changed = _exchange(found, value, acquisition, rng)
        if not changed or not len(features.moving):
            break
    order = np.argsort(-value, kind="stable")
    return features.space.decode(found.points[order])


def _best(points: _Points, value: Floats, far: int, count: int) -> tuple[_Points, int]:
    """Of the first ``far`` points and of the others the best, half each; and how many are far."""
    half = (count + 1) // 2
    first = np.argsort(-value[:far], kind="stable")[:half]
    second = far + np.argsort(-value[far:], kind="stable")[: count - half]
    return points.take(np.concatenate([first, second])), len(first)


class _Points:
    """Allowed configurations at, or near, coordinates [n, d]."""

    def __init__(self, features: Features, x: Floats, rng: np.random.Generator) -> None:
        self._features = features
        self.x = self.points = x
        self.mask = np.ones(x.shape, dtype=bool)
        if not features.is_continuous:
            self.points, encoded = features.space.settle_all(x, rng)
            self.x, self.mask = encoded.x, encoded.mask
        self.features = features(self.x, self.mask)

    def take(self, rows: Ints) -> _Points:
        taken = object.__new__(_Points)
        taken._features = self._features
        taken.x, taken.mask, taken.features = self.x[rows], self.mask[rows], self.features[rows]
        taken.points = self.points[rows]
        return taken

    def better(self, other: _Points, where: npt.NDArray[np.bool_]) -> _Points:
        """These, with the rows ``where`` those of another."""
        mixed = object.__new__(_Points)
        mixed._features = self._features
        pick = where[:, None]
        mixed.x = np.where(pick, other.x, self.x)
        mixed.mask = np.where(pick, other.mask, self.mask)
        mixed.features = np.where(pick, other.features, self.features)
        mixed.points = np.where(pick, other.points, self.points)
        return mixed

    def value(self, acquisition: Acquisition) -> Floats:
        with torch.no_grad():
            value: Floats = acquisition(torch.from_numpy(self.features)).numpy()
        return np.nan_to_num(value, nan=-np.inf)


def _near(
    anchors: Floats, lower: Floats, upper: Floats, count: int, rng: np.random.Generator
) -> Floats:
    """[count, d] points around anchors, each with some coordinates moved by one distance."""
    count = count if len(anchors) else 0
    at = anchors[rng.integers(len(anchors), size=count)] if count else np.empty((0, len(lower)))
    distance = rng.choice(_DISTANCES, size=(count, 1))
    moved = at + distance * (upper - lower) * rng.standard_normal(at.shape)
    # In many dimensions a change of a few coordinates keeps what is good about the rest.
    share = min(1.0, 20 / max(at.shape[1], 1))
    moved = np.where(rng.random(at.shape) < share, moved, at)
    return np.clip(moved, lower, upper)


def _descent(acquisition: Acquisition, fixed: Floats | None, moving: Ints) -> Any:
    """The negated acquisition as a function of the moving features."""

    def function(z: Floats, rows: Ints) -> tuple[Floats, Floats]:
        if fixed is None:
            value, gradient = value_and_slopes(acquisition, z)
            return -value, -gradient
        whole = fixed[rows]
        whole[:, moving] = z
        value, gradient = value_and_slopes(acquisition, whole)
        return -value, -gradient[:, moving]

    return function


def _climb(
    found: _Points,
    value: Floats,
    acquisition: Acquisition,
    lower: Floats,
    upper: Floats,
    evaluations: int,
    rng: np.random.Generator,
) -> tuple[_Points, Floats]:
    features = found._features
    if not len(features.moving):
        return found, value
    columns = features.columns
    start, active = found.x[:, columns], found.mask[:, columns]
    z, _ = minimize_all(
        _descent(acquisition, found.features, features.moving),
        start,
        np.where(active, np.minimum(lower[columns], start), start),
        np.where(active, np.maximum(upper[columns], start), start),
        evaluations=evaluations,
        tolerance=1e-7,
    )
    x = found.x.copy()
    x[:, columns] = z
    moved = _Points(features, x, rng)
    new = moved.value(acquisition)
    return found.better(moved, new > value), np.maximum(new, value)


def _exchange(
    found: _Points, value: Floats, acquisition: Acquisition, rng: np.random.Generator
) -> tuple[_Points, Floats, bool]:
    features, changed = found._features, False
    going = np.arange(len(value))
    for _ in range(_SWEEPS if features.discrete else 0):
        rows, owners = [], []
        for i in going:
            for name in features.discrete:
                block = features.space.columns[name]
                if found.mask[i, block.start]:
                    for u in _changes(features.space[name], found.x[i, block], rng):
                        row = found.x[i].copy()
                        row[block] = u
                        rows.append(row)
                        owners.append(i)
        if not rows:
            break
        tried = _Points(features, np.array(rows), rng)
        new = tried.value(acquisition)
        owner = np.array(owners)
        best = np.array([_best_of(new, owner, i) for i in range(len(value))])
        gain = np.array([new[b] > v if b >= 0 else False for b, v in zip(best, value, strict=True)])
        if not gain.any():
            break
        found = found.better(tried.take(np.maximum(best, 0)), gain)
        value = np.where(gain, new[np.maximum(best, 0)], value)
        changed, going = True, np.flatnonzero(gain)
    return found, value, changed


def _best_of(value: Floats, owner: Ints, i: int) -> int:
    rows = np.flatnonzero(owner == i)
    return int(rows[np.argmax(value[rows])]) if len(rows) else -1


def _changes(parameter: Parameter, u: Floats, rng: np.random.Generator) -> list[Any]:
    """Coordinates of the values one change away from those at ``u``."""
    if isinstance(parameter, Permutation):
        first, second = np.triu_indices(len(u), 1)
        swaps = []
        for i, j in zip(first, second, strict=True):
            other = u.copy()
            other[i], other[j] = u[j], u[i]
            swaps.append(other)
        return _some(swaps, rng)
    if isinstance(parameter, Subset):
        flips = [np.where(np.arange(len(u)) == i, 1 - u, u) for i in range(len(u))]
        inside, outside = np.flatnonzero(u >= 0.5), np.flatnonzero(u < 0.5)
        for i in inside:
            for j in outside:
                other = u.copy()
                other[i], other[j] = u[j], u[i]
                flips.append(other)
        return _some(flips, rng)
    values = [parameter.encode(v) for v in parameter.values_on_grid(_MOST_CHANGES)]
    return [v for v in values if v[0] != u[0]]


def _some(changes: list[Any], rng: np.random.Generator) -> list[Any]:
    if len(changes) <= _MOST_CHANGES:
        return changes
    return [changes[i] for i in rng.choice(len(changes), _MOST_CHANGES, replace=False)]
