"""Which parameters matter: functional analysis of variance on a random forest.

Frank Hutter, Holger Hoos and Kevin Leyton-Brown, "An Efficient Approach for Assessing
Hyperparameter Importance", ICML 2014, algorithm 2.

::

    a tree      y(u) = sum_l y_l [u in box_l]                     on the unit cube
    mean        m    = sum_l vol(box_l) y_l
    marginal    a_j(u_j) = sum_l y_l vol(box_l without side j) [u_j in side j of box_l]
    importance  F_j  = integral (a_j - m)^2 / (sum_l vol(box_l) y_l^2 - m^2)
    pair        F_jk = integral (a_jk - m)^2 / ... - F_j - F_k

Averages over the trees. Marginals are exact: constant between the thresholds of a tree.

The ablation path goes from the default to the best configuration, each step with the parameter
whose change the forest says gains most: Andre Biedenkapp et al., "Efficient Parameter Importance
Analysis via Ablation with Surrogates", AAAI 2017.

Differs from the papers: a parameter of several coordinates has the sum of theirs; coordinates of
inactive parameters are 1/2. Failed trials are left out. Time O(trees * leaves * (d + pairs)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError, DependencyNotInstalled
from sharpen.core.feedback import Trial
from sharpen.core.problem import Objective
from sharpen.core.space import Space
from sharpen.search.moments import deviation, mean

__all__ = ["Importance", "importance"]

Floats = npt.NDArray[np.float64]
_FEWEST = 8
_CUT = 1e-12


@dataclass(frozen=True, slots=True)
class Importance:
    """What a study's trials say of its parameters."""

    objective: str
    """Of which objective."""

    parameters: dict[str, float]
    """Share of the variance by parameter alone, the largest first."""

    pairs: dict[tuple[str, str], float] = field(default_factory=dict)
    """Share of the variance by pairs, beyond what each does alone; the largest first."""

    ablation: list[tuple[str, float]] = field(default_factory=list)
    """Parameters in the order in which changing them from the default to the best gains most, each
    with the predicted objective after it."""

    fit: float = 0.0
    """R^2 of the forest on trials that its trees did not see; near 0, nothing here means much."""

    trials: int = 0
    """Trials that it stands on."""


def importance(
    space: Space,
    trials: Sequence[Trial],
    objective: Objective,
    *,
    pairs: int = 6,
    trees: int = 64,
    seed: int = 0,
) -> Importance:
    """Analyse trials.

    Args:
        space: of the trials.
        trials: those that ended well count.
        objective: which values.
        pairs: the so many most important parameters are looked at in pairs.
        trees: of the forest.
        seed: of the forest.

    Raises:
        DataError: fewer than 8 trials ended well, or all have the same value.
        DependencyNotInstalled: scikit-learn is missing.
    """
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("the importance of parameters", "search") from None
    if pairs < 0 or trees < 1:
        raise ConfigError(f"pairs={pairs} must be at least 0, trees={trees} at least 1.")
    good = [t for t in trials if t.is_ok and objective.name in t.values]
    if len(good) < _FEWEST:
        raise DataError(f"the importance of parameters needs {_FEWEST} trials; {len(good)} are ok.")
    x = space.encode([t.config for t in good]).x
    y = np.array([t.values[objective.name] for t in good])
    if not np.ptp(y) > 0:
        raise DataError(f"all trials have the same '{objective.name}', so no parameter matters.")
    forest = RandomForestRegressor(
        trees, min_samples_leaf=2, max_features=0.7, oob_score=True, random_state=seed, n_jobs=1
    ).fit(x, (y - mean(y)) / deviation(y))
    boxes = [_boxes(tree.tree_, x.shape[1]) for tree in forest.estimators_]
    boxes = [found for found in boxes if found[3] > _CUT]
    if not boxes:
        raise DataError(f"a forest finds nothing that '{objective.name}' depends on.")
    single = np.mean([_single(*found) for found in boxes], axis=0)
    columns = {name: range(c.start, c.stop) for name, c in space.columns.items()}
    alone = {name: float(sum(single[k] for k in ks)) for name, ks in columns.items()}
    ranked = sorted(alone, key=lambda name: -alone[name])
    together: dict[tuple[str, str], float] = {}
    for i, first in enumerate(ranked[:pairs]):
        for second in ranked[i + 1 : pairs]:
            parts = [(j, k) for j in columns[first] for k in columns[second]]
            found = [sum(_pair(*box, j, k) for j, k in parts) for box in boxes]
            together[first, second] = float(np.mean(found))
    return Importance(
        objective.name,
        {name: alone[name] for name in ranked},
        dict(sorted(together.items(), key=lambda item: -item[1])),
        _ablation(space, good, objective, forest, float(mean(y)), float(deviation(y))),
        float(forest.oob_score_),
        len(good),
    )


def _boxes(tree: Any, d: int) -> tuple[Floats, Floats, Floats, float]:
    """[l, d] least and [l, d] largest corners of a tree's leaves, [l] values, and the variance."""
    low, high, value = [], [], []
    stack = [(0, np.zeros(d), np.ones(d))]
    while stack:
        node, least, most = stack.pop()
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            low.append(least)
            high.append(most)
            value.append(tree.value[node].item())
            continue
        j, cut = tree.feature[node], min(max(float(tree.threshold[node]), 0.0), 1.0)
        below, above = most.copy(), least.copy()
        below[j], above[j] = min(most[j], cut), max(least[j], cut)
        stack += [(left, least, below), (right, above, most)]
    lows, highs, values = np.array(low), np.array(high), np.array(value)
    volume = np.prod(highs - lows, axis=1)
    mean = float(volume @ values)
    return lows, highs, values, float(volume @ values**2) - mean**2


def _single(low: Floats, high: Floats, value: Floats, variance: float) -> Floats:
    """[d] share of the variance by each coordinate alone."""
    side = high - low
    volume = np.prod(side, axis=1)
    mean = float(volume @ value)
    shares = np.zeros(low.shape[1])
    for j in range(low.shape[1]):
        cuts = np.unique(np.concatenate([low[:, j], high[:, j]]))
        if len(cuts) < 3:
            continue  # the tree never splits here
        rest = np.prod(np.delete(side, j, axis=1), axis=1) * value
        # Differences at both ends of each leaf's side, summed up along the cuts.
        steps = np.zeros(len(cuts))
        np.add.at(steps, np.searchsorted(cuts, low[:, j]), rest)
        np.add.at(steps, np.searchsorted(cuts, high[:, j]), -rest)
        marginal = np.cumsum(steps)[:-1]
        shares[j] = np.diff(cuts) @ (marginal - mean) ** 2 / variance
    return shares


def _pair(low: Floats, high: Floats, value: Floats, variance: float, j: int, k: int) -> float:
    """Share of the variance by two coordinates together, beyond each alone."""
    side = high - low
    volume = np.prod(side, axis=1)
    mean = float(volume @ value)
    first = np.unique(np.concatenate([low[:, j], high[:, j]]))
    second = np.unique(np.concatenate([low[:, k], high[:, k]]))
    if len(first) < 3 or len(second) < 3:
        return 0.0
    rest = np.prod(np.delete(side, [j, k], axis=1), axis=1) * value
    steps = np.zeros((len(first), len(second)))
    ends = [np.searchsorted(first, corner[:, j]) for corner in (low, high)]
    others = [np.searchsorted(second, corner[:, k]) for corner in (low, high)]
    for a, sign in zip(ends, (1, -1), strict=True):
        for b, other in zip(others, (1, -1), strict=True):
            np.add.at(steps, (a, b), sign * other * rest)
    marginal = steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
    widths, heights = np.diff(first), np.diff(second)
    both = widths @ (marginal - mean) ** 2 @ heights
    alone = widths @ (marginal @ heights - mean) ** 2 + heights @ (widths @ marginal - mean) ** 2
    return float((both - alone) / variance)


def _ablation(
    space: Space,
    good: Sequence[Trial],
    objective: Objective,
    forest: Any,
    mean: float,
    scale: float,
) -> list[tuple[str, float]]:
    """The greedy path from the default to the best configuration, by the forest."""
    best = min(good, key=lambda t: objective.loss(t.values[objective.name]))
    start, end = (space.encode([config]).x[0] for config in (space.default(), best.config))
    left = [n for n, c in space.columns.items() if not np.array_equal(start[c], end[c])]
    path: list[tuple[str, float]] = []
    while left:
        points = np.tile(start, (len(left), 1))
        for row, name in enumerate(left):
            points[row, space.columns[name]] = end[space.columns[name]]
        predicted = forest.predict(points) * scale + mean
        chosen = min(range(len(left)), key=lambda i: objective.loss(float(predicted[i])))
        path.append((left[chosen], float(predicted[chosen])))
        start = points[chosen]
        left.pop(chosen)
    return path
