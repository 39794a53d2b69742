"""What stands around each word: counts by offset, weighted, summed as codes.

With c(w, t, o) how often t stands o places after w (o < 0: before) and v_t the vector of t's code::

    sum      x_w = sum_t g(c(w, t)) v_t,   c(w, t) = sum over offsets -m .. m but 0
    concat   x_w = [sum_t g(c(w, t, o)) v_t  for each offset]

    g(c) = c,  log(1 + c),  or  max(0, log(c N / (c(w, .) c(., t))))   (PPMI)

No matrix of words by words is made: each word's contexts are counted where it occurs and added to
its vector at once. A code has a few bits, so that an addition is a few numbers.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.data.bitcipher.codes import Codes
from sharpen.data.bitcipher.documents import NONE
from sharpen.native.build import function, load

__all__ = ["WEIGHTS", "context_vectors"]

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.uint32]

WEIGHTS = ("count", "log", "ppmi")


def context_vectors(
    tokens: Tokens,
    codes: Codes,
    base: Floats,
    scale: Floats,
    *,
    window: int,
    apart: bool,
    weight: str,
) -> npt.NDArray[np.float32]:
    """Sum the codes around each word.

    Args:
        tokens: [T] ranks, or NONE.
        codes: of V words.
        base: [V] what every bit of a word's vector has.
        scale: [V] what the bits of its code have besides.
        window: m.
        apart: whether each offset has a block of its own.
        weight: g.

    Returns:
        [V, b], or [V, 2 m b] with offsets apart, from -m on.
    """
    words = len(base)
    totals = _totals(tokens, words, window)
    rows, columns = totals[:, 0], totals[:, 1]
    if not apart:
        rows, columns = rows.sum(0, keepdims=True), columns.sum(0, keepdims=True)
    library = load("cipher")
    if library is None:
        return _vectors(tokens, codes, base, scale, window, apart, weight, rows, columns)
    places, starts = np.empty(len(tokens), np.uint32), np.empty(words + 1, np.int64)
    sort = _native(library, "cipher_places", "npnpp")
    sort(len(tokens), tokens.ctypes.data, words, starts.ctypes.data, places.ctypes.data)
    blocks = 2 * window if apart else 1
    vectors = np.empty((words, blocks * codes.bits), np.float32)
    arrays = [codes.first, codes.active, base, scale, rows, columns]
    given = [np.ascontiguousarray(array).ctypes.data_as(ctypes.c_void_p) for array in arrays]
    call = _native(library, "cipher_vectors", "npnppnnnn" + "pppppp" + "p")
    corpus = (len(tokens), tokens.ctypes.data, words, starts.ctypes.data, places.ctypes.data)
    how = (window, apart, WEIGHTS.index(weight), codes.bits)
    call(*corpus, *how, *given, vectors.ctypes.data)
    return vectors


def _totals(tokens: Tokens, words: int, window: int) -> Counts:
    """[2 m, 2, V] for each offset, how often a word has another there, and is that other."""
    totals = np.zeros((2 * window, 2, words), np.int64)
    library = load("cipher")
    if library is not None:
        call = _native(library, "cipher_totals", "npnnp")
        call(len(tokens), tokens.ctypes.data, words, window, totals.ctypes.data)
        return totals
    for block, offset in enumerate(_offsets(window)):
        word, other = _pairs(tokens, offset)
        totals[block, 0] = np.bincount(word, minlength=words)
        totals[block, 1] = np.bincount(other, minlength=words)
    return totals


def _offsets(window: int) -> list[int]:
    return [*range(-window, 0), *range(1, window + 1)]


def _pairs(tokens: Tokens, offset: int) -> tuple[Tokens, Tokens]:
    """Words, and what stands at an offset of each."""
    early, late = tokens[: max(0, len(tokens) - abs(offset))], tokens[abs(offset) :]
    word, other = (early, late) if offset > 0 else (late, early)
    both = (word != NONE) & (other != NONE)
    return word[both], other[both]


def _vectors(
    tokens: Tokens,
    codes: Codes,
    base: Floats,
    scale: Floats,
    window: int,
    apart: bool,
    weight: str,
    rows: Counts,
    columns: Counts,
) -> npt.NDArray[np.float32]:
    words = len(base)
    vectors = base[:, None] + scale[:, None] * codes.dense()
    offsets = _offsets(window)
    blocks = []
    for block, some in enumerate([[o] for o in offsets] if apart else [offsets]):
        pairs = [_pairs(tokens, offset) for offset in some]
        word, other = (np.concatenate(side).astype(np.int64) for side in zip(*pairs, strict=True))
        key, count = np.unique(word * words + other, return_counts=True)
        word, other = key // words, key % words
        g = count.astype(np.float64)
        if weight == "log":
            g = np.log1p(g)
        elif weight == "ppmi":
            by_chance = rows[block, word] * columns[block, other]
            g = np.maximum(0.0, np.log(count * rows[block].sum() / by_chance))
        made = np.zeros((words, codes.bits))
        np.add.at(made, word, g[:, None] * vectors[other])
        blocks.append(made)
    return np.concatenate(blocks, 1).astype(np.float32)


@functools.cache
def _native(library: ctypes.CDLL, name: str, types: str) -> Any:
    kinds = {"n": ctypes.c_int64, "p": ctypes.c_void_p}
    return function(library, name, *(kinds[kind] for kind in types))
