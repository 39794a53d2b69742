"""SMS-EMOA: of a front, what adds the least hypervolume goes.

Nicola Beume, Boris Naujoks and Michael Emmerich, "SMS-EMOA: Multiobjective selection based on
dominated hypervolume", European Journal of Operational Research 181(3), 2007, algorithms 1 and 3.

::

    child          of two members at random; a generation is one trial
    several ranks  of non-domination: of the last, the member that most others dominate goes
    one rank       the member with the least S(P) - S(P without it) goes, S the hypervolume

The reference point of S is the front's worst values and once more its extent; of two objectives the
two ends never go. What is infeasible goes before what is feasible, by its violation.

Differs from the paper: the extent instead of 1, so that units do not matter; variation by the kind
of parameter; a trial that begins while others run is bred from the members that there are, and
trials enter by their numbers. Time for a trial, with N members and m objectives: O(m N^2), and for
one rank N hypervolumes of what the others dominate of a member; two objectives O(N log N).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sharpen.core.space import random_stream
from sharpen.search.generations import Ints
from sharpen.search.multiobjective import MultiObjectiveGA, constrained_ranks
from sharpen.search.observations import Floats
from sharpen.search.pareto import hypervolume_contributions

__all__ = ["SMSEMOA", "least_contributor"]


def least_contributor(losses: Floats) -> int:
    """Which of [n, m] losses of one rank, n at least 2, adds the least hypervolume."""
    low, high = losses.min(axis=0), losses.max(axis=0)
    extent = np.where(high > low, high - low, 1.0)
    scaled = (losses - low) / extent
    worth = hypervolume_contributions(scaled, np.full(losses.shape[1], 2.0))
    if losses.shape[1] == 2 and len(losses) > 2:
        worth[scaled.argmin(axis=0)] = np.inf
    return int(np.argmin(worth))


class SMSEMOA(MultiObjectiveGA):
    """SMS-EMOA; see the module, and :class:`MultiObjectiveGA` for the options.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.problem import Objective
        >>> from sharpen.core.space import Space
        >>> optimizer = SMSEMOA(Space(x=Float(0, 1)), (Objective("a"), Objective("b")), seed=1)
        >>> len(optimizer.ask(4))
        4
    """

    name: ClassVar[str] = "sms-emoa"

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`: the first population, then one by one."""
        count = self.population if self._generation == 0 else 1
        numbers = range(first, first + count)
        return np.array([self.stray(n, random_stream(self.seed, n)) for n in numbers])

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`; both parents are any members."""
        if self._generation == 0:
            return self.first_point(number, rng)
        a, b = rng.integers(len(self._x), size=2)
        return self.child(rng, self._x[a], self._x[b])

    def survive(self, losses: Floats, keys: Floats, rng: np.random.Generator) -> Ints:
        """See :meth:`MultiObjectiveGA.survive`."""
        kept = np.arange(len(losses))
        ranks = constrained_ranks(losses, keys)
        while len(kept) > self.population:
            last = np.flatnonzero(ranks == ranks.max())
            values, feasible = losses[kept], keys[kept, 0] == 0
            if len(last) == 1 or not feasible[last[0]]:
                goes = int(last[0])
            elif ranks.max() > 0:
                others = values[feasible]
                beaten = [
                    ((others <= values[i]).all(axis=1) & (others < values[i]).any(axis=1)).sum()
                    for i in last
                ]
                goes = int(last[np.argmax(beaten)])
            else:
                goes = int(last[least_contributor(values[last])])
            kept, ranks = (
                np.delete(kept, goes),
                np.delete(ranks, goes),
            )  # of the last: no rank moves
        return kept[np.argsort(ranks, kind="stable")]
