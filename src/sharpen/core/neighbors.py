"""Values near a value, by the kind of parameter, in its coordinates of the unit cube.

::

    real, integer, ordinal   a normal step, reflected at the bounds; an integer or ordinal moves by
                             one at least
    categorical, boolean     another choice at random
    subset                   one item in or out; where the size forbids that, another one moves the
                             other way
    permutation              one item moved to another place

Time O(width).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sharpen.core.collections import Permutation, Subset
from sharpen.core.parameters import Bool, Categorical, Parameter, index_of

__all__ = ["another", "moved", "random_keys", "reflected"]

Floats = npt.NDArray[np.float64]


def moved(parameter: Parameter, rng: np.random.Generator, u: Floats, scale: float) -> Floats:
    """[width] coordinates of a value near the one at ``u``.

    Args:
        parameter: one with a choice: two values or more.
        rng: random numbers.
        u: [width] coordinates in [0, 1].
        scale: standard deviation of the step along a range, as a part of it.
    """
    if isinstance(parameter, Permutation | Subset | Categorical | Bool):
        return another(parameter, rng, u)
    step = rng.normal(0.0, scale)
    if math.isfinite(parameter.cardinality):
        step = np.copysign(max(abs(step), 1 / parameter.cardinality), step)
        if parameter.decode(reflected(u + step)) == parameter.decode(u):
            step = -step  # the bound had thrown it back
    return reflected(u + step)


def reflected(u: Floats) -> Floats:
    """Coordinates outside [0, 1], reflected at the bounds as often as it takes."""
    folded: Floats = np.abs((u + 1) % 2 - 1)
    return folded


def random_keys(order: npt.NDArray[np.int64]) -> Floats:
    """[n] coordinates of a permutation, from its items' places in the list of items."""
    keys = np.empty(len(order))
    keys[order] = (np.arange(len(order)) + 0.5) / len(order)
    return keys


def another(parameter: Parameter, rng: np.random.Generator, u: Floats) -> Floats:
    """[width] coordinates of another choice, order or subset; near where that has a meaning."""
    if isinstance(parameter, Permutation):
        order = np.argsort(u, kind="stable")
        place, to = rng.choice(len(order), size=2, replace=False)
        return random_keys(np.insert(np.delete(order, place), to, order[place]))
    if isinstance(parameter, Subset):
        new = np.array(parameter.encode(parameter.decode(u)))
        chosen = new > 0.5
        item = int(rng.integers(len(new)))
        size = int(chosen.sum()) + (-1 if chosen[item] else 1)
        most = len(new) if parameter.max is None else parameter.max
        if not parameter.min <= size <= most:  # then another one moves the other way
            others = np.flatnonzero(chosen != chosen[item])
            if not len(others):
                return new
            other = int(rng.choice(others))
            new[other] = 1 - new[other]
        new[item] = 1 - new[item]
        return new
    assert isinstance(parameter, Categorical | Bool)
    values = tuple(parameter.values_on_grid(int(parameter.cardinality)))
    now = index_of(parameter.decode(u), values)
    choice = (now + 1 + int(rng.integers(len(values) - 1))) % len(values)
    return np.array(parameter.encode(values[choice]))
