"""A genetic algorithm: the better trials are crossed and mutated, generation after generation.

John H. Holland, "Adaptation in Natural and Artificial Systems", 1975; for real numbers Kalyanmoy
Deb, "An efficient constraint handling method for genetic algorithms", Computer Methods in Applied
Mechanics and Engineering 186, 2000.

::

    parent       the better of `tournament` members at random (Deb's rules)
    child        crossed(parent, other parent) with probability `crossover`, else the parent
    mutation     each parameter with probability `mutation`
    survivors    the `elite` best members and the best N - elite children

The first trial is the space's default, the others of the first generation are uniform. Crossover
and mutation by the kind of parameter: :mod:`sharpen.search.variation`. Infeasible trials
rank after feasible ones by their violation, failed ones last. Trials from elsewhere compete with
the first generation.

Differs from the papers: elitism; a trial that begins while the generation before is not complete is
bred from that generation's parents. Time O(d + log N) a proposal; memory O(N d).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.de import default_population
from sharpen.search.generations import Generation, GenerationalOptimizer
from sharpen.search.observations import Floats
from sharpen.search.variation import crossed, mutated

__all__ = ["GA"]


class GA(GenerationalOptimizer):
    """A genetic algorithm for every kind of parameter; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        population: N; None is 5 d, at most a fiftieth of the budget, at least 8.
        crossover: probability that a child has two parents.
        mutation: probability that a parameter is mutated; None is one in the number of them.
        tournament: how many members compete to be a parent.
        elite: how many members survive for certain.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "ga"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    hyperparameters: ClassVar[Space] = Space(
        population=Int(4, 64, log=True),
        crossover=Float(0.5, 1.0),
        mutation=Float(0.001, 0.5, log=True),
        tournament=Int(2, 4),
        elite=Int(0, 3),
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
        tournament: int = 2,
        elite: int = 1,
        **given: Any,
    ) -> None:
        if population is not None and population < 2:
            raise ConfigError(f"population={population} must be at least 2 (GA).")
        usual = 5 * space.dimensions
        self.population = population or default_population(usual, given.get("budget"))
        for option, value in (("crossover", crossover), ("mutation", mutation)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{option}={value} must be from 0 to 1 (GA).")
        if tournament < 1:
            raise ConfigError(f"tournament={tournament} must be at least 1 (GA).")
        if not 0 <= elite < self.population:
            raise ConfigError(
                f"elite={elite} must be at least 0 and less than {self.population} (GA)."
            )
        self.crossover, self.tournament, self.elite = crossover, tournament, elite
        free = sum(1 for parameter in space.values() if parameter.cardinality > 1)
        self.mutation = mutation if mutation is not None else 1 / max(free, 1)
        super().__init__(space, objectives, constraints, **given)

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        self._x, self._keys = self.elsewhere()
        self._is_first = True

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        numbers = range(first, first + self.population)
        return np.array([self.stray(n, random_stream(self.seed, n)) for n in numbers])

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        if self._is_first:
            return self.first_point(number, rng)
        # Members are sorted from the best: the smallest of some indices wins a tournament.
        winners = rng.integers(len(self._x), size=(2, self.tournament)).min(axis=1)
        child, other = self._x[winners[0]], self._x[winners[1]]
        if rng.random() < self.crossover:
            child = crossed(self.space, rng, child, other)
        return mutated(self.space, rng, child, self.mutation)

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        kept = len(self._x) if self._is_first else self.elite
        born = generation.order[: max(self.population - min(kept, self.elite), 0)]
        x = np.concatenate([self._x[:kept], generation.x[born]])
        keys = np.concatenate([self._keys[:kept], generation.keys[born]])
        order = np.lexsort((keys[:, 1], keys[:, 0]))[: self.population]
        self._x, self._keys = x[order], keys[order]
        self._is_first = not len(order)
