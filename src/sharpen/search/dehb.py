"""DEHB: Hyperband whose configurations evolve, with a population for each fidelity.

Noor Awad, Neeratyoy Mallik and Frank Hutter, "DEHB: Evolutionary Hyperband for Scalable, Robust and
Efficient Hyperparameter Optimization", IJCAI 2021, arXiv 2105.09821, section 4 and algorithm 1.

::

    schedule      Hyperband's: for s = s_max .. 0, rungs i = 0 .. s of floor(n_s eta^-i) trials at
                  the fidelity R eta^(i - s); again and again, by the trial's number alone
    population    one a fidelity, as large as its largest rung; its places take turns as target x_t
    first round   i = 0: evolved as below;  i > 0: the best configuration of the fidelity below that
                  was not measured at this one
    later         v = x_a + F (x_b - x_c)     a, b, c different, of the best n_i of the fidelity
                                              below; of the same fidelity where i = 0
                  u_j = v_j with probability CR and for one j at random, else x_t,j
                  v_j outside [0, 1] becomes a random number
    selection     the trial takes the place of its target if it is no worse

Places that nothing was measured for have random targets. Where fewer than three can be parents,
members of all populations join, then random points. Who is better: :mod:`sharpen.search.rungs`.
Without a fidelity this is DE with its population.

Differs from the paper: no rung waits, since the fidelity of a trial follows from its number; a
trial is bred from what has ended when it is proposed. Where nothing below has ended yet in the
first round, the configuration is random. A member stands where its configuration does, so
integers and choices are rounded. Time O(N log N + d) a proposal with N members; memory O(n).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.de import binomial, default_population
from sharpen.search.observations import Floats
from sharpen.search.rungs import Climber
from sharpen.search.successive_halving import bracket_sizes

__all__ = ["DEHB"]

_PARENTS = 3
_Merit = tuple[int, float, int]
"""Class, loss or violation, minus the number: smaller is better, of equals the latest."""


class DEHB(Climber):
    """Evolutionary Hyperband; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number.
        factor: F, the length of a step in differences.
        crossover: CR, the part of the coordinates that come from the mutant.
        given: see :class:`~sharpen.search.rungs.Climber`.

    Raises:
        ConfigError: an option is out of its range, or the fidelity is no ladder.

    Examples:
        >>> from sharpen.core.problem import Fidelity
        >>> optimizer = DEHB(Space(x=Float(0, 1)), fidelity=Fidelity("epochs", 1, 9))
        >>> [candidate.fidelity for candidate in optimizer.ask(14)]
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 9.0, 3.0]
    """

    name: ClassVar[str] = "dehb"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True, fidelity=True)
    hyperparameters: ClassVar[Space | None] = Space(
        eta=Int(2, 8, log=True, default=3),
        factor=Float(0.1, 1.0, default=0.5),
        crossover=Float(0.0, 1.0, default=0.5),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        factor: float = 0.5,
        crossover: float = 0.5,
        **given: Any,
    ) -> None:
        if not 0 < factor <= 2:
            raise ConfigError(f"factor={factor} must be positive and at most 2 (DEHB).")
        if not 0 <= crossover <= 1:
            raise ConfigError(f"crossover={crossover} must be from 0 to 1 (DEHB).")
        self.factor, self.crossover = factor, crossover
        super().__init__(space, objectives, constraints, **given)
        top = len(self.levels) - 1
        self._schedule: list[tuple[int, int, int]] = []
        self._turn: list[int] = []
        per_round = [0] * (top + 1)
        self.populations = [0] * (top + 1)
        """Number of members of the population of each rung."""
        for s in range(top, -1, -1):
            for i, size in enumerate(bracket_sizes(s, top, self.eta)):
                level = top - s + i
                self.populations[level] = max(self.populations[level], size)
                for _ in range(size):
                    self._schedule.append((level, i, size))
                    self._turn.append(per_round[level])
                    per_round[level] += 1
        self._per_round = per_round
        if top == 0:
            self.populations = [default_population(10 * space.dimensions, self.budget)]

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._untold: set[int] = set()
        self._members: list[dict[int, tuple[_Merit, Floats]]] = [{} for _ in self.levels]
        self._measured: list[set[str]] = [set() for _ in self.levels]

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        for trial in trials:
            if trial.feedback is not None and self.history.get(trial.number, trial) != trial:
                self.restart()  # it has changed: find all places anew
                self._untold = set(self.history)
            super().tell([trial])
            if trial.feedback is not None:
                self._untold.add(trial.number)

    # -- populations ----------------------------------------------------------------------------

    def _place(self, number: int, level: int) -> int:
        """Which member of a rung's population a trial competes with."""
        turn, slot = divmod(number, len(self._schedule))
        if self._schedule[slot][0] != level:  # it was measured otherwise than was planned
            return number % self.populations[level]
        return (turn * self._per_round[level] + self._turn[slot]) % self.populations[level]

    def _settle_places(self) -> None:
        for number in sorted(self._untold):
            trial = self.history[number]
            level = self.rung_of(trial)
            if level is None:
                continue
            self._measured[level].add(self.space.canonical(trial.config))
            standing = self.standing(trial)
            if not self.can_climb(standing):
                continue
            merit = (standing[0], standing[1], -number)
            place, members = self._place(number, level), self._members[level]
            if place not in members or merit < members[place][0]:
                members[place] = merit, self.space.encode([trial.config]).x[0]
        self._untold.clear()

    def _best(self, level: int, count: int | None = None) -> list[tuple[_Merit, Floats]]:
        """The best members of a rung's population, the best first."""
        return sorted(self._members[level].values(), key=lambda member: member[0])[:count]

    # -- proposals ------------------------------------------------------------------------------

    def next_job(self, number: int) -> tuple[dict[str, Any] | None, int]:
        """See :meth:`Climber.next_job`."""
        self._settle_places()
        turn, slot = divmod(number, len(self._schedule))
        level, i, size = self._schedule[slot]
        if turn == 0 and i > 0:
            return self._climber(level), level
        return self._child(number, level, level - min(i, 1), size), level

    def _climber(self, level: int) -> dict[str, Any] | None:
        """The best configuration of the rung below that is not on this one."""
        there = self._measured[level] | {
            self.space.canonical(trial.config)
            for trial in self.pending.values()
            if self.rung_of(trial) == level
        }
        for merit, _ in self._best(level - 1):
            config = self.history[-merit[2]].config
            if self.space.canonical(config) not in there:
                return dict(config)
        return None

    def _child(self, number: int, level: int, below: int, size: int) -> dict[str, Any]:
        """A mutant of the best of a rung, crossed with its target on ``level``."""
        rng = random_stream(self.seed, number)
        count = size if len(self.levels) > 1 else None
        pool = [x for _, x in self._best(below, count)]
        if len(pool) < _PARENTS:
            everyone = [x for members in self._members for _, x in members.values()]
            pool = list(np.unique([*pool, *everyone], axis=0)) if everyone else pool
        while len(pool) < _PARENTS:
            pool.append(rng.random(self.space.dimensions))
        a, b, c = (pool[k] for k in rng.choice(len(pool), size=_PARENTS, replace=False))
        mutant = a + self.factor * (b - c)
        anew = rng.random(self.space.dimensions)
        mutant = np.where((mutant < 0) | (mutant > 1), anew, mutant)
        member = self._members[level].get(self._place(number, level))
        target = rng.random(self.space.dimensions) if member is None else member[1]
        return self.space.settle(binomial(rng, target, mutant, self.crossover), rng)
