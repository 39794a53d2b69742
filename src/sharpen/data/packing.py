"""Packing documents into rows of fixed length: best-fit decreasing (Johnson, 1974).

The longest document goes first, each into the fullest row that still holds it. With n documents the
cost is O(n log n). Documents are never cut, and attention is kept inside each by its number.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from sharpen.core.errors import DataError

__all__ = ["pack"]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of the documents of each row.

    Args:
        lengths: tokens of each document, 1 to ``capacity``.
        capacity: tokens of a row.

    Returns:
        Rows in order of their first document; every index appears exactly once.

    Raises:
        DataError: a document is empty or longer than a row.
    """
    for i, length in enumerate(lengths):
        if not 1 <= length <= capacity:
            raise DataError(f"document {i} has {length} tokens; a row holds 1 to {capacity}.")
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for i in order:
        at = bisect.bisect_left(room, (lengths[i], -1))
        if at == len(room):
            rows.append([i])
            free, row = capacity, len(rows) - 1
        else:
            free, row = room.pop(at)
            rows[row].append(i)
        bisect.insort(room, (free - lengths[i], row))
    return [sorted(row) for row in sorted(rows, key=min)]
