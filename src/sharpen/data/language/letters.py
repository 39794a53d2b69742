"""n-grams of letters, hashed.

A text becomes its letters in lower case, with one space for whatever lies between two of them and
at both ends; its n-grams are runs of 1 to N of those that begin anywhere and reach beyond no space.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.data.statistics import Texts, characters
from sharpen.native.build import function, load

__all__ = ["count_letters", "score_letters"]

_MASK = (1 << 64) - 1
_RADIX = 0x9E3779B97F4A7C15
_ALPHA = 2


def count_letters(texts: Texts, order: int, bits: int) -> npt.NDArray[np.int64]:
    """[2^bits] how often n-grams of each bucket occur in a column.

    Args:
        texts: the column.
        order: most letters of an n-gram.
        bits: of the number of buckets.
    """
    counts = np.zeros(1 << bits, np.int64)
    library = load("features")
    if library is not None:
        call = _native(library, "letter_counts", "npppp" + "nnp")
        call(len(texts), *_given(texts), order, bits, counts.ctypes.data)
        return counts
    for text in texts.strings:
        np.add.at(counts, list(_buckets(text, order, bits)), 1)
    return counts


def score_letters(
    texts: Texts, order: int, table: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """[n, classes] the sum over each text's n-grams of the table's rows.

    Args:
        texts: the column.
        order: most letters of an n-gram.
        table: [2^bits, classes].
    """
    buckets, classes = table.shape
    bits = buckets.bit_length() - 1
    sums = np.zeros((len(texts), classes))
    library = load("features")
    if library is not None:
        table = np.ascontiguousarray(table)
        call = _native(library, "letter_scores", "npppp" + "nnnpp")
        last = (table.ctypes.data, sums.ctypes.data)
        call(len(texts), *_given(texts), order, bits, classes, *last)
        return sums
    for row, text in zip(sums, texts.strings, strict=True):
        for bucket in _buckets(text, order, bits):
            row += table[bucket]
    return sums


def _given(texts: Texts) -> tuple[int, ...]:
    tables = characters()
    arrays = (texts.offsets, texts.data, tables.bits, tables.lower)
    return tuple(array.ctypes.data for array in arrays)


def _buckets(text: str, order: int, bits: int) -> Iterator[int]:
    tables = characters()
    letters = [0]
    for point in map(ord, text):
        if tables.bits[point] & _ALPHA:
            letters.append(int(tables.lower[point]))
        elif letters[-1]:
            letters.append(0)
    if letters[-1]:
        letters.append(0)
    for j in range(len(letters)):
        h = 0
        for k in range(j, min(len(letters), j + order)):
            h = (h * _RADIX + letters[k] + 1) & _MASK
            if k == j and not letters[k]:
                continue
            x = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
            yield (x ^ (x >> 31)) >> (64 - bits)
            if not letters[k]:
                break


@functools.cache
def _native(library: ctypes.CDLL, name: str, types: str) -> Any:
    kinds = {"n": ctypes.c_int64, "p": ctypes.c_void_p}
    return function(library, name, *(kinds[kind] for kind in types))
