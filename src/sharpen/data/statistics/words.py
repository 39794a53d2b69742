"""Words as places in the bytes and hashes, never as Python's strings.

A word is what spaces, line feeds and tabs part; no other white space does, as in Data-Juicer. A
refined word is one in lower case without special characters at either end, and counts only if
something is left. Equal refined words have equal hashes of 64 bits; two different ones of n in a
batch have with probability n^2 / 2^65.

The hash is FNV-1a over code points, finished by SplitMix64's mixing. Lower case is that of a
table, except in words with U+0130 or a capital sigma, whose lower case depends on more: Python
makes those.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.data.statistics.characters import characters, is_special
from sharpen.data.statistics.hashing import hash_text
from sharpen.native.build import load

__all__ = ["Words", "find_words", "hash_word", "refine", "strip_special"]

Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_PARTS = str.maketrans("\n\t", "  ")


@dataclass(frozen=True, slots=True)
class Words:
    """All words of a column of n texts, in order."""

    offsets: Integers
    """[n + 1] words before each text."""

    starts: Integers
    """[words] first byte of each, in the column's data."""

    ends: Integers
    """[words] the byte after each."""

    lengths: npt.NDArray[np.int32]
    """[words] code points."""

    refined: npt.NDArray[np.uint64]
    """[words] hash of the refined word; 0 if nothing of it is left."""

    @property
    def count(self) -> Integers:
        """[n] words of each text."""
        return np.diff(self.offsets)

    @property
    def count_refined(self) -> Integers:
        """[n] words of each text of which something is left."""
        before = np.concatenate([[0], np.cumsum(self.refined != 0)])
        return np.diff(before[self.offsets])

    @property
    def mean_length(self) -> npt.NDArray[np.float64]:
        """[n] mean code points of a word; 0 without words."""
        before = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        return np.diff(before[self.offsets]) / np.maximum(self.count, 1)


def refine(word: str) -> str:
    """A word in lower case, without special characters at either end."""
    return strip_special(word.lower())


def strip_special(word: str) -> str:
    """A word without special characters at either end."""
    first, last = 0, len(word)
    while first < last and is_special(word[first]):
        first += 1
    while last > first and is_special(word[last - 1]):
        last -= 1
    return word[first:last]


def hash_word(refined: str) -> int:
    """Of a refined word: 64 bits, 0 for an empty one alone; never 1."""
    if not refined:
        return 0
    h = hash_text(refined)
    return h if h > 1 else h + 2


def hash_words(words: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Distinct hashes of a list of words, each refined first; empty ones are left out."""
    found = {hash_word(refine(word)) for word in words} - {0}
    return np.array(sorted(found), np.uint64)


def find_words(offsets: Integers, data: Bytes) -> Words:
    """The words of each text.

    Args:
        offsets: [n + 1] into ``data``.
        data: valid UTF-8.
    """
    n = len(offsets) - 1
    most = (int(offsets[-1] - offsets[0]) + n) // 2
    before = np.zeros(n + 1, np.int64)
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    lengths, refined = np.empty(most, np.int32), np.empty(most, np.uint64)
    library = load("text")
    if library is not None:
        tables = characters()
        given = (offsets, data, tables.bits, tables.lower, before, starts, ends, lengths, refined)
        odd = _native(library)(n, *(array.ctypes.data for array in given))
        total = int(before[-1])
        for w in np.nonzero(refined[:total] == 1)[0] if odd else ():
            word = data[starts[w] : ends[w]].tobytes().decode()
            refined[w] = hash_word(refine(word))
    else:
        total = 0
        for i, (place, after) in enumerate(itertools.pairwise(offsets.tolist())):
            text = data[place:after].tobytes().decode().translate(_PARTS)
            for word in text.split(" "):
                size = len(word.encode())
                if word:
                    starts[total], ends[total] = place, place + size
                    lengths[total], refined[total] = len(word), hash_word(refine(word))
                    total += 1
                place += size + 1
            before[i + 1] = total
    return Words(
        before,
        starts[:total].copy(),
        ends[:total].copy(),
        lengths[:total].copy(),
        refined[:total].copy(),
    )


@functools.cache
def _native(library: ctypes.CDLL) -> Any:
    found = library["text_words"]
    found.argtypes, found.restype = [ctypes.c_int64, *[ctypes.c_void_p] * 9], ctypes.c_int64
    return found
