"""From buckets of rows to groups of copies.

Rows with equal keys meet in a bucket. All pairs of a small bucket are candidates; in a large one,
where nearly all are copies, each row is compared with the first and with the one before it.
Candidates that are alike join.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sharpen.native.build import function, load

__all__ = ["Cluster", "groups_of", "meeting"]

Cluster = Literal["components", "star"]
Integers = npt.NDArray[np.int64]
Alike = Callable[[Integers, Integers], npt.NDArray[np.bool_]]

_SMALL = 16  # rows of a bucket of which all pairs are compared


def meeting(keys: npt.NDArray[np.uint64], members: Integers) -> tuple[Integers, Integers]:
    """Pairs of rows with equal keys, the lesser first.

    Args:
        keys: [k] of the members.
        members: [k] rows, in order.
    """
    order = np.argsort(keys, kind="stable")
    placed, rows = keys[order], members[order]
    begins = np.ones(len(order), bool)
    begins[1:] = placed[1:] != placed[:-1]
    starts = np.nonzero(begins)[0]
    sizes = np.diff([*starts, len(order)])
    ones, others = [], []
    for size in np.unique(sizes[(sizes > 1) & (sizes <= _SMALL)]).tolist():
        table = rows[starts[sizes == size][:, None] + np.arange(size)]
        a, b = np.triu_indices(size, 1)
        ones.append(table[:, a].reshape(-1))
        others.append(table[:, b].reshape(-1))
    for start, size in zip(
        starts[sizes > _SMALL].tolist(), sizes[sizes > _SMALL].tolist(), strict=True
    ):
        bucket = rows[start : start + size]
        ones += [np.full(size - 1, bucket[0]), bucket[1:-1]]
        others += [bucket[1:], bucket[2:]]
    if not ones:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(ones), np.concatenate(others)


def groups_of(
    n: int,
    meetings: Iterable[tuple[Integers, Integers]],
    alike: Alike,
    order: Integers,
    cluster: Cluster = "components",
) -> Integers:
    """[n] the row that stays in place of each.

    Args:
        n: rows.
        meetings: candidates, of one kind of bucket after the other.
        alike: which pairs are copies.
        order: [n] rows, the one that would rather stay first.
        cluster: with ``components`` copies of copies are copies: of each connected group the first
            stays. With ``star`` a row goes only if it is a copy of one that stays.
    """
    if cluster == "star":
        return _stars(n, meetings, alike, order)
    parents = np.arange(n)
    for one, other in meetings:
        fresh = parents[one] != parents[other]  # of the same group already: nothing to learn
        one, other = one[fresh], other[fresh]
        same = alike(one, other)
        _join(parents, np.ascontiguousarray(one[same]), np.ascontiguousarray(other[same]))
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    first = np.full(n, n, np.int64)
    np.minimum.at(first, parents, place)
    return order[first[parents]] if n else parents


def _stars(
    n: int, meetings: Iterable[tuple[Integers, Integers]], alike: Alike, order: Integers
) -> Integers:
    edges: set[tuple[int, int]] = set()
    for one, other in meetings:
        pairs = set(zip(one.tolist(), other.tolist(), strict=True)) - edges
        if pairs:
            a, b = np.array(sorted(pairs), np.int64).T
            same = alike(a, b)
            edges.update(zip(a[same].tolist(), b[same].tolist(), strict=True))
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    near: dict[int, list[int]] = {}
    for a, b in edges:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    of = np.arange(n)
    for row in order.tolist():
        kept = [k for k in near.get(row, ()) if place[k] < place[row] and of[k] == k]
        if kept:
            of[row] = min(kept, key=lambda k: int(place[k]))
    return of


def _join(parents: Integers, one: Integers, other: Integers) -> None:
    """Join the groups of each pair; afterwards every row points to the least of its group."""
    library = load("shingles")
    if library is not None:
        _native(library, "join_pairs", 3)(
            len(one), one.ctypes.data, other.ctypes.data, parents.ctypes.data
        )
        _native(library, "flatten", 1)(len(parents), parents.ctypes.data)
        return
    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        a, b = _root(parents, a), _root(parents, b)
        parents[max(a, b)] = min(a, b)
    for i in range(len(parents)):
        parents[i] = _root(parents, i)


def _root(parents: Integers, i: int) -> int:
    while parents[i] != i:
        i = int(parents[i])
    return i


@functools.cache
def _native(library: ctypes.CDLL, name: str, arrays: int) -> Any:
    return function(library, name, ctypes.c_int64, *[ctypes.c_void_p] * arrays)
