"""NSGA-III: ranks of non-domination, and within a rank even niches around reference directions.

Kalyanmoy Deb and Himanshu Jain, "An Evolutionary Many-Objective Optimization Algorithm Using
Reference-Point-Based Nondominated Sorting Approach, Part I", IEEE Transactions on Evolutionary
Computation 18(4), 2014; constraints: part II, ibid.

::

    normalized f   (f - ideal) / (intercepts - ideal); intercepts of the plane through the extreme
                   points, those with the least max_j (f_j - ideal_j) / w_j, w near an axis
    niche          the reference direction with the least distance to its line
    the last rank  again and again the direction with the fewest members takes one of its own: the
                   nearest if it has none yet, else any

Differs from the paper: parents win tournaments by their place among the survivors; where the plane
is degenerate, the largest values of the first rank are the intercepts. N is the number of
directions where no population is given. Failed trials rank last. Time O(m N^2) a generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.generations import Ints
from sharpen.search.multiobjective import MultiObjectiveGA, constrained_ranks, directions_for
from sharpen.search.observations import Floats

__all__ = ["NSGA3"]


class NSGA3(MultiObjectiveGA):
    """NSGA-III; see the module, and :class:`MultiObjectiveGA` for the options."""

    name: ClassVar[str] = "nsga3"

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        population: int | None = None,
        **given: Any,
    ) -> None:
        super().__init__(space, objectives, constraints, population=population, **given)
        self.directions = directions_for(len(self.objectives), self.population)
        if population is None:
            self.population = max(len(self.directions), 8)

    def survive(self, losses: Floats, keys: Floats, rng: np.random.Generator) -> Ints:
        """See :meth:`MultiObjectiveGA.survive`."""
        ranks = constrained_ranks(losses, keys)
        order = np.argsort(ranks, kind="stable")
        if len(order) <= self.population:
            return order
        last = ranks[order[self.population - 1]]
        sure, torn = order[ranks[order] < last], order[ranks[order] == last]
        wanted = self.population - len(sure)
        if wanted == len(torn) or keys[torn[0], 0] != 0:
            return np.concatenate([sure, torn[:wanted]])
        good = np.concatenate([sure, torn])
        scaled = _normalized(losses[good], ranks[good] == 0)
        niche, distance = self._niches(scaled)
        count = np.bincount(niche[: len(sure)], minlength=len(self.directions))
        left = {
            d: list(np.flatnonzero(niche[len(sure) :] == d)) for d in np.unique(niche[len(sure) :])
        }
        chosen: list[int] = []
        while len(chosen) < wanted:
            open_ = np.array(sorted(left))
            fewest = open_[count[open_] == count[open_].min()]
            d = int(fewest[rng.integers(len(fewest))])
            mine = left[d]
            if count[d] == 0:
                take = min(mine, key=lambda i: distance[len(sure) + i])
            else:
                take = mine[int(rng.integers(len(mine)))]
            mine.remove(take)
            if not mine:
                del left[d]
            count[d] += 1
            chosen.append(int(take))
        return np.concatenate([sure, torn[chosen]])

    def _niches(self, scaled: Floats) -> tuple[Ints, Floats]:
        """[n] the direction nearest to each point, and [n] how far its line is."""
        units = self.directions / np.linalg.norm(self.directions, axis=1, keepdims=True)
        along = scaled @ units.T
        squares = (scaled**2).sum(axis=1)[:, None] - along**2
        niche: Ints = squares.argmin(axis=1)
        return niche, np.sqrt(np.maximum(squares[np.arange(len(niche)), niche], 0.0))


def _normalized(losses: Floats, is_first: Any) -> Floats:
    """[n, m] losses with the ideal at 0 and the intercepts at 1."""
    m = losses.shape[1]
    moved = losses - losses.min(axis=0)
    front = moved[is_first] if is_first.any() else moved
    weights = np.where(np.eye(m) == 1, 1.0, 1e-6)
    extremes = front[(front[None] / weights[:, None]).max(axis=2).argmin(axis=1)]
    intercepts = np.zeros(m)
    if np.linalg.matrix_rank(extremes) == m:
        plane = np.linalg.solve(extremes, np.ones(m))
        with np.errstate(divide="ignore"):
            intercepts = 1 / plane
    worst = front.max(axis=0)
    wrong = ~np.isfinite(intercepts) | (intercepts < 1e-6) | (intercepts > moved.max(axis=0) + 1e-9)
    if wrong.any():
        intercepts = worst
    found: Floats = moved / np.where(intercepts > 1e-12, intercepts, 1.0)
    return found
