"""Words to ids, and how often each n-gram occurs.

Each token knows the (n-1)-gram that ends at it, as a number. The n-grams of a corpus are then pairs
of such a number, of the token before, and a word: grouped by the first (a counting sort) and sorted
by the second, equal ones are neighbours, and those that share a context, too. 20 bytes a token are
held at once, beside what was counted.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import DataError
from sharpen.data.ngram.tables import NONE, native
from sharpen.data.statistics import Texts, characters
from sharpen.native.build import load

__all__ = ["BEGIN", "END", "UNKNOWN", "Corpus", "Counted", "count_ngrams", "read_corpus", "split"]

Ids = npt.NDArray[np.uint32]

UNKNOWN, BEGIN, END = 0, 1, 2
"""Ids of ``<unk>``, ``<s>`` and ``</s>``."""

_RESERVED = ("<unk>", "<s>", "</s>")
_MOST = (1 << 32) - 2  # tokens: a place in the corpus has 32 bits


@dataclass(frozen=True, slots=True)
class Corpus:
    """Sentences as ids, each from ``<s>`` to ``</s>``, one after the other."""

    tokens: Ids

    offsets: npt.NDArray[np.uint64]
    """[words + 1] into ``data``."""

    data: npt.NDArray[np.uint8]
    """UTF-8 of the words, by id."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The m distinct n-grams of an order n >= 2, in order of context and last word."""

    context: Ids
    """[m] which (n-1)-gram the first n - 1 words are."""

    word: Ids
    """[m] the last word."""

    count: Ids
    """[m] how often it occurs."""

    suffix: Ids
    """[m] which (n-1)-gram the last n - 1 words are."""

    begins: npt.NDArray[np.bool_]
    """[m] whether the first word is ``<s>``."""


def split(text: str, *, lines: bool = False) -> list[str]:
    """The sentences of a text: words are joined by spaces, then parted by ``str.splitlines``.

    Line feeds are white space unless ``lines``; other line ends, such as form feeds, always part.
    """
    parts = text.split("\n") if lines else [text]
    sentences = []
    for part in parts:
        words = part.replace("\n", " ").replace("\t", " ").split(" ")
        sentences += " ".join(word for word in words if word).splitlines()
    return sentences


def read_corpus(columns: Iterable[Texts], *, lines: bool = False) -> Corpus:
    """Sentences of texts; empty ones are left out.

    Args:
        columns: of texts.
        lines: each line of a text is a sentence, not the whole text.

    Raises:
        DataError: there are no words, or more than 2^32.
    """
    library = load("ngram")
    corpus = _read_native(library, columns, lines) if library else _read(columns, lines)
    if not len(corpus.tokens):
        raise DataError("the texts have no words to learn from.")
    if len(corpus.tokens) > _MOST:
        raise DataError(f"{len(corpus.tokens)} words are more than 2^32; train on a part of them.")
    return corpus


def _read_native(library: ctypes.CDLL, columns: Iterable[Texts], lines: bool) -> Corpus:
    new = library["ngram_vocabulary"]
    new.argtypes, new.restype = [], ctypes.c_void_p
    vocabulary = ctypes.c_void_p(new())
    bits, read = characters().bits, _reader(library)
    parts = []
    try:
        for texts in columns:
            tokens = np.empty((3 * texts.bytes + 3 * len(texts)) // 2 + 1, np.uint32)
            given = (array.ctypes.data for array in (texts.offsets, texts.data, bits))
            count = read(vocabulary, len(texts), *given, lines, tokens.ctypes.data)
            parts.append(tokens[:count].copy())
        sizes = np.empty(2, np.int64)
        native(library, "ngram_sizes", "pp")(vocabulary, sizes.ctypes.data)
        offsets = np.empty(sizes[0] + 1, np.uint64)
        data = np.empty(sizes[1], np.uint8)
        copy = native(library, "ngram_words", "ppp")
        copy(vocabulary, offsets.ctypes.data, data.ctypes.data)
    finally:
        native(library, "ngram_free", "p")(vocabulary)
    return Corpus(np.concatenate(parts) if parts else np.zeros(0, np.uint32), offsets, data)


@functools.cache
def _reader(library: ctypes.CDLL) -> Any:
    found, pointer = library["ngram_tokens"], ctypes.c_void_p
    found.argtypes = [pointer, ctypes.c_int64, *[pointer] * 3, ctypes.c_int64, pointer]
    found.restype = ctypes.c_int64
    return found


def _read(columns: Iterable[Texts], lines: bool) -> Corpus:
    ids = {name.encode(): i for i, name in enumerate(_RESERVED)}
    tokens: list[int] = []
    for texts in columns:
        for text in texts.strings:
            for sentence in split(text, lines=lines):
                found = [ids.setdefault(word, len(ids)) for word in sentence.encode().split()]
                kept = [one for one in found if one > END]
                tokens += [BEGIN, *kept, END] if kept else []
    lengths = np.fromiter(map(len, ids), np.uint64, len(ids))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
    return Corpus(np.array(tokens, np.uint32), offsets, np.frombuffer(b"".join(ids), np.uint8))


def count_ngrams(tokens: Ids, previous: Ids, contexts: int, order: int) -> tuple[Counted, Ids]:
    """Count the n-grams of an order.

    Args:
        tokens: [T] of the corpus.
        previous: [T] which (n-1)-gram ends at each token, NONE where none does.
        contexts: distinct (n-1)-grams.
        order: n, at least 2.

    Returns:
        The n-grams, and [T] which of them ends at each token.
    """
    library = load("ngram")
    if library is None:
        return _count(tokens, previous, order)
    T = len(tokens)
    starts, pairs = np.empty(contexts + 1, np.int64), np.empty(T, np.uint64)
    group, whole, pointer = library["ngram_group"], ctypes.c_int64, ctypes.c_void_p
    group.argtypes = [whole, pointer, pointer, whole, pointer, pointer]
    group.restype = whole
    given = (tokens.ctypes.data, previous.ctypes.data, contexts)
    ordered = (starts.ctypes.data, pairs.ctypes.data)
    distinct = group(T, *given, *ordered)
    context, word, count, suffix = (np.empty(distinct, np.uint32) for _ in range(4))
    begins, node = np.empty(distinct, np.bool_), np.empty(T, np.uint32)
    made = (array.ctypes.data for array in (context, word, count, suffix, begins, node))
    native(library, "ngram_count", "nnppnpppppppp")(T, order, *given, *ordered, *made)
    return Counted(context, word, count, suffix, begins), node


def _count(tokens: Ids, previous: Ids, order: int) -> tuple[Counted, Ids]:
    ends = 1 + np.nonzero((tokens[1:] != BEGIN) & (previous[:-1] != NONE))[0]
    keys = previous[ends - 1].astype(np.uint64) << np.uint64(32) | tokens[ends]
    distinct, first, which, count = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    node = np.full(len(tokens), NONE, np.uint32)
    node[ends] = which
    counted = Counted(
        (distinct >> np.uint64(32)).astype(np.uint32),
        distinct.astype(np.uint32),
        count.astype(np.uint32),
        previous[ends[first]],
        tokens[ends[first] - order + 1] == BEGIN,
    )
    return counted, node
