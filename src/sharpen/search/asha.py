"""ASHA: successive halving without waiting.

Liam Li, Kevin Jamieson, Afshin Rostamizadeh, Ekaterina Gonina, Jonathan Ben-tzur, Moritz Hardt,
Benjamin Recht and Ameet Talwalkar, "A System for Massively Parallel Hyperparameter Tuning", MLSys
2020, arXiv 1810.05934, algorithm 2.

::

    for rung k = s_max - 1 .. 0:
        the best floor(|finished on k| / eta) configurations of rung k that are not on rung k + 1:
            if there are any, measure the best of them at rung k + 1
    else measure a new random configuration at rung 0

A worker never waits for another. The rungs, and who is better, are in :mod:`sharpen.search.rungs`.
A running trial is on its rung but not finished; a failed one is finished and does not climb.

Differs from the paper: None (its s is 0: a higher lowest fidelity has the same effect).
Time O(n / eta) a proposal at worst for n trials; memory O(n).
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

from sharpen.core.feedback import Trial
from sharpen.core.optimizer import Capabilities
from sharpen.core.parameters import Int
from sharpen.core.space import Space
from sharpen.search.rungs import Climber, Standing

__all__ = ["ASHA"]


class ASHA(Climber):
    """Asynchronous successive halving; see the module for the method.

    Examples:
        >>> from sharpen.core.problem import Fidelity
        >>> from sharpen.core.parameters import Float
        >>> optimizer = ASHA(Space(x=Float(0, 1)), fidelity=Fidelity("epochs", 1, 9))
        >>> for candidate in optimizer.ask(3):
        ...     optimizer.tell([candidate.result(candidate.config["x"])])
        >>> optimizer.ask()[0].fidelity
        3.0
    """

    name: ClassVar[str] = "asha"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True, fidelity=True)
    hyperparameters: ClassVar[Space | None] = Space(eta=Int(2, 8, log=True, default=3))

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        self._counted: dict[int, tuple[int, Standing, str]] = {}
        self._finished: dict[int, list[tuple[Standing, str]]] = {}
        self._arrived: dict[int, Counter[str]] = {}

    def tell(self, trials: Iterable[Trial]) -> None:
        """See :meth:`Optimizer.tell`."""
        given = list(trials)
        super().tell(given)
        for trial in given:
            if trial.feedback is not None:
                self._count(trial)

    def _count(self, trial: Trial) -> None:
        """Put a finished trial on its rung; one with a known number takes the other's place."""
        if trial.number in self._counted:
            rung, standing, key = self._counted.pop(trial.number)
            self._finished[rung].remove((standing, key))
            self._arrived[rung][key] -= 1
        found = self.rung_of(trial)
        if found is not None:
            standing, key = self.standing(trial), self.space.canonical(trial.config)
            self._counted[trial.number] = (found, standing, key)
            bisect.insort(self._finished.setdefault(found, []), (standing, key))
            self._arrived.setdefault(found, Counter())[key] += 1

    def next_job(self, number: int) -> tuple[dict[str, Any] | None, int]:
        """See :meth:`Climber.next_job`."""
        running = {
            (self.rung_of(trial), self.space.canonical(trial.config))
            for trial in self.pending.values()
        }
        for rung in range(len(self.levels) - 2, -1, -1):
            finished = self._finished.get(rung, [])
            above = self._arrived.get(rung + 1, Counter())
            for standing, key in finished[: len(finished) // self.eta]:
                is_above = above[key] > 0 or (rung + 1, key) in running
                if not is_above and self.can_climb(standing):
                    return dict(self.history[standing[2]].config), rung + 1
        return None, 0
