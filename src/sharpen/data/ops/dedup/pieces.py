"""Duplicates inside texts: lines, paragraphs and passages that stood in an earlier text.

Passages after Lee et al., "Deduplicating training data makes language models better", ACL 2022,
who cut every substring of at least so many tokens that stands elsewhere, found by a suffix array.
The bytes to cut are the union of all runs of exactly so many tokens that stood before: every longer
repeated substring is made of such runs. Runs are compared by hashes, which need no suffix array and
can be gone through in parts.
"""

from __future__ import annotations

import ctypes
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.data.batch import Batch
from sharpen.data.corpus import Corpus
from sharpen.data.ops.barrier import CorpusMapper
from sharpen.data.ops.base import at_least, operator
from sharpen.data.ops.dedup.repeats import Hashes, cut, hashes_of, seen_before
from sharpen.data.statistics import Texts
from sharpen.data.statistics.hashing import mixed
from sharpen.data.statistics.lines import Pieces
from sharpen.native.build import function, load

__all__ = ["LineDedup", "ParagraphDedup", "SubstringDedup"]

Integers = npt.NDArray[np.int64]
_HASHES = "hashes"
_MASK, _RADIX = (1 << 64) - 1, 0x9E3779B97F4A7C15
_BASIS, _PRIME = 0xCBF29CE484222325, 0x100000001B3


def _lists(before: Integers, hashes: Hashes) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(before), pa.array(hashes))


@dataclass(frozen=True, kw_only=True)
class _PieceDedup(CorpusMapper, ABC):
    """Takes out pieces that stood before, in this text or an earlier one."""

    min_length: int = 20
    """Code points of a piece; shorter ones stay, as brackets and headings do."""

    def __post_init__(self) -> None:
        """Check the length."""
        at_least(self, 1, "min_length")

    @abstractmethod
    def _pieces(self, texts: Texts) -> Pieces:
        """Lines or paragraphs."""

    def keys(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Barrier`."""
        pieces = self._pieces(batch.texts)
        pieces = pieces.where(pieces.lengths >= self.min_length)
        return {_HASHES: _lists(pieces.offsets, pieces.hashes)}

    def plan(self, rows: Corpus) -> Callable[[int, Batch], pa.Array]:
        """See :class:`CorpusMapper`."""
        before, each = hashes_of(rows, _HASHES)
        again = seen_before(each, int(before[-1]))

        def edit(start: int, batch: Batch) -> pa.Array:
            mine = again[before[start] : before[start + len(batch)]]
            texts = batch.texts
            if not mine.any():
                return texts.column
            pieces = self._pieces(texts)
            following = np.append(pieces.starts[1:], texts.offsets[-1])
            last = np.zeros(len(pieces.starts), bool)
            last[pieces.offsets[1:][pieces.count > 0] - 1] = True
            ends = np.where(last, np.repeat(texts.offsets[1:], pieces.count), following)
            long = pieces.lengths >= self.min_length
            return cut(texts, pieces.starts[long][mine], ends[long][mine])

        return edit


@operator("line_dedup")
@dataclass(frozen=True, kw_only=True)
class LineDedup(_PieceDedup):
    """Takes out lines that stood before, in the text or an earlier one."""

    def _pieces(self, texts: Texts) -> Pieces:
        return texts.lines


@operator("paragraph_dedup")
@dataclass(frozen=True, kw_only=True)
class ParagraphDedup(_PieceDedup):
    """Takes out paragraphs, parted by empty lines, that stood before."""

    def _pieces(self, texts: Texts) -> Pieces:
        return texts.paragraphs


@operator("substring_dedup")
@dataclass(frozen=True, kw_only=True)
class SubstringDedup(CorpusMapper):
    """Takes out passages of so many words that stood before, in the text or an earlier one."""

    size: int = 50
    """Words of the shortest passage; words are what spaces, line feeds and tabs part."""

    def __post_init__(self) -> None:
        """Check the size."""
        at_least(self, 2, "size")

    def keys(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Barrier`."""
        words = batch.texts.words
        count = np.maximum(words.count - self.size + 1, 0)
        before = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        found = np.empty(int(before[-1]), np.uint64)
        library = load("shingles")
        if library is not None:
            given = (words.offsets, words.starts, words.ends, batch.texts.data, found)
            offsets, starts, ends, data, out = (array.ctypes.data for array in given)
            _native(library)(len(batch), offsets, starts, ends, data, self.size, out)
        else:
            found[:] = self._twin(batch.texts)
        return {_HASHES: _lists(before, found)}

    def _twin(self, texts: Texts) -> list[int]:
        found, words = [], texts.words
        for i in range(len(texts)):
            hashes = []
            for w in range(int(words.offsets[i]), int(words.offsets[i + 1])):
                h = _BASIS
                for byte in texts.data[words.starts[w] : words.ends[w]].tolist():
                    h = ((h ^ byte) * _PRIME) & _MASK
                hashes.append(mixed(h))
            for j in range(len(hashes) - self.size + 1):
                h = 0
                for one in hashes[j : j + self.size]:
                    h = (h * _RADIX + one) & _MASK
                found.append(mixed(h))
        return found

    def plan(self, rows: Corpus) -> Callable[[int, Batch], pa.Array]:
        """See :class:`CorpusMapper`."""
        before, each = hashes_of(rows, _HASHES)
        again = seen_before(each, int(before[-1]))

        def edit(start: int, batch: Batch) -> pa.Array:
            mine = again[before[start] : before[start + len(batch)]]
            if not mine.any():
                return batch.texts.column
            words = batch.texts.words
            windows = np.maximum(words.count - self.size + 1, 0)
            shift = words.offsets[:-1] - np.concatenate([[0], np.cumsum(windows)[:-1]])
            first = (np.arange(len(mine)) + np.repeat(shift, windows))[mine]
            return cut(batch.texts, words.starts[first], words.ends[first + self.size - 1])

        return edit


@functools.cache
def _native(library: ctypes.CDLL) -> Any:
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    return function(library, "word_windows", whole, *[pointer] * 4, whole, pointer)
