"""How a point of the unit cube is varied, parameter by parameter.

Simulated binary crossover: Kalyanmoy Deb and Ram Bhushan Agrawal, "Simulated Binary Crossover for
Continuous Search Space", Complex Systems 9, 1995, with the bounds of Deb, "An efficient constraint
handling method for genetic algorithms", 2000; polynomial mutation: ibid.; order crossover: Lawrence
Davis, "Applying Adaptive Algorithms to Epistatic Domains", IJCAI 1985.

::

    real, integer, ordinal   SBX; polynomial mutation, or a normal step that is reflected
    categorical, boolean     from either parent; another choice at random
    subset                   each item from either parent; one item in or out
    permutation              OX: a slice of one parent, the rest in the other's order;
                             one item moved to another place

Time O(d).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sharpen.core.collections import Permutation, Subset
from sharpen.core.neighbors import another, moved, random_keys
from sharpen.core.parameters import Bool, Categorical
from sharpen.core.space import Space
from sharpen.search.observations import Bools, Floats

__all__ = [
    "active_columns",
    "crossed",
    "free_columns",
    "mutated",
    "order_crossover",
    "polynomial_mutation",
    "simulated_binary_crossover",
    "stepped",
]


def active_columns(space: Space, point: Floats) -> list[str]:
    """Names of the parameters that are active at ``point`` and have a choice."""
    [config] = space.decode(point[None])
    return [name for name in config if space[name].cardinality > 1]


def free_columns(space: Space) -> npt.NDArray[np.int64]:
    """[k] which coordinates belong to parameters that have a choice."""
    columns = [
        np.arange(space.columns[name].start, space.columns[name].stop)
        for name, parameter in space.items()
        if parameter.cardinality > 1
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *columns])


def simulated_binary_crossover(
    rng: np.random.Generator, a: Floats, b: Floats, eta: float
) -> Floats:
    """[k] a child of two points, about as far from the nearer one as they are apart.

    Args:
        rng: random numbers.
        a: [k] a parent, in [0, 1].
        b: [k] the other.
        eta: the larger, the nearer to a parent.
    """
    low, high = np.minimum(a, b), np.maximum(a, b)
    differ = high - low > 1e-14
    apart = np.where(differ, high - low, 1.0)
    near_high = rng.random(len(a)) < 0.5
    room = np.where(near_high, 1 - high, low)  # to the bound on the child's side
    alpha = 2 - (1 + 2 * room / apart) ** -(eta + 1)
    u = rng.random(len(a)) * alpha
    # beta < 1 is between the parents, beta > 1 beyond the nearer one, up to the bound.
    beta = np.where(u <= 1, u, 1 / (2 - u)) ** (1 / (eta + 1))
    middle = (low + high) / 2
    child = middle + np.where(near_high, beta, -beta) * apart / 2
    found: Floats = np.clip(np.where(differ, child, a), 0.0, 1.0)
    return found


def polynomial_mutation(rng: np.random.Generator, x: Floats, eta: float) -> Floats:
    """[k] points in [0, 1] near ``x``, the nearer the larger ``eta``; never beyond a bound."""
    u = rng.random(len(x))
    power = 1 / (eta + 1)
    down = (2 * u + (1 - 2 * u) * (1 - x) ** (eta + 1)) ** power - 1
    up = 1 - (2 * (1 - u) + 2 * (u - 0.5) * x ** (eta + 1)) ** power
    found: Floats = np.clip(x + np.where(u < 0.5, down, up), 0.0, 1.0)
    return found


def order_crossover(rng: np.random.Generator, a: Floats, b: Floats) -> Floats:
    """[n] random keys of a permutation with a slice of that of ``a``, the rest as in ``b``."""
    first, second = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    n = len(first)
    begin, end = np.sort(rng.choice(n + 1, size=2, replace=False))
    child = np.empty(n, dtype=np.int64)
    child[begin:end] = first[begin:end]
    # From the end of the slice onwards, around, as the second parent has them from there.
    around = np.roll(second, -end)
    rest = around[~np.isin(around, first[begin:end])]
    child[(end + np.arange(len(rest))) % n] = rest
    return random_keys(child)


def crossed(
    space: Space, rng: np.random.Generator, a: Floats, b: Floats, eta: float = 15.0
) -> Floats:
    """[d] a child of two points, each parameter by its kind; see the module."""
    child = simulated_binary_crossover(rng, a, b, eta)
    from_a: Bools = rng.random(len(a)) < 0.5
    for name, parameter in space.items():
        columns = space.columns[name]
        if isinstance(parameter, Permutation):
            child[columns] = order_crossover(rng, a[columns], b[columns])
        elif isinstance(parameter, Subset | Categorical | Bool) or rng.random() < 0.5:
            # Of ranges, SBX crosses one in two.
            child[columns] = np.where(from_a[columns], a[columns], b[columns])
    return child


def mutated(
    space: Space, rng: np.random.Generator, point: Floats, rate: float, eta: float = 20.0
) -> Floats:
    """[d] a point with each parameter mutated with probability ``rate``; see the module."""
    new = point.copy()
    for name, parameter in space.items():
        columns = space.columns[name]
        if parameter.cardinality > 1 and rng.random() < rate:
            if isinstance(parameter, Permutation | Subset | Categorical | Bool):
                new[columns] = another(parameter, rng, point[columns])
            else:
                new[columns] = polynomial_mutation(rng, point[columns], eta)
    return new


def stepped(
    space: Space, rng: np.random.Generator, point: Floats, names: list[str], scale: float
) -> Floats:
    """[d] a point with each of some parameters moved: ranges by a normal step of ``scale``.

    An integer or ordinal moves by one at least.
    """
    new = point.copy()
    for name in names:
        columns = space.columns[name]
        new[columns] = moved(space[name], rng, point[columns], scale)
    return new
