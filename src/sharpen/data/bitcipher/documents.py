"""Documents as ids of words by rank, from texts, lists of words or arrays of ids."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from sharpen.core.errors import DataError
from sharpen.data.columns import Given, columns_of
from sharpen.data.dataset import Dataset
from sharpen.data.ngram.counting import END, read_corpus
from sharpen.data.statistics import Texts

__all__ = ["NONE", "Documents", "Ranked", "rank_words", "read_documents"]

Documents: TypeAlias = Given | Iterable[Sequence[str]] | Iterable[npt.NDArray[Any]]
"""Texts wherever they are, or for each document its words, or the ids of its tokens."""

NONE = 0xFFFFFFFF
"""A place that no word of the vocabulary takes: a rare word, or between documents."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A corpus over a vocabulary."""

    words: list[str]
    """By rank: the most frequent first, of equals the first in the alphabet."""

    frequencies: npt.NDArray[np.int64]
    """[words]"""

    tokens: npt.NDArray[np.uint32]
    """Ranks, or NONE; documents are as far apart as a window reaches."""


def read_documents(
    documents: Documents, *, window: int, lowercase: bool
) -> tuple[list[str], npt.NDArray[np.uint32]]:
    """Words by first occurrence, and the corpus as their numbers, with NONE between documents.

    Raises:
        DataError: something else than documents.
    """
    if isinstance(documents, np.ndarray):
        documents = [documents]
    if isinstance(documents, (str, Path, Dataset)):
        return _of_texts(columns_of(documents), window, lowercase)
    rest = iter(documents)
    first = next(rest, None)
    whole: Any = itertools.chain([] if first is None else [first], rest)
    if first is None or isinstance(first, (str, Path)):
        return _of_texts(columns_of(whole), window, lowercase)
    if isinstance(first, np.ndarray):
        return _of_ids(whole, window)
    return _of_words(whole, window, lowercase)


def _of_texts(
    columns: Iterator[Texts], window: int, lowercase: bool
) -> tuple[list[str], npt.NDArray[np.uint32]]:
    if lowercase:
        columns = (Texts(pc.utf8_lower(texts.column)) for texts in columns)
    corpus = read_corpus(columns)
    # A sentence is one <s>, words, one </s>.
    apart = np.where(corpus.tokens < END, max(1, window - 1), 1)
    tokens = np.repeat(corpus.tokens, apart)
    tokens = np.where(tokens <= END, NONE, tokens - (END + 1)).astype(np.uint32)
    whole, ends = corpus.data.tobytes(), corpus.offsets[END + 1 :].tolist()
    return [whole[a:b].decode() for a, b in itertools.pairwise(ends)], tokens


def _of_words(
    documents: Iterable[Sequence[str]], window: int, lowercase: bool
) -> tuple[list[str], npt.NDArray[np.uint32]]:
    ids: defaultdict[str, int] = defaultdict()
    ids.default_factory = ids.__len__  # a new word's number is how many there are
    parts: list[npt.NDArray[np.uint32]] = []
    between = np.full(window, NONE, np.uint32)
    for document in documents:
        words = map(str.lower, document) if lowercase else document
        try:
            found = np.fromiter(map(ids.__getitem__, words), np.uint32)
        except TypeError as error:
            raise DataError(f"a document must be a list of words: {error}.") from None
        parts += [found, between]
    return list(ids), np.concatenate(parts) if parts else between


def _of_ids(
    documents: Iterable[npt.NDArray[Any]], window: int
) -> tuple[list[str], npt.NDArray[np.uint32]]:
    parts: list[npt.NDArray[np.uint32]] = []
    between = np.full(window, NONE, np.uint32)
    for document in documents:
        if document.ndim != 1 or document.dtype.kind not in "iu":
            raise DataError(
                f"ids must be integers in one row, not {document.dtype} of {document.shape}."
            )
        if len(document) and not 0 <= int(document.min()) <= int(document.max()) < NONE:
            raise DataError(f"ids must lie between 0 and {NONE - 1}.")
        parts += [document.astype(np.uint32), between]
    whole = np.concatenate(parts)
    held = np.unique(whole[whole != NONE])
    numbers = np.where(whole == NONE, NONE, np.searchsorted(held, whole)).astype(np.uint32)
    return [str(one) for one in held.tolist()], numbers


def rank_words(
    words: list[str], tokens: npt.NDArray[np.uint32], *, min_count: int, max_vocab: int | None
) -> Ranked:
    """Frequent words by rank; others leave their places empty.

    Raises:
        DataError: no word is frequent enough.
    """
    held = tokens[tokens != NONE]
    counts = np.bincount(held, minlength=len(words))
    kept = np.nonzero(counts >= min_count)[0].tolist()
    order = sorted(kept, key=lambda i: (-counts[i], words[i]))[:max_vocab]
    if not order:
        raise DataError(
            f"none of {len(words)} words occurs {min_count} times; give more text, or a lower "
            "min_count."
        )
    rank = np.full(len(words) + 1, NONE, np.uint32)
    rank[order] = np.arange(len(order))
    numbered = rank[np.minimum(tokens, len(words))]
    return Ranked([words[i] for i in order], counts[order], numbered)
