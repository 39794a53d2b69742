"""MOEA/D: many single objectives, one a direction, that learn from their neighbours.

Qingfu Zhang and Hui Li, "MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition",
IEEE Transactions on Evolutionary Computation 11(6), 2007; mating now and then beyond the
neighbours, and few replacements a child: Hui Li and Qingfu Zhang, "Multiobjective Optimization
Problems With Complicated Pareto Sets, MOEA/D and NSGA-II", ibid. 13(2), 2009.

::

    subproblem i   minimize max_j w_ij |f_j - z_j| / (n_j - z_j)    z ideal, n worst of the members
    child of i     of two of its T nearest subproblems' members with probability delta, else of any
    replacement    of at most two members that it improves, among those it was bred from

Differs from the papers: the children of a fifth of the directions are bred from the members before
them, then replace members in the order of their numbers; objectives are scaled; constraints by
Deb's rules.
Failed trials replace nothing. Time O(N T m) a generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import Generation, Ints
from sharpen.search.multiobjective import MultiObjectiveGA, constrained_ranks, directions_for
from sharpen.search.observations import Floats

__all__ = ["MOEAD"]

_PARTS = 5
_MOST_REPLACED = 2
_LEAST_WEIGHT = 1e-3


class MOEAD(MultiObjectiveGA):
    """MOEA/D; see the module, and :class:`MultiObjectiveGA` for the other options.

    Args:
        space: what to search over.
        objectives: one or more.
        constraints: any number.
        population: about how many directions.
        neighbours: T.
        delta: probability that a child is bred among neighbours.
        given: see :class:`MultiObjectiveGA`.
    """

    name: ClassVar[str] = "moead"
    hyperparameters: ClassVar[Space | None] = Space(
        population=Int(8, 200, log=True),
        crossover=Float(0.5, 1.0),
        mutation=Float(0.001, 0.5, log=True),
        neighbours=Int(4, 40, log=True),
        delta=Float(0.5, 1.0),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        population: int | None = None,
        neighbours: int = 15,
        delta: float = 0.9,
        **given: Any,
    ) -> None:
        if neighbours < 2 or not 0 <= delta <= 1:
            raise ConfigError(
                f"neighbours={neighbours} must be at least 2 and delta={delta} from 0 to 1 (moead)."
            )
        super().__init__(space, objectives, constraints, population=population, **given)
        self.directions = directions_for(len(self.objectives), self.population)
        if len(self.directions) < 8:  # one objective has but one direction
            self.directions = np.tile(self.directions, (8 // len(self.directions) + 1, 1))
        self.population = len(self.directions)
        self.neighbours, self.delta = min(neighbours, self.population), delta
        apart = np.linalg.norm(self.directions[:, None] - self.directions[None], axis=2)
        self._near = np.argsort(apart, axis=1, kind="stable")[:, : self.neighbours]

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`: one child for each of the next directions."""
        if self._generation == 0:
            return super().plan(first)
        part = max(self.population // _PARTS, 1)
        start = (self._generation - 1) * part
        self._turn = np.arange(start, start + part) % self.population
        return np.array(
            [
                self._bred(random_stream(self.seed, first + place), int(i))
                for place, i in enumerate(self._turn)
            ]
        )

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        if self._generation == 0:
            return self.first_point(number, rng)
        return self._bred(rng, int(rng.integers(self.population)))

    def _pool(self, rng: np.random.Generator, i: int) -> Ints:
        if rng.random() < self.delta:
            found: Ints = self._near[i]
            return found
        return np.arange(self.population)

    def _bred(self, rng: np.random.Generator, i: int) -> Floats:
        pool = self._pool(rng, i)
        a, b = rng.choice(pool, size=2, replace=False)
        return self.child(rng, self._x[a], self._x[b])

    def survive(self, losses: Floats, keys: Floats, rng: np.random.Generator) -> Ints:
        """See :meth:`MultiObjectiveGA.survive`: the best member for each direction."""
        if not len(losses):
            return np.empty(0, dtype=np.int64)
        ranks = constrained_ranks(losses, keys)
        feasible = np.flatnonzero(keys[:, 0] == 0)
        if not len(feasible):
            order = np.argsort(ranks, kind="stable")
            return np.resize(order, self.population)
        found = []
        for i in range(self.population):
            worth = self._worth(losses[feasible], losses[feasible], i)
            found.append(feasible[int(worth.argmin())])
        return np.array(found, dtype=np.int64)

    def _worth(self, losses: Floats, members: Floats, i: int) -> Floats:
        """[n] values of subproblem i."""
        ideal, worst = members.min(axis=0), members.max(axis=0)
        scaled = (losses - ideal) / np.where(worst > ideal, worst - ideal, 1.0)
        found: Floats = (np.maximum(self.directions[i], _LEAST_WEIGHT) * np.abs(scaled)).max(axis=1)
        return found

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        if self._generation == 0:
            super().absorb(generation)
            return
        for row in range(len(generation.places)):
            if generation.keys[row, 0] < 2:
                self._replace(generation, row)
        self._generation += 1

    def _replace(self, generation: Generation, row: int) -> None:
        """Let a child take the place of members that it improves."""
        place = int(generation.places[row])
        rng = random_stream(self.seed, self._first + place)
        pool = self._pool(rng, int(self._turn[place]))
        order = rng.permutation(pool)
        key, loss = generation.keys[row], generation.losses[row]
        known = self._losses[self._keys[:, 0] == 0]
        members = np.concatenate([known, loss[None]]) if key[0] == 0 else known
        replaced = 0
        for j in order:
            old = self._keys[j]
            if key[0] == 0 and old[0] == 0:
                pair = np.stack([loss, self._losses[j]])
                worth = self._worth(pair, members, int(j))
                better = worth[0] < worth[1]
            else:
                better = tuple(key) < tuple(old)
            if better:
                self._x[j], self._keys[j] = generation.x[row], key
                self._losses[j] = loss
                replaced += 1
                if replaced == _MOST_REPLACED:
                    return
