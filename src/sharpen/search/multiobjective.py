"""The base of genetic algorithms for several objectives: what differs is who survives.

::

    parent       the better of two members at random, by the order in which they survived
    child        crossed(parent, other parent), mutated; by kind: sharpen.search.variation
    survivors    the best N of parents and children, by the subclass

Constraints by Deb's rules: feasible members are ranked by their objectives, infeasible ones after
them by their violation, failed ones last. The first trial is the space's default. Trials from
elsewhere compete with the first generation.

Reference directions: Indraneel Das and John E. Dennis, "Normal-Boundary Intersection: A New Method
for Generating the Pareto Surface in Nonlinear Multicriteria Optimization Problems", SIAM Journal on
Optimization 8(3), 1998: all (k_1, ..., k_m) / p with whole k that sum to p.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import Generation, GenerationalOptimizer, Ints
from sharpen.search.observations import Floats
from sharpen.search.pareto import non_dominated_ranks
from sharpen.search.variation import crossed, mutated

__all__ = ["MultiObjectiveGA", "constrained_ranks", "das_dennis", "directions_for"]

_OF_GENERATIONS = 2**61  # streams of generations come after those of trials


def das_dennis(m: int, partitions: int) -> Floats:
    """[k, m] evenly spread directions of the unit simplex, k = C(m + p - 1, m - 1)."""
    bars = itertools.combinations(range(partitions + m - 1), m - 1)
    rows = [
        [b - a - 1 for a, b in itertools.pairwise((-1, *places, partitions + m - 1))]
        for places in bars
    ]
    return np.array(rows, dtype=np.float64) / partitions


def directions_for(m: int, count: int) -> Floats:
    """The most Das-Dennis directions that are no more than ``count``, at least m of them."""
    if m == 1:
        return np.ones((1, 1))
    partitions = 1
    while math.comb(partitions + m, m - 1) <= count:
        partitions += 1
    return das_dennis(m, partitions)


def constrained_ranks(losses: Floats, keys: Floats) -> Ints:
    """[n] ranks: of non-domination where feasible, then by violation, then the failed ones.

    Args:
        losses: [n, m].
        keys: [n, 2] see :func:`sharpen.search.generations.merit_keys`.
    """
    ranks = np.zeros(len(losses), dtype=np.int64)
    feasible = keys[:, 0] == 0
    if feasible.any():
        ranks[feasible] = non_dominated_ranks(losses[feasible])
    others = np.flatnonzero(~feasible)
    if len(others):
        first = int(ranks[feasible].max()) + 1 if feasible.any() else 0
        worse = np.where(keys[others, 0] == 1, keys[others, 1], np.inf)
        _, place = np.unique(worse, return_inverse=True)
        ranks[others] = first + place
    return ranks


class MultiObjectiveGA(GenerationalOptimizer):
    """Base of genetic algorithms for several objectives; see the module.

    Args:
        space: what to search over.
        objectives: one or more.
        constraints: any number.
        population: N; None is chosen by the subclass.
        crossover: probability that a child has two parents.
        mutation: probability that a parameter is mutated; None is one in the number of them.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(multi_objective=True, constraints=True)
    hyperparameters: ClassVar[Space | None] = Space(
        population=Int(8, 200, log=True),
        crossover=Float(0.5, 1.0),
        mutation=Float(0.001, 0.5, log=True),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        population: int | None = None,
        crossover: float = 0.9,
        mutation: float | None = None,
        **given: Any,
    ) -> None:
        if population is not None and population < 4:
            raise ConfigError(f"population={population} must be at least 4 ({self.name}).")
        for option, value in (("crossover", crossover), ("mutation", mutation)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{option}={value} must be from 0 to 1 ({self.name}).")
        budget = given.get("budget")
        # Twenty generations at least, where the budget is known.
        usual = 40 if budget is None else min(max(budget // 20, 8), 100)
        self.population = population or usual
        self.crossover = crossover
        free = sum(1 for parameter in space.values() if parameter.cardinality > 1)
        self.mutation = mutation if mutation is not None else 1 / max(free, 1)
        super().__init__(space, objectives, constraints, **given)

    @abstractmethod
    def survive(self, losses: Floats, keys: Floats, rng: np.random.Generator) -> Ints:
        """Which members survive, the best first, at most :attr:`population`.

        Args:
            losses: [n, m].
            keys: [n, 2] see :func:`sharpen.search.generations.merit_keys`.
            rng: of this generation.
        """

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        self._x, self._keys = self.elsewhere()
        self._losses = self.seen.loss[: len(self._x)].copy()
        self._generation = 0

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        numbers = range(first, first + self.population)
        return np.array([self.stray(n, random_stream(self.seed, n)) for n in numbers])

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        if self._generation == 0:
            return self.first_point(number, rng)
        winners = rng.integers(len(self._x), size=(2, 2)).min(axis=1)
        return self.child(rng, self._x[winners[0]], self._x[winners[1]])

    def child(self, rng: np.random.Generator, a: Floats, b: Floats) -> Floats:
        """[d] a child of two points, or a mutant of the first."""
        made = crossed(self.space, rng, a, b) if rng.random() < self.crossover else a
        return mutated(self.space, rng, made, self.mutation)

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        x = np.concatenate([self._x, generation.x])
        keys = np.concatenate([self._keys, generation.keys])
        losses = np.concatenate([self._losses, generation.losses])
        rng = random_stream(self.seed, _OF_GENERATIONS + self._generation)
        kept = self.survive(losses, keys, rng)
        self._x, self._keys, self._losses = x[kept], keys[kept], losses[kept]
        self._generation += len(self._x) > 0
