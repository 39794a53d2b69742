"""Differential evolution: steps along the differences of a population's members.

Rainer Storn and Kenneth Price, "Differential Evolution: A Simple and Efficient Heuristic for Global
Optimization over Continuous Spaces", Journal of Global Optimization 11, 1997 (DE/rand/1/bin).

::

    place of trial n    i = n mod N;  x_i is the best trial of that place so far
    n < N               u ~ U[0, 1]^d; the first is the space's default
    mutant              v = x_r1 + F (x_r2 - x_r3)          r1, r2, r3, i different, at random
    trial               u_j = v_j with probability CR and for one j at random, else x_ij
    bound               v_j outside [0, 1] becomes the middle of the bound and x_ij

Nothing waits for a generation: a trial starts from what has ended when it is proposed, so any
number of trials may be under way. Infeasible trials rank after feasible ones by their violation
(Deb's rules), failed ones last. Trials from elsewhere take the place of their number, too.

Differs from the paper: a trial takes its place at once, not at the end of a generation; a mutant
beyond a bound is drawn back to it. Time O(N + d) a proposal; memory O(N) beside the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import merit_keys
from sharpen.search.observations import ArrayOptimizer, Floats

__all__ = ["DE", "binomial", "drawn_back"]

_FEWEST = 4  # members that a mutation needs


def drawn_back(mutant: Floats, parent: Floats) -> Floats:
    """[d] ``mutant`` with coordinates outside [0, 1] halfway between the bound and ``parent``."""
    inside = np.where(mutant < 0, parent / 2, mutant)
    found: Floats = np.where(mutant > 1, (1 + parent) / 2, inside)
    return found


def binomial(rng: np.random.Generator, parent: Floats, mutant: Floats, rate: float) -> Floats:
    """[d] coordinates of ``mutant`` with probability ``rate``, one at least, else of ``parent``."""
    take = rng.random(len(parent)) < rate
    take[rng.integers(len(parent))] = True
    found: Floats = np.where(take, mutant, parent)
    return found


class DE(ArrayOptimizer):
    """DE/rand/1/bin, asynchronous; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see the module.
        population: number N of places; None is 10 d, at most a fiftieth of the
            budget, at least 8.
        factor: F, the length of a step in differences.
        crossover: CR, the part of the coordinates that come from the mutant.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.

    Examples:
        >>> optimizer = DE(Space(x=Float(-1, 1)), seed=1)
        >>> for candidate in optimizer.ask(10):
        ...     optimizer.tell([candidate.result(candidate.config["x"] ** 2)])
    """

    name: ClassVar[str] = "de"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)
    hyperparameters: ClassVar[Space] = Space(
        population=Int(4, 200, log=True), factor=Float(0.1, 1.0), crossover=Float(0.0, 1.0)
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        population: int | None = None,
        factor: float = 0.5,
        crossover: float = 0.9,
        **given: Any,
    ) -> None:
        if population is not None and population < _FEWEST:
            raise ConfigError(f"population={population} must be at least {_FEWEST} (DE).")
        if not 0 < factor <= 2:
            raise ConfigError(f"factor={factor} must be positive and at most 2 (DE).")
        if not 0 <= crossover <= 1:
            raise ConfigError(f"crossover={crossover} must be from 0 to 1 (DE).")
        self.factor, self.crossover = factor, crossover
        budget = given.get("budget")
        self.population = population or default_population(10 * space.dimensions, budget)
        super().__init__(space, objectives, constraints, **given)

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._untold: list[int] = []
        self._places: dict[int, tuple[tuple[float, float, int], Floats]] = {}

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        given = list(trials)
        for trial in given:
            if trial.feedback is None:
                continue
            if self.history.get(trial.number, trial) != trial:  # it has changed: sort all anew
                self._places, self._untold = {}, list(self.history)
            self._untold.append(trial.number)
        super().tell(given)

    def _settle_places(self) -> None:
        if not self._untold:
            return
        numbers = np.unique(self._untold)
        rows = np.searchsorted(self.seen.numbers, numbers)
        for number, row, key in zip(numbers, rows, merit_keys(self, rows), strict=True):
            place = int(number) % self.population
            # Of equal trials the latest stays, so that it drifts over a plateau.
            merit = (float(key[0]), float(key[1]), -int(number))
            if place not in self._places or merit < self._places[place][0]:
                self._places[place] = (merit, self.seen.x[row].copy())
        self._untold = []

    def propose(self, number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose`."""
        self._settle_places()
        rng = random_stream(self.seed, number)
        place = number % self.population
        known = sorted(self._places)
        if number == 0:
            return self.space.settle(self.space.encode([self.space.default()]).x[0], rng)
        if number < self.population or place not in self._places or len(known) < _FEWEST:
            return self.space.draw(rng)
        parent = self._places[place][1]
        known.remove(place)
        chosen: npt.NDArray[np.int64] = rng.choice(known, size=3, replace=False)
        a, b, c = (self._places[int(k)][1] for k in chosen)
        mutant = drawn_back(a + self.factor * (b - c), parent)
        return self.space.settle(binomial(rng, parent, mutant, self.crossover), rng)


def default_population(usual: int, budget: int | None) -> int:
    """``usual``, at most a fiftieth of the budget, and at least 8."""
    return max(usual if budget is None else min(usual, budget // 50), 8)
