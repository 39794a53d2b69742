"""Which operators dropped the rows that one side lacks, and which edited those that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from sharpen.data.diff.side import Hashes, Places, Side, hash_of

__all__ = ["blame_drops", "blame_edits"]

Told = list[dict[str, Any]]
"""``what``, ``side``, ``operator`` and ``rows``."""


def _events(side: Side, kind: str, wanted: Hashes) -> Iterator[tuple[Places, list[str], list[str]]]:
    """Of rows that were dropped or edited: which of the wanted ones, their ids and operators."""
    order = np.argsort(wanted, kind="stable")
    ordered = wanted[order]
    for ids, operators in side.events(kind):
        hashed = np.fromiter(map(hash_of, ids), np.uint64, len(ids))
        near = np.minimum(np.searchsorted(ordered, hashed), max(len(ordered) - 1, 0))
        hit = np.nonzero(ordered[near] == hashed)[0] if len(ordered) else np.zeros(0, np.int64)
        chosen = hit.tolist()
        yield order[near[hit]], [ids[i] for i in chosen], [operators[i] for i in chosen]


def blame_drops(
    a: Side, b: Side, alone: tuple[Places, Places], examples: int
) -> tuple[Told, dict[str, str]]:
    """The operators that dropped rows which only the other side has.

    Args:
        a: one side.
        b: the other.
        alone: places of the rows that only each has, in order.
        examples: rows of which the operator is told.

    Returns:
        How many rows each dropped, and of the first rows which did, by the id.
    """
    found: Told = []
    told: dict[str, str] = {}
    for missing, has, places, name in ((a, b, alone[1], "a"), (b, a, alone[0], "b")):
        first = set(has.ids_at(places[:examples]))
        counts: Counter[str] = Counter()
        for _, ids, operators in _events(missing, "dropped", has.hashes_at(places)):
            counts.update(operators)
            told |= {id: one for id, one in zip(ids, operators, strict=True) if id in first}
        unknown = len(places) - counts.total()
        if unknown > 0:
            counts["not in its trace"] = unknown
        found += [
            {"what": "dropped", "side": name, "operator": one, "rows": count}
            for one, count in counts.most_common()
        ]
    return found, told


def blame_edits(a: Side, b: Side, pairs: Places, examples: int) -> tuple[Told, list[str]]:
    """The operators that edited rows on one side alone, or where there is none, on both.

    Args:
        a: one side.
        b: the other.
        pairs: [n, 2] places of the rows that differ.
        examples: rows of which the operators are told.

    Returns:
        How many rows each edited, and of the first rows which did.
    """
    names: dict[str, int] = {}
    parts: list[Places] = [np.zeros((0, 3), np.int64)]
    for number, side in enumerate((a, b)):
        for rows, _, operators in _events(side, "edited", side.hashes_at(pairs[:, number])):
            codes = [names.setdefault(one, len(names)) for one in operators]
            columns = (rows, np.array(codes, np.int64), np.full(len(rows), number))
            parts.append(np.stack(columns, 1))
    events = np.unique(np.concatenate(parts), axis=0)  # row, operator, side
    with_next = np.zeros(len(events), bool)
    with_next[:-1] = (events[:-1, :2] == events[1:, :2]).all(1)
    on_both = with_next | np.roll(with_next, 1)
    explained = np.zeros(len(pairs), bool)
    explained[events[~on_both, 0]] = True
    events = events[~on_both | ~explained[events[:, 0]]]
    listed = list(names)
    kinds, counts = np.unique(events[:, 1:], axis=0, return_counts=True)
    found = [
        {"what": "edited", "side": "ab"[side], "operator": listed[one], "rows": count}
        for count, (one, side) in sorted(
            zip(counts.tolist(), kinds.tolist(), strict=True), key=lambda row: -row[0]
        )
    ]
    told = []
    for row in range(min(examples, len(pairs))):
        mine = events[events[:, 0] == row, 1:].tolist()
        told.append(", ".join(f"{listed[one]} ({'ab'[side]})" for one, side in mine))
    return found, told
