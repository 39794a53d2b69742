"""The forms of words, and how much of a text its pieces and n-grams of words say twice.

Statistics of Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training
Gopher", 2021, arXiv 2112.11446, table A1, as datatrove computes them: with words
w_1 ... w_T, joined by spaces::

    top_gram(n)       = c |g|   of the most frequent n-gram g, c times in the text
    repeated_grams(n) = sum |g| over n-grams that occurred before, read from the left; one that did
                        is jumped over as a whole

all in code points. Pieces and n-grams are told apart by hashes of 64 bits; the twins look at the
same hashes.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.data.statistics.characters import ALNUM, ALPHA, characters
from sharpen.data.statistics.counts import Bytes, Integers
from sharpen.data.statistics.hashing import hash_text
from sharpen.data.statistics.lines import Pieces
from sharpen.data.statistics.words import Words
from sharpen.native.build import function, load

__all__ = ["Forms", "find_forms", "repeated_grams", "repeated_pieces", "repeated_words", "top_gram"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Forms:
    """What the words of a column look like."""

    hashes: npt.NDArray[np.uint64]
    """[words] of each as it stands."""

    kinds: npt.NDArray[np.uint8]
    """[words] bits of :mod:`~sharpen.data.statistics.characters` that some character has."""

    @property
    def with_letter(self) -> Flags:
        """[words] which have a letter."""
        return (self.kinds & ALPHA) > 0

    @property
    def with_letter_or_digit(self) -> Flags:
        """[words] which have a letter or a digit, and so are not symbols alone."""
        return (self.kinds & ALNUM) > 0


def find_forms(words: Words, data: Bytes) -> Forms:
    """Hashes and kinds of all words.

    Args:
        words: of a column.
        data: of the same column.
    """
    count = len(words.starts)
    hashes, kinds = np.empty(count, np.uint64), np.empty(count, np.uint8)
    library = load("text_lines")
    bits = characters().bits
    if library is not None:
        arrays = (words.starts, words.ends, data, bits, hashes, kinds)
        _call(library, "word_forms", "ipppppp")(count, *(a.ctypes.data for a in arrays))
        return Forms(hashes, kinds)
    for w, (start, end) in enumerate(zip(words.starts, words.ends, strict=True)):
        word = data[start:end].tobytes().decode()
        hashes[w] = hash_text(word)
        kinds[w] = functools.reduce(lambda kind, c: kind | int(bits[ord(c)]), word, 0)
    return Forms(hashes, kinds)


def repeated_pieces(pieces: Pieces) -> tuple[Integers, Integers]:
    """[n] how many pieces of each text occurred before in it, and [n] their code points."""
    return _repeated(pieces.offsets, pieces.hashes, pieces.lengths)


def repeated_words(words: Words) -> Integers:
    """[n] how many refined words of each text occurred before in it."""
    kept = words.refined != 0
    before = np.concatenate([[0], np.cumsum(kept)])[words.offsets]
    return _repeated(before, words.refined[kept], words.lengths[kept])[0]


def _repeated(
    offsets: Integers, hashes: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int32]
) -> tuple[Integers, Integers]:
    n = len(offsets) - 1
    count, points = np.zeros(n, np.int64), np.zeros(n, np.int64)
    library = load("text_lines")
    if library is not None:
        arrays = (offsets, hashes, lengths, count, points)
        _call(library, "repeated_pieces", "ippppp")(n, *(a.ctypes.data for a in arrays))
        return count, points
    for i, (begin, end) in enumerate(itertools.pairwise(offsets)):
        seen = set()
        for h, length in zip(hashes[begin:end].tolist(), lengths[begin:end].tolist(), strict=True):
            count[i] += h in seen
            points[i] += length * (h in seen)
            seen.add(h)
    return count, points


def top_gram(words: Words, forms: Forms, size: int) -> Integers:
    """[n] code points of all occurrences of the most frequent n-gram; of equal ones the first.

    Args:
        words: of a column.
        forms: of the same words.
        size: n, at least 1.
    """
    n = len(words.offsets) - 1
    points = np.zeros(n, np.int64)
    library = load("text_lines")
    if library is not None:
        arrays = (words.offsets, forms.hashes, words.lengths)
        call = _call(library, "top_gram", "ipppip")
        call(n, *(a.ctypes.data for a in arrays), size, points.ctypes.data)
        return points
    for i, (hashes, lengths) in enumerate(_by_text(words, forms)):
        grams = [tuple(hashes[j : j + size]) for j in range(len(hashes) - size + 1)]
        if grams:
            gram, times = Counter(grams).most_common(1)[0]  # of equal ones the first
            first = grams.index(gram)
            points[i] = times * (sum(lengths[first : first + size]) + size - 1)
    return points


def repeated_grams(words: Words, forms: Forms, low: int, high: int) -> Integers:
    """[n, high - low + 1] code points of n-grams that occurred before, for each size.

    Args:
        words: of a column.
        forms: of the same words.
        low: the least size, at least 1.
        high: the greatest.
    """
    n = len(words.offsets) - 1
    points = np.zeros((n, high - low + 1), np.int64)
    library = load("text_lines")
    if library is not None:
        arrays = (words.offsets, forms.hashes, words.lengths)
        call = _call(library, "repeated_grams", "ipppiip")
        call(n, *(a.ctypes.data for a in arrays), low, high, points.ctypes.data)
        return points
    for i, (hashes, lengths) in enumerate(_by_text(words, forms)):
        for size in range(low, high + 1):
            seen, j = set(), 0
            while j + size <= len(hashes):
                gram = tuple(hashes[j : j + size])
                if gram in seen:
                    points[i, size - low] += sum(lengths[j : j + size])
                    j += size
                else:
                    seen.add(gram)
                    j += 1
    return points


def _by_text(words: Words, forms: Forms) -> list[tuple[list[int], list[int]]]:
    return [
        (forms.hashes[a:b].tolist(), words.lengths[a:b].tolist())
        for a, b in itertools.pairwise(words.offsets)
    ]


@functools.cache
def _call(library: ctypes.CDLL, name: str, types: str) -> Callable[..., None]:
    """A function of integers (i) and pointers (p)."""
    kinds = {"i": ctypes.c_int64, "p": ctypes.c_void_p}
    found: Callable[..., None] = function(library, name, *(kinds[t] for t in types))
    return found
