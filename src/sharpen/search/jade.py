"""JADE: differential evolution towards the better members, which learns its own parameters.

Jingqiao Zhang and Arthur C. Sanderson, "JADE: Adaptive Differential Evolution with Optional
External Archive", IEEE Transactions on Evolutionary Computation 13(5), 2009.

::

    F_i  ~ Cauchy(mu_F, 0.1), cut off at 1, drawn again if not positive
    CR_i ~ N(mu_CR, 0.1), cut off at 0 and 1
    v_i  = x_i + F_i (x_pbest - x_i) + F_i (x_r1 - x~_r2)          pbest of the best 100 p %,
                                                                   x~_r2 of members and archive
    after a generation, with S the parameters of the trials that improved on their parent:
    mu_CR <- (1 - c) mu_CR + c mean(S_CR)
    mu_F  <- (1 - c) mu_F  + c sum(S_F^2) / sum(S_F)
    parents that were improved on go to the archive, which forgets at random beyond N

The first trial is the space's default, the others of the first generation are uniform. Crossover
and bounds as in :mod:`sharpen.search.de`. Infeasible trials rank after feasible ones by
their violation, failed ones last. Trials from elsewhere compete with the first generation.

Differs from the paper: a trial that begins while the generation before is not complete is bred
from that generation's parents and has no part in the learning of F and CR. Time O(N + d) a
proposal; memory O(N d).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.de import binomial, default_population, drawn_back
from sharpen.search.generations import Generation, GenerationalOptimizer, no_worse
from sharpen.search.observations import Bools, Floats

__all__ = ["JADE"]

_LATER = 2**62  # streams of what happens after a generation; trials have the numbers below


class JADE(GenerationalOptimizer):
    """Adaptive differential evolution with an archive; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        population: N; None is 10 d, at most a fiftieth of the budget, at least 8.
        best: p, the part of the population that counts as the best.
        learning_rate: c, of mu_F and mu_CR.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "jade"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    hyperparameters: ClassVar[Space | None] = Space(
        population=Int(4, 200, log=True), best=Float(0.02, 0.5), learning_rate=Float(0.01, 0.5)
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        population: int | None = None,
        best: float = 0.05,
        learning_rate: float = 0.1,
        **given: Any,
    ) -> None:
        kind = type(self).__name__
        if population is not None and population < 4:
            raise ConfigError(f"population={population} must be at least 4 ({kind}).")
        for option, value in (("best", best), ("learning_rate", learning_rate)):
            if not 0 < value <= 1:
                raise ConfigError(f"{option}={value} must be positive and at most 1 ({kind}).")
        self.best, self.learning_rate = best, learning_rate
        usual = self._usual_population(space.dimensions)
        self.population = population or default_population(usual, given.get("budget"))
        super().__init__(space, objectives, constraints, **given)

    # -- what its descendants change ------------------------------------------------------------

    def _usual_population(self, dimensions: int) -> int:
        return 10 * dimensions

    def _begin_learning(self) -> None:
        self._mu_factor, self._mu_crossover = 0.5, 0.5

    def _centres(self, rng: np.random.Generator) -> tuple[float, float]:
        """mu_F and mu_CR of one trial."""
        return self._mu_factor, self._mu_crossover

    def _learn(self, factor: Floats, crossover: Floats, gain: Floats) -> None:
        """Learn from [k] parameters of trials that improved on their parents by [k] ``gain``."""
        c = self.learning_rate
        self._mu_crossover = float((1 - c) * self._mu_crossover + c * crossover.mean())
        self._mu_factor = float((1 - c) * self._mu_factor + c * (factor**2).sum() / factor.sum())

    def _sizes(self, told: int) -> tuple[int, int]:
        """Members and archive after ``told`` trials."""
        return self.population, self.population

    # -- generations ----------------------------------------------------------------------------

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        self._x, self._keys = self.elsewhere()
        self._archive: Floats = np.empty((0, self.space.dimensions))
        self._is_first = True
        self._begin_learning()

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        count = self.population if self._is_first else len(self._x)
        self._generation = first
        self._factor, self._crossover = np.zeros(count), np.zeros(count)
        points = np.empty((count, self.space.dimensions))
        for i in range(count):
            rng = random_stream(self.seed, first + i)
            if self._is_first:
                points[i] = self.first_point(first + i, rng)
            else:
                points[i], self._factor[i], self._crossover[i] = self._child(i, rng)
        return points

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        if self._is_first:
            return rng.random(self.space.dimensions)
        return self._child(number % len(self._x), rng)[0]

    def _child(self, i: int, rng: np.random.Generator) -> tuple[Floats, float, float]:
        """[d] a child of member i, with its F and CR."""
        mu_factor, mu_crossover = self._centres(rng)
        crossover = min(max(float(rng.normal(mu_crossover, 0.1)), 0.0), 1.0)
        if mu_crossover < 0:  # the terminal value of L-SHADE
            crossover = 0.0
        factor = 0.0
        while factor <= 0:
            factor = min(mu_factor + 0.1 * float(rng.standard_cauchy()), 1.0)
        size, parent = len(self._x), self._x[i]
        pbest = self._ranked[rng.integers(max(round(self.best * size), 2))]
        r1 = (i + 1 + int(rng.integers(size - 1))) % size
        r2 = i
        while r2 in (i, r1):
            r2 = int(rng.integers(size + len(self._archive)))
        other = self._x[r2] if r2 < size else self._archive[r2 - size]
        mutant = parent + factor * (self._x[pbest] - parent) + factor * (self._x[r1] - other)
        point = binomial(rng, parent, drawn_back(mutant, parent), crossover)
        return point, factor, crossover

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        told = self._generation + len(self._factor)
        size, archive_size = self._sizes(told)
        if self._is_first:
            self._x = np.concatenate([self._x, generation.x])
            self._keys = np.concatenate([self._keys, generation.keys])
        else:
            places, old = generation.places, self._keys[generation.places]
            better = ~no_worse(old, generation.keys)
            learned = better & generation.planned
            if learned.any():
                of = places[learned]
                gain = _gain(old[learned], generation.keys[learned])
                self._learn(self._factor[of], self._crossover[of], gain)
            self._archive = np.concatenate([self._archive, self._x[places[better]]])
            kept: Bools = no_worse(generation.keys, old)
            self._x[places[kept]] = generation.x[kept]
            self._keys[places[kept]] = generation.keys[kept]
        self._is_first = len(self._x) < 4  # too few ended: draw others
        order: npt.NDArray[np.int64] = np.lexsort((self._keys[:, 1], self._keys[:, 0]))
        if len(order) > size:
            stay = np.sort(order[:size])
            self._x, self._keys = self._x[stay], self._keys[stay]
            order = np.lexsort((self._keys[:, 1], self._keys[:, 0]))
        self._ranked = order
        excess = len(self._archive) - archive_size
        if excess > 0:
            rng = random_stream(self.seed, _LATER + told)
            stay = np.sort(rng.permutation(len(self._archive))[excess:])
            self._archive = self._archive[stay]


def _gain(old: Floats, new: Floats) -> Floats:
    """[k] by how much ``new`` keys are better than ``old`` ones, both [k, 2].

    From infeasible to feasible is as much as the largest gain of the others.
    """
    gain: Floats = np.where(old[:, 0] == new[:, 0], old[:, 1] - new[:, 1], 0.0)
    most = gain.max()
    return np.where(old[:, 0] == new[:, 0], gain, most if most > 0 else 1.0)
