"""Non-domination, hypervolume, and subsets with much of it.

Ranks: Kalyanmoy Deb, Amrit Pratap, Sameer Agarwal and T. Meyarivan, "A fast and elitist
multiobjective genetic algorithm: NSGA-II", IEEE TEC 6(2), 2002, section III-A. Hypervolume: Lyndon
While, Lucas Bradstreet and Luigi Barone, "A fast way of calculating exact hypervolumes", IEEE TEC
16(1), 2012 (WFG). Subsets: greedy, which has at least 1 - 1/e of the best subset's hypervolume:
George Nemhauser, Laurence Wolsey and Marshall Fisher, Mathematical Programming 14, 1978.

::

    a dominates b     a <= b in every objective and a < b in one
    rank 0            what nothing dominates; rank k: what only ranks below k dominate
    HV(P; r)          volume of the union of the boxes [p, r] over p in P
    HV({p} + P)       = HV(P) + |[p, r]| - HV({max(p, p') : p' in P})

Less is better. Differs from the papers: None. Time: ranks O(m n^2) at worst; hypervolume O(n log n)
for two objectives, exponential in m at worst; subsets O(k n) evaluations of small hypervolumes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["hypervolume", "hypervolume_subset", "non_dominated", "non_dominated_ranks"]

# n points, m objectives
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def non_dominated(points: Floats) -> Bools:
    """[n] which of [n, m] points no other dominates; equal points do not dominate each other."""
    keep = np.ones(len(points), dtype=bool)
    order = np.lexsort(points.T[::-1])
    if points.shape[1] == 2:
        first, second = points[order].T
        start = np.searchsorted(first, first)  # of those that are equal in the first objective
        before = np.concatenate([[np.inf], np.minimum.accumulate(second)])[start]
        keep[order] = (second < before) & (second == second[start])
        return keep
    for i in order:  # what dominates a point comes before it in this order
        if keep[i]:
            worse = (points >= points[i]).all(axis=1) & (points > points[i]).any(axis=1)
            keep &= ~worse
    return keep


def non_dominated_ranks(points: Floats, enough: int | None = None) -> npt.NDArray[np.int64]:
    """[n] ranks of [n, m] points.

    Args:
        points: finite losses.
        enough: once so many points have a rank, all others get the next.
    """
    ranks = np.zeros(len(points), dtype=np.int64)
    left, rank = np.arange(len(points)), 0
    goal = len(points) if enough is None else min(enough, len(points))
    while len(points) - len(left) < goal:
        front = non_dominated(points[left])
        ranks[left[front]] = rank
        left = left[~front]
        rank += 1
    ranks[left] = rank
    return ranks


def hypervolume(points: Floats, reference: Floats) -> float:
    """Volume that [n, m] points dominate up to ``reference`` [m]; points beyond it add nothing."""
    points = points[(points < reference).all(axis=1)]
    if not len(points):
        return 0.0
    points = np.unique(points[non_dominated(points)], axis=0)  # ascending in the first objective
    if points.shape[1] == 1:
        return float(reference[0] - points[0, 0])
    if points.shape[1] == 2:
        ends = np.append(reference[1], points[:-1, 1])
        return float(((reference[0] - points[:, 0]) * (ends - points[:, 1])).sum())
    total = 0.0
    # From the worst first objective on, those after a point are few and all as good in it.
    for i in range(len(points)):
        box = float(np.prod(reference - points[i]))
        total += box - hypervolume(np.maximum(points[i], points[i + 1 :]), reference)
    return total


def hypervolume_subset(points: Floats, reference: Floats, k: int) -> npt.NDArray[np.int64]:
    """[k] places of points that together dominate much, chosen greedily.

    Args:
        points: [n, m] losses.
        reference: [m] worse than every point.
        k: how many; at most n.
    """
    gain = np.prod(reference - points, axis=1)
    chosen: list[int] = []
    stale = np.zeros(len(points), dtype=bool)
    while len(chosen) < k:
        # Gains only fall as more is chosen, so an old one that is largest when renewed wins.
        best = int(np.argmax(gain))
        if stale[best]:
            rest = np.maximum(points[best], points[chosen])
            gain[best] = np.prod(reference - points[best]) - hypervolume(rest, reference)
            stale[best] = False
            continue
        chosen.append(best)
        gain[best] = -np.inf
        stale[:] = True
    return np.array(chosen, dtype=np.int64)
