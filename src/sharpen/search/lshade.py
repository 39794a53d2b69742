"""L-SHADE: JADE with a memory of what worked, and a population that shrinks with the budget.

Ryoji Tanabe and Alex S. Fukunaga, "Improving the Search Performance of SHADE Using Linear
Population Size Reduction", CEC 2014.

::

    F_i  ~ Cauchy(M_F[r], 0.1), CR_i ~ N(M_CR[r], 0.1)      r one of the H entries, at random
    after a generation with improvements, in turn for entry k:
    M_F[k]  = sum(w S_F^2)  / sum(w S_F)                    w: by how much each trial improved
    M_CR[k] = sum(w S_CR^2) / sum(w S_CR), or for ever 0 once all S_CR are 0
    N       = round((4 - N_0) n / budget + N_0)             n trials so far; the worst go

Mutation, archive and crossover as in :mod:`sharpen.search.jade`, with an archive of 2.6 N.

Differs from the paper: N_0 is at most a fiftieth of the budget; without a budget N stays N_0, which
makes it SHADE. Time O(N + d) a proposal; memory O(N d).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.jade import JADE
from sharpen.search.observations import Floats

__all__ = ["LSHADE"]

_ARCHIVE = 2.6
_FEWEST = 4
_TERMINAL = -1.0


class LSHADE(JADE):
    """Success-history adaptive differential evolution; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see :mod:`sharpen.search.jade`.
        population: N_0; None is 18 d, at most a fiftieth of the budget, at least 8.
        best: p, the part of the population that counts as the best.
        memory: H, entries of the success history.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "lshade"
    hyperparameters: ClassVar[Space | None] = Space(
        population=Int(8, 400, log=True), best=Float(0.02, 0.5), memory=Int(2, 20)
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        population: int | None = None,
        best: float = 0.11,
        memory: int = 6,
        **given: Any,
    ) -> None:
        if memory < 1:
            raise ConfigError(f"memory={memory} must be at least 1 (LSHADE).")
        self.memory = memory
        super().__init__(space, objectives, constraints, population=population, best=best, **given)

    def _usual_population(self, dimensions: int) -> int:
        return 18 * dimensions

    def _begin_learning(self) -> None:
        self._memory_factor = np.full(self.memory, 0.5)
        self._memory_crossover = np.full(self.memory, 0.5)
        self._entry = 0

    def _centres(self, rng: np.random.Generator) -> tuple[float, float]:
        r = int(rng.integers(self.memory))
        return float(self._memory_factor[r]), float(self._memory_crossover[r])

    def _learn(self, factor: Floats, crossover: Floats, gain: Floats) -> None:
        k, weight = self._entry, gain / gain.sum()
        self._memory_factor[k] = (weight * factor**2).sum() / (weight * factor).sum()
        if self._memory_crossover[k] == _TERMINAL or crossover.max() == 0:
            self._memory_crossover[k] = _TERMINAL
        else:
            mean = (weight * crossover**2).sum() / (weight * crossover).sum()
            self._memory_crossover[k] = mean
        self._entry = (k + 1) % self.memory

    def _sizes(self, told: int) -> tuple[int, int]:
        size = self.population
        if self.budget is not None:
            size = round((_FEWEST - size) * min(told / self.budget, 1.0) + size)
        return size, round(_ARCHIVE * size)
