"""Non-domination, hypervolume, and subsets with much of it.

Ranks: Kalyanmoy Deb, Amrit Pratap, Sameer Agarwal and T. Meyarivan, "A fast and elitist
multiobjective genetic algorithm: NSGA-II", IEEE TEC 6(2), 2002, section III-A. Hypervolume by
boxes: Renaud Lacour, Kathrin Klamroth and Carlos Fonseca, "A box decomposition algorithm to compute
the hypervolume indicator", Computers and Operations Research 79, 2017. Subsets: greedy, which has
at least 1 - 1/e of the best subset's hypervolume: George Nemhauser, Laurence Wolsey and Marshall
Fisher, "An analysis of approximations for maximizing submodular set functions", Mathematical
Programming 14, 1978.

::

    a dominates b     a <= b in every objective and a < b in one
    rank 0            what nothing dominates; rank k: what only ranks below k dominate
    HV(P; r)          volume of the union of the regions [p, r] over p in P
    boxes             what P does not dominate yet, as disjoint boxes [l, u); a point p takes
                      [max(l, p), u) from each box with p < u and leaves at most m boxes of the rest
    gain of p         the volume that p would take; falls by its overlap with what others take

Less is better. Differs from the papers: the boxes are split one after the other, in the order of
the objectives, not by local upper bounds. Time: ranks O(m n^2) at worst; two objectives O(n log n);
else O(b m) for each point, and O(n b m) for each chosen one of n, with b boxes, which are a few for
each point with three objectives and many more with each further one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "free_boxes",
    "hypervolume",
    "hypervolume_contributions",
    "hypervolume_subset",
    "non_dominated",
    "non_dominated_ranks",
]

# n points, m objectives
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Boxes = tuple[Floats, Floats]  # [b, m] lower and upper corners


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
    points = points[non_dominated(points)]
    if not len(points):
        return 0.0
    if points.shape[1] == 2:
        first, second = points[np.argsort(points[:, 0])].T
        heights = np.append(reference[1], second[:-1]) - second
        return float((reference[0] - first) @ heights)
    # Large regions first: boxes within them are never made.
    order = np.argsort(-np.prod(reference - points, axis=1), kind="stable")
    boxes = points.min(axis=0, keepdims=True), reference[None].astype(np.float64)
    total = 0.0
    for point in points[order]:
        taken, boxes = _take(boxes, point)
        total += float(np.prod(taken[1] - taken[0], axis=1).sum())
    return total


def hypervolume_contributions(points: Floats, reference: Floats) -> Floats:
    """[n] volume that only each of [n, m] points dominates up to ``reference`` [m].

    It is the volume of what the point dominates, less what others dominate of that. Of equal
    points none contributes.
    """
    found = np.zeros(len(points))
    if points.shape[1] == 2 and non_dominated(points).all():
        order = np.lexsort(points.T[::-1])
        first, second = np.minimum(points[order], reference).T
        right, above = np.append(first[1:], reference[0]), np.append(reference[1], second[:-1])
        found[order] = (right - first) * (above - second)
        return found
    for i, point in enumerate(points):
        others = np.maximum(np.delete(points, i, axis=0), point)
        whole = float(np.prod(np.maximum(reference - point, 0.0)))
        found[i] = max(whole - hypervolume(others, reference), 0.0)
    return found


def hypervolume_subset(points: Floats, reference: Floats, k: int) -> npt.NDArray[np.int64]:
    """[k] places of points that together dominate much, chosen greedily.

    Args:
        points: [n, m] losses.
        reference: [m] worse than every point.
        k: how many, from 1 to n.
    """
    gain = np.prod(reference - points, axis=1)
    boxes = points.min(axis=0, keepdims=True), reference[None].astype(np.float64)
    chosen: list[int] = []
    while True:
        best = int(np.argmax(gain))
        chosen.append(best)
        if len(chosen) == k:
            return np.array(chosen, dtype=np.int64)
        gain[best] = -np.inf
        (low, high), boxes = _take(boxes, points[best])
        for start, end in zip(low, high, strict=True):
            gain -= np.prod(np.maximum(end - np.maximum(start, points), 0.0), axis=1)


def free_boxes(points: Floats, reference: Floats) -> Boxes:
    """Disjoint boxes of all that is below ``reference`` and that no point dominates.

    Args:
        points: [n, m] losses; those beyond the reference count for nothing.
        reference: [m].

    Returns:
        [b, m] lower corners, minus infinity where a box has no end, and [b, m] upper ones.
    """
    m = len(reference)
    boxes = np.full((1, m), -np.inf), np.array(reference, dtype=np.float64)[None]
    for point in points[(points < reference).all(axis=1)]:
        _, boxes = _take(boxes, point)
    return boxes


def _take(boxes: Boxes, point: Floats) -> tuple[Boxes, Boxes]:
    """What a point takes from disjoint boxes, as boxes, and what it leaves of them."""
    low, high = boxes
    is_hit = (point < high).all(axis=1)
    old, end = low[is_hit], high[is_hit]
    start = np.maximum(old, point)
    left_low, left_high = [low[~is_hit]], [high[~is_hit]]
    for j in range(len(point)):
        rows = old[:, j] < point[j]
        part_low, part_high = old[rows], end[rows]
        part_low[:, :j] = start[rows, :j]
        part_high[:, j] = point[j]
        left_low.append(part_low)
        left_high.append(part_high)
    return (start, end), (np.concatenate(left_low), np.concatenate(left_high))
