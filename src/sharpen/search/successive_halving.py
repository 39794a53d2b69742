"""Successive halving: many configurations at a low fidelity, the best of them at ever higher ones.

Kevin Jamieson and Ameet Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", AISTATS 2016, arXiv 1502.07943; brackets as in Lisha Li, Kevin Jamieson, Giulia
DeSalvo, Afshin Rostamizadeh and Ameet Talwalkar, "Hyperband: A Novel Bandit-Based Approach to
Hyperparameter Optimization", JMLR 18(185), 2018, arXiv 1603.06560, algorithm 1.

::

    bracket s:  n = ceil((s_max + 1) / (s + 1) eta^s) new configurations at fidelity R eta^-s;
                when all n_i = floor(n eta^-i) of its i-th rung have finished, the best n_(i+1) of
                them are measured at R eta^(i + 1 - s), i = 0 .. s - 1
    here        bracket s_max, again and again

A rung is a barrier. What workers do meanwhile: the first bracket that has something to do gives it,
so the next one begins while an earlier one waits. The rungs' fidelities, and who is better, are in
:mod:`sharpen.search.rungs`; where fewer than n_(i+1) ended well, the rung above is smaller.

Which bracket a trial belongs to follows from the numbers and configurations of all trials: in the
order of numbers, a trial at the next fidelity of a configuration that stands in a bracket has
climbed there; any other takes a free place in the first bracket that begins at its fidelity.

Differs from the papers: None beside the above. Time O(1) a proposal, O(n log n) a rung of n and
O(n) for all n trials again when one turns up late with an earlier number; memory O(n).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Int
from sharpen.core.space import Space
from sharpen.search.rungs import Climber

__all__ = ["SuccessiveHalving", "bracket_sizes"]


def bracket_sizes(s: int, s_max: int, eta: int) -> list[int]:
    """How many configurations each rung of bracket ``s`` has, from the lowest; see the module.

    Examples:
        >>> bracket_sizes(3, 4, 3)
        [34, 11, 3, 1]
    """
    n = -(-(s_max + 1) * eta**s // (s + 1))
    return [n // eta**i for i in range(s + 1)]


@dataclass(slots=True)
class _Rung:
    size: int
    members: dict[int, str] = field(default_factory=dict)
    """Configurations by the numbers of trials."""
    running: set[int] = field(default_factory=set)
    best: list[int] | None = None
    """Numbers of those that climb, once all have finished."""


class SuccessiveHalving(Climber):
    """Brackets of successive halving, one after the other; see the module for the method.

    Examples:
        >>> from sharpen.core.problem import Fidelity
        >>> from sharpen.core.parameters import Float
        >>> optimizer = SuccessiveHalving(Space(x=Float(0, 1)), fidelity=Fidelity("epochs", 1, 9))
        >>> asked = []
        >>> for _ in range(13):
        ...     [candidate] = optimizer.ask()
        ...     asked.append(candidate.fidelity)
        ...     optimizer.tell([candidate.result(candidate.config["x"])])
        >>> asked == [1.0] * 9 + [3.0] * 3 + [9.0]
        True
    """

    name: ClassVar[str] = "successive-halving"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True, fidelity=True)
    hyperparameters: ClassVar[Space | None] = Space(eta=Int(2, 8, log=True, default=3))

    def depths(self) -> list[int]:
        """The s of the brackets of one round; rounds repeat."""
        return [len(self.levels) - 1]

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._forget_places()

    def _forget_places(self) -> None:
        """Find places anew, because what is known of earlier trials has changed."""
        self._brackets: list[list[_Rung]] = []
        self._done = 0
        self._place: dict[int, _Rung | None] = {}
        self._last: float = -math.inf
        self._told = set(self.history)
        self._expected: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        self._open: dict[int, int] = {}

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        given = list(trials)
        again = {t.number for t in given if t.number in self.history}
        super().tell(given)
        self._told |= {t.number for t in given}
        if again:
            self._forget_places()

    def abandon(self, numbers: Iterable[int]) -> None:
        """See :meth:`Optimizer.abandon`."""
        super().abandon(numbers)
        self._forget_places()

    # -- places ---------------------------------------------------------------------------------

    def _bracket(self, index: int) -> list[_Rung]:
        """The rungs of a bracket, which begins now if it is new."""
        depths, top = self.depths(), len(self.levels) - 1
        while len(self._brackets) <= index:
            s = depths[len(self._brackets) % len(depths)]
            self._brackets.append([_Rung(size) for size in bracket_sizes(s, top, self.eta)])
        return self._brackets[index]

    def _settle_places(self) -> None:
        """Find the places of all trials that have none."""
        fresh = (self._told | self.pending.keys()) - self._place.keys()
        if fresh and min(fresh) < self._last:
            self._forget_places()
            fresh = self.history.keys() | self.pending.keys()
        for number in sorted(fresh):
            trial = self.history.get(number) or self.pending[number]
            self._place[number] = self._find_place(trial)
            self._last = number
        for number in self._told:
            rung = self._place[number]
            if rung is not None and number in self.history:
                rung.running.discard(number)
        self._told.clear()

    def _find_place(self, trial: Trial) -> _Rung | None:
        level = self.rung_of(trial)
        if level is None:
            return None
        key = self.space.canonical(trial.config)
        waiting = self._expected[key, level]
        if waiting:
            index, i = waiting.pop(0)
        else:
            found = self._first_open(level)
            if found is None:
                return None
            index, i = found, 0
        rungs = self._brackets[index]
        rungs[i].members[trial.number] = key
        rungs[i].running.add(trial.number)
        if i + 1 < len(rungs):
            self._expected[key, level + 1].append((index, i + 1))
        return rungs[i]

    def _first_open(self, level: int) -> int | None:
        """The first bracket that begins at a level and has room."""
        depths = self.depths()
        s = len(self.levels) - 1 - level
        if s not in depths:
            return None
        index = self._open.setdefault(level, depths.index(s))
        while len((rung := self._bracket(index)[0]).members) >= rung.size:
            index += len(depths)
        self._open[level] = index
        return index

    # -- what to do -----------------------------------------------------------------------------

    def next_job(self, number: int) -> tuple[dict[str, Any] | None, int]:
        """See :meth:`Climber.next_job`."""
        self._settle_places()
        index = self._done
        while True:
            rungs = self._bracket(index)
            top = len(self.levels) - 1
            for i, rung in enumerate(rungs):
                level = top - (len(rungs) - 1 - i)
                if i == 0 and len(rung.members) < rung.size:
                    return None, level
                if i > 0 and len(rung.members) < rung.size:
                    climbed = Counter(rung.members.values())
                    for number in rungs[i - 1].best or ():
                        key = rungs[i - 1].members[number]
                        if not climbed[key]:
                            return dict(self.history[number].config), level
                        climbed[key] -= 1
                if rung.running or len(rung.members) < rung.size:
                    break
                if i + 1 < len(rungs) and rung.best is None:
                    ranked = sorted(self.standing(self.history[n]) for n in rung.members)
                    able = [standing[2] for standing in ranked if self.can_climb(standing)]
                    rung.best = able[: rungs[i + 1].size]
                    rungs[i + 1].size = len(rung.best)
            else:
                self._done += index == self._done
            index += 1
