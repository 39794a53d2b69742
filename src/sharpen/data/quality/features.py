"""Texts as sparse vectors: their n-grams of words, hashed into 2^bits buckets.

A bucket's value is ``1 + log(count)`` of the n-grams that fall into it, and each text's vector has
length 1. Words are refined: in lower case, without special characters at either end
(:mod:`sharpen.data.statistics.words`); an n-gram's hash is that of its words' hashes h, mixed::

    H_1 = h_1,   H_{k+1} = H_k * 0x9e3779b97f4a7c15 + h_{k+1}   mod 2^64
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.data.statistics import Words
from sharpen.native.build import function, load

__all__ = ["Sparse", "hashed_words", "joined"]

Floats = npt.NDArray[np.float64]

_MASK = (1 << 64) - 1
_RADIX = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Sparse:
    """n rows of a matrix that is nearly empty."""

    starts: npt.NDArray[np.int64]
    """[n + 1] where each row begins."""

    buckets: npt.NDArray[np.uint32]
    """Columns, rising within a row."""

    values: npt.NDArray[np.float32]
    """What stands there."""

    dimensions: int
    """Columns there are."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    def times(self, weights: Floats) -> Floats:
        """[n] the product of each row with weights [dimensions]."""
        out = np.zeros(len(self))
        library = load("features")
        if library is not None:
            given = (self.starts, self.buckets, self.values, np.ascontiguousarray(weights), out)
            call = _native(library, "sparse_times", 5)
            call(len(self), *(array.ctypes.data for array in given))
            return out
        sums = np.concatenate([[0.0], np.cumsum(self.values * weights[self.buckets])])
        return np.diff(sums[self.starts])

    def sum(self, factors: Floats) -> Floats:
        """[dimensions] the sum of the rows, each times a factor of [n]."""
        out = np.zeros(self.dimensions)
        library = load("features")
        if library is not None:
            given = (self.starts, self.buckets, self.values, np.ascontiguousarray(factors), out)
            call = _native(library, "sparse_sum", 5)
            call(len(self), *(array.ctypes.data for array in given))
            return out
        each = np.repeat(factors, np.diff(self.starts))
        out[:] = np.bincount(self.buckets, self.values * each, self.dimensions)
        return out

    def take(self, rows: npt.NDArray[np.bool_]) -> Sparse:
        """Those of the rows that are chosen."""
        sizes = np.diff(self.starts)
        held = np.repeat(rows, sizes)
        starts = np.concatenate([[0], np.cumsum(sizes[rows])])
        return Sparse(starts, self.buckets[held], self.values[held], self.dimensions)


def joined(parts: Sequence[Sparse]) -> Sparse:
    """Rows of several matrices of equal dimensions, at least one, one after the other."""
    sizes = np.concatenate([np.diff(part.starts) for part in parts])
    return Sparse(
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([part.buckets for part in parts]),
        np.concatenate([part.values for part in parts]),
        parts[0].dimensions,
    )


def hashed_words(words: Words, order: int, bits: int) -> Sparse:
    """A row for each text of a column.

    Args:
        words: of the column.
        order: most words of an n-gram.
        bits: of the number of buckets.
    """
    n = len(words.offsets) - 1
    library = load("features")
    if library is None:
        return _rows(_counted(words, order, bits), bits)
    most = order * len(words.refined)
    starts = np.zeros(n + 1, np.int64)
    buckets, values = np.empty(most, np.uint32), np.empty(most, np.float32)
    given = (words.offsets.ctypes.data, words.refined.ctypes.data)
    made = (array.ctypes.data for array in (starts, buckets, values))
    _hashed(library)(n, *given, order, bits, *made)
    end = int(starts[-1])
    return Sparse(starts, buckets[:end].copy(), values[:end].copy(), 1 << bits)


def _counted(words: Words, order: int, bits: int) -> Iterable[Counter[int]]:
    for begin, end in itertools.pairwise(words.offsets):
        kept = [word for word in words.refined[begin:end].tolist() if word]
        counts: Counter[int] = Counter()
        for j in range(len(kept)):
            h = 0
            for word in kept[j : j + order]:
                h = (h * _RADIX + word) & _MASK
                counts[_mixed(h) >> (64 - bits)] += 1
        yield counts


def _rows(counted: Iterable[Counter[int]], bits: int) -> Sparse:
    starts, buckets, values = [0], [], []
    for counts in counted:
        row = np.array([1 + math.log(counts[b]) for b in sorted(counts)])
        buckets += sorted(counts)
        values.append(row.astype(np.float32) * np.float32(1 / max(math.hypot(*row), 1)))
        starts.append(len(buckets))
    whole = np.concatenate([np.zeros(0, np.float32), *values])
    return Sparse(np.array(starts), np.array(buckets, np.uint32), whole, 1 << bits)


def _mixed(h: int) -> int:
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
    return h ^ (h >> 31)


@functools.cache
def _native(library: ctypes.CDLL, name: str, arrays: int) -> Any:
    return function(library, name, ctypes.c_int64, *[ctypes.c_void_p] * arrays)


@functools.cache
def _hashed(library: ctypes.CDLL) -> Any:
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    types = (whole, pointer, pointer, whole, whole, pointer, pointer, pointer)
    return function(library, "hashed_words", *types)
