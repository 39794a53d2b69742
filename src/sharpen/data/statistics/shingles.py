"""Sets of shingles, for exact similarities, and SimHash.

Moses Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002; Manku, Jain
and Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007: of two texts' SimHashes,
about ``64 angle / pi`` bits differ, with the angle between their vectors of shingle counts.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sharpen.data.statistics.characters import characters, unchanged
from sharpen.data.statistics.column import Texts
from sharpen.data.statistics.counts import texts_of
from sharpen.data.statistics.hashing import hash_points, mixed
from sharpen.native.build import function, load

__all__ = ["Shingling", "Tokens", "jaccard", "shingle_sets", "simhash"]

Tokens = Literal["words", "space", "characters"]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1
_RADIX = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Shingling:
    """What a shingle is."""

    window: int
    """Tokens of a shingle; a text with fewer is one shingle."""

    tokens: Tokens = "words"
    """Parted by spaces, line feeds and tabs; by spaces alone; or single code points."""

    lowercase: bool = True
    """Take upper and lower case for equal."""

    @property
    def fold(self) -> npt.NDArray[np.uint32]:
        """[0x110000] the code point that each counts as."""
        return characters().lower if self.lowercase else unchanged()

    def native(self) -> tuple[int, bool, bool, int]:
        """What kernels are told."""
        return (
            self.fold.ctypes.data,
            self.tokens == "characters",
            self.tokens == "words",
            self.window,
        )

    def hashes(self, text: str) -> list[int]:
        """64 bits of each shingle, in order: the twin of the kernels."""
        fold = self.fold
        tokens = [hash_points(int(fold[ord(c)]) for c in token) for token in self._tokens(text)]
        size = min(self.window, len(tokens))
        found = []
        for j in range(len(tokens) - size + 1 if tokens else 0):
            h = 0
            for one in tokens[j : j + size]:
                h = (h * _RADIX + one) & _MASK
            found.append(mixed(h))
        return found

    def _tokens(self, text: str) -> list[str]:
        if self.tokens == "characters":
            return list(text)
        if self.tokens == "words":
            text = text.replace("\n", " ").replace("\t", " ")
        return [token for token in text.split(" ") if token]


def shingle_sets(texts: Texts, shingling: Shingling) -> tuple[Integers, Hashes]:
    """The distinct shingles of each text.

    Returns:
        [n + 1] shingles before each text, and their hashes, in order within a text.
    """
    n = len(texts)
    library = load("shingles")
    if library is None:
        sets = [sorted(set(shingling.hashes(text))) for text in texts.strings]
        before = np.concatenate([[0], np.cumsum([len(one) for one in sets])]).astype(np.int64)
        return before, np.array([h for one in sets for h in one], np.uint64)
    before = np.zeros(n + 1, np.int64)
    found = np.empty(texts.bytes + 1, np.uint64)
    given = (texts.offsets.ctypes.data, texts.data.ctypes.data, *shingling.native())
    _sets(library)(n, *given, before.ctypes.data, found.ctypes.data)
    return before, found[: before[-1]].copy()


def jaccard(
    before: Integers, sets: Hashes, one: Integers, other: Integers
) -> npt.NDArray[np.float64]:
    """[pairs] ``|A and B| / |A or B|``; 0 of two empty sets.

    Args:
        before: as :func:`shingle_sets` gives them.
        sets: likewise.
        one: [pairs] texts.
        other: [pairs] texts.
    """
    shared, either = np.zeros(len(one), np.int64), np.zeros(len(one), np.int64)
    library = load("shingles")
    if library is not None:
        one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
        given = (array.ctypes.data for array in (one, other, before, sets, shared, either))
        _shared(library)(len(one), *given)
    else:
        for k, (a, b) in enumerate(zip(one.tolist(), other.tolist(), strict=True)):
            first = set(sets[before[a] : before[a + 1]].tolist())
            second = set(sets[before[b] : before[b + 1]].tolist())
            shared[k], either[k] = len(first & second), len(first | second)
    return shared / np.maximum(either, 1)


def simhash(texts: Texts, shingling: Shingling) -> Hashes:
    """[n] hashes of which close ones belong to texts with like shingles; 0 without tokens."""
    found = np.zeros(len(texts), np.uint64)
    library = load("shingles")
    if library is not None:
        given = (texts.offsets.ctypes.data, texts.data.ctypes.data, *shingling.native())
        _simhash(library)(len(texts), *given, found.ctypes.data)
        return found
    for i, text in enumerate(texts_of(texts.offsets, texts.data)):
        hashes = shingling.hashes(text)
        for k in range(64):
            if 2 * sum(h >> k & 1 for h in hashes) > len(hashes):
                found[i] |= np.uint64(1 << k)
    return found


_whole, _pointer = ctypes.c_int64, ctypes.c_void_p
_GIVEN = (_whole, _pointer, _pointer, _pointer, _whole, _whole, _whole)


@functools.cache
def _sets(library: ctypes.CDLL) -> Any:
    return function(library, "shingle_sets", *_GIVEN, _pointer, _pointer)


@functools.cache
def _shared(library: ctypes.CDLL) -> Any:
    return function(library, "shared_shingles", _whole, *[_pointer] * 6)


@functools.cache
def _simhash(library: ctypes.CDLL) -> Any:
    return function(library, "simhash", *_GIVEN, _pointer)
