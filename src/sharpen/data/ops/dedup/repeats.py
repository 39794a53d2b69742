"""Which of very many hashes occurred before, in bounded memory; and cutting texts where they did.

Hashes of 64 bits: two different ones among n are equal with probability below n^2 / 2^65.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.data.corpus import Corpus
from sharpen.data.statistics import Texts

__all__ = ["Hashes", "cut", "hashes_of", "seen_before"]

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_AT_ONCE = 1 << 23
"""Hashes that are sorted together: 200 MB."""


def hashes_of(rows: Corpus, name: str) -> tuple[Integers, Callable[[], Iterator[Hashes]]]:
    """Lists of hashes that were remembered of each row.

    Returns:
        [n + 1] hashes before each row, and a function that goes through all of them, part by part.
    """
    counts = [np.diff(array.offsets.to_numpy()) for array in rows.arrays(name)]
    before = np.concatenate([[0], np.cumsum(np.concatenate([[], *counts]))]).astype(np.int64)

    def each() -> Iterator[Hashes]:
        for array in rows.arrays(name):
            yield array.flatten().to_numpy()

    return before, each


def seen_before(each: Callable[[], Iterator[Hashes]], total: int, at_once: int = _AT_ONCE) -> Flags:
    """[total] which hashes are equal to an earlier one.

    Args:
        each: goes through all hashes in order.
        total: how many there are.
        at_once: how many to hold; with more, all are gone through several times.
    """
    found = np.zeros(total, bool)
    passes = max(-(-total // at_once), 1)
    for k in range(passes):
        values, places = [], []
        start = 0
        for some in each():
            mine = np.nonzero(some % np.uint64(passes) == k)[0] if passes > 1 else slice(None)
            values.append(some[mine])
            places.append(np.arange(start, start + len(some))[mine])
            start += len(some)
        if not values:
            continue
        hashes, where = np.concatenate(values), np.concatenate(places)
        order = np.argsort(hashes, kind="stable")
        placed = hashes[order]
        again = np.zeros(len(order), bool)
        again[1:] = placed[1:] == placed[:-1]
        found[where[order[again]]] = True
    return found


def cut(texts: Texts, begins: Integers, ends: Integers) -> pa.Array:
    """The texts without some ranges of bytes, which may overlap.

    Args:
        texts: a column.
        begins: [ranges] first byte, in the column's data.
        ends: [ranges] the byte after each, in the same text.
    """
    first, last = int(texts.offsets[0]), int(texts.offsets[-1])
    depth = np.zeros(last - first + 1, np.int32)
    np.add.at(depth, begins - first, 1)
    np.subtract.at(depth, ends - first, 1)
    keep = np.cumsum(depth[:-1]) == 0
    before = np.concatenate([[0], np.cumsum(keep)])
    offsets = before[texts.offsets - first].astype(np.int64)
    data = texts.data[first:last][keep]
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data.tobytes())]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)
