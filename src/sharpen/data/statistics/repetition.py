"""Shares of a text that repeat: n-grams of characters, n-grams of words; words of a list.

With counts c_1 >= c_2 >= ... of the D distinct n-grams of characters, of which U occur once::

    m     = min(floor(sqrt(D)), D - U)
    ratio = (c_1 + ... + c_m) / sum c

and of words, joined by a space, each count above 1 enters: ``ratio = sum of c > 1 / sum c``. Both
are 0 where there is no n-gram. The statistics are Data-Juicer's (Chen et al., "Data-Juicer: A
One-Stop Data Processing System for Large Language Models", SIGMOD 2024).

n-grams are counted by hashes of 64 bits; the twins count the n-grams themselves.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.data.statistics.counts import Bytes, Integers, texts_of
from sharpen.data.statistics.words import Words
from sharpen.native.build import function, load

__all__ = ["character_repetition", "listed_counts", "word_repetition", "words_in_list"]

Ratios = npt.NDArray[np.float64]


def character_repetition(offsets: Integers, data: Bytes, size: int) -> Ratios:
    """[n] share of the most frequent n-grams of ``size`` code points among all.

    Args:
        offsets: [n + 1] into ``data``.
        data: valid UTF-8.
        size: at least 1.
    """
    ratio = np.zeros(len(offsets) - 1)
    library = load("text")
    if library is not None:
        call = _native(library, "character_repetition", 2)
        call(len(ratio), offsets.ctypes.data, data.ctypes.data, size, ratio.ctypes.data)
        return ratio
    for i, text in enumerate(texts_of(offsets, data)):
        counts = Counter(text[j : j + size] for j in range(len(text) - size + 1))
        if counts:
            repeated = sorted((c for c in counts.values() if c > 1), reverse=True)
            most = min(math.isqrt(len(counts)), len(repeated))
            ratio[i] = sum(repeated[:most]) / counts.total()
    return ratio


def word_repetition(words: Words, size: int) -> Ratios:
    """[n] share of the n-grams of ``size`` refined words that occur more than once.

    Args:
        words: of a column.
        size: at least 1.
    """
    ratio = np.zeros(len(words.offsets) - 1)
    library = load("text")
    if library is not None:
        call = _native(library, "word_repetition", 2)
        given = (words.offsets.ctypes.data, words.refined.ctypes.data)
        call(len(ratio), *given, size, ratio.ctypes.data)
        return ratio
    for i, (begin, end) in enumerate(itertools.pairwise(words.offsets)):
        kept = [word for word in words.refined[begin:end].tolist() if word]
        counts = Counter(tuple(kept[j : j + size]) for j in range(len(kept) - size + 1))
        if counts:
            ratio[i] = sum(c for c in counts.values() if c > 1) / counts.total()
    return ratio


def words_in_list(words: Words, listed: npt.NDArray[np.uint64]) -> Ratios:
    """[n] share of the refined words that are in a list; 0 without words.

    Args:
        words: of a column.
        listed: hashes of refined words, by :func:`~sharpen.data.statistics.words.hash_words`.
    """
    found, kept = listed_counts(words.offsets, words.refined, listed)
    return found / np.maximum(kept, 1)


def listed_counts(
    offsets: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
    listed: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """[n] how many hashes of each text are in a list, and how many are not 0.

    Args:
        offsets: [n + 1] hashes before each text.
        hashes: of words or runs of words.
        listed: distinct.
    """
    n = len(offsets) - 1
    found, kept = np.zeros(n, np.int64), np.zeros(n, np.int64)
    library = load("text")
    if library is not None:
        given = (offsets, hashes, listed, found, kept)
        before, mine, known, *results = (array.ctypes.data for array in given)
        _listed(library)(n, before, mine, len(listed), known, *results)
        return found, kept
    for values, out in ((np.isin(hashes, listed) & (hashes != 0), found), (hashes != 0, kept)):
        out[:] = np.diff(np.concatenate([[0], np.cumsum(values)])[offsets])
    return found, kept


@functools.cache
def _native(library: ctypes.CDLL, name: str, inputs: int) -> Any:
    """A function of n, ``inputs`` arrays, a size and a result."""
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    return function(library, name, whole, *[pointer] * inputs, whole, pointer)


@functools.cache
def _listed(library: ctypes.CDLL) -> Any:
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    return function(
        library, "words_in_list", whole, pointer, pointer, whole, pointer, pointer, pointer
    )
