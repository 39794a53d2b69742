"""NSGA-II: ranks of non-domination, and within a rank those that stand apart.

Kalyanmoy Deb, Amrit Pratap, Sameer Agarwal and T. Meyarivan, "A fast and elitist multiobjective
genetic algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002.

::

    crowding(i)   sum over objectives of (next larger - next smaller) / (largest - least),
                  infinite at both ends, within a rank
    survivors     by rank, then the largest crowding first

Differs from the paper: variation by the kind of parameter; a trial that begins while the generation
before is not complete is bred from that generation's parents. Failed trials rank last. Time
O(m N^2) a generation.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sharpen.search.generations import Ints
from sharpen.search.multiobjective import MultiObjectiveGA, constrained_ranks
from sharpen.search.observations import Floats

__all__ = ["NSGA2", "crowding_distance"]


def crowding_distance(losses: Floats) -> Floats:
    """[n] crowding of [n, m] losses of one rank."""
    n, m = losses.shape
    distance = np.zeros(n)
    for j in range(m):
        order = np.argsort(losses[:, j], kind="stable")
        column = losses[order, j]
        spread = column[-1] - column[0]
        distance[order[[0, -1]]] = np.inf
        if spread > 0:
            distance[order[1:-1]] += (column[2:] - column[:-2]) / spread
    return distance


class NSGA2(MultiObjectiveGA):
    """NSGA-II; see the module, and :class:`MultiObjectiveGA` for the options.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.problem import Objective
        >>> from sharpen.core.space import Space
        >>> optimizer = NSGA2(Space(x=Float(0, 1)), (Objective("a"), Objective("b")), seed=1)
        >>> len(optimizer.ask(4))
        4
    """

    name: ClassVar[str] = "nsga2"

    def survive(self, losses: Floats, keys: Floats, rng: np.random.Generator) -> Ints:
        """See :meth:`MultiObjectiveGA.survive`."""
        ranks = constrained_ranks(losses, keys)
        crowding = np.zeros(len(losses))
        for rank in np.unique(ranks):
            mine = np.flatnonzero((ranks == rank) & (keys[:, 0] == 0))
            if len(mine):
                crowding[mine] = crowding_distance(losses[mine])
        return np.lexsort((-crowding, ranks))[: self.population]
