"""Lines and paragraphs of a column of texts, as places in the bytes and hashes.

Lines are those of ``str.splitlines``; paragraphs are what two or more line feeds part, after white
space at both ends of the text is gone. Equal pieces have equal hashes of 64 bits; two different
ones of n in a batch have with probability n^2 / 2^65.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sharpen.data.statistics.characters import characters
from sharpen.data.statistics.counts import Bytes, Integers, texts_of
from sharpen.data.statistics.hashing import hash_text
from sharpen.native.build import function, load

__all__ = ["Pieces", "find_lines", "find_paragraphs", "joined"]

Flags = npt.NDArray[np.bool_]

_PARAGRAPHS = re.compile(r"\n{2,}")


@dataclass(frozen=True, slots=True)
class Pieces:
    """All lines, or all paragraphs, of a column of n texts, in order."""

    offsets: Integers
    """[n + 1] pieces before each text."""

    starts: Integers
    """[pieces] first byte of each, in the column's data."""

    ends: Integers
    """[pieces] the byte after each; the line's end is not in it."""

    body_starts: Integers
    """[pieces] as ``starts``, after white space (``str.isspace``)."""

    body_ends: Integers
    """[pieces] as ``ends``, before white space."""

    lengths: npt.NDArray[np.int32]
    """[pieces] code points."""

    last: npt.NDArray[np.uint32]
    """[pieces] the last code point; 0 of an empty piece."""

    hashes: npt.NDArray[np.uint64]
    """[pieces] of the code points."""

    @property
    def count(self) -> Integers:
        """[n] pieces of each text."""
        return np.diff(self.offsets)

    @property
    def blank(self) -> Flags:
        """[pieces] which are empty or white space."""
        return np.equal(self.body_starts, self.body_ends)

    def total(self, values: npt.NDArray[np.generic]) -> Integers:
        """[n] sums of [pieces] numbers or flags over the pieces of each text."""
        before = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return np.diff(before[self.offsets])

    def where(self, keep: Flags) -> Pieces:
        """Some of the pieces."""
        before = np.concatenate([[0], np.cumsum(keep)])
        return Pieces(
            before[self.offsets],
            self.starts[keep],
            self.ends[keep],
            self.body_starts[keep],
            self.body_ends[keep],
            self.lengths[keep],
            self.last[keep],
            self.hashes[keep],
        )

    def strings(self, data: Bytes) -> pa.Array:
        """[pieces] strings, without white space at either end."""
        before = np.concatenate([[0], np.cumsum(self.body_ends - self.body_starts)])
        copied = np.empty(int(before[-1]), np.uint8)
        library = load("text_lines")
        if library is not None:
            arrays = (self.body_starts, self.body_ends, data, copied)
            _copying(library)(len(self.starts), *(array.ctypes.data for array in arrays))
        else:
            for place, a, b in zip(before, self.body_starts, self.body_ends, strict=False):
                copied[place : place + b - a] = data[a:b]
        return pa.LargeStringArray.from_buffers(
            len(self.starts), pa.py_buffer(before), pa.py_buffer(copied)
        )

    def begins_with(self, data: Bytes, *marks: str) -> Flags:
        """[pieces] which begin with one of some marks, white space left out."""
        return self._match(data, marks, lambda size: self.body_starts)

    def ends_with(self, data: Bytes, *marks: str) -> Flags:
        """[pieces] which end with one of some marks, white space left out."""
        return self._match(data, marks, lambda size: self.body_ends - size)

    def _match(
        self, data: Bytes, marks: tuple[str, ...], place: Callable[[int], Integers]
    ) -> Flags:
        found = np.zeros(len(self.starts), bool)
        for mark in marks:
            wanted = np.frombuffer(mark.encode(), np.uint8)
            at = place(len(wanted))
            rows = np.nonzero(self.body_ends - self.body_starts >= len(wanted))[0]
            for k, byte in enumerate(wanted):
                rows = rows[data[at[rows] + k] == byte]
            found[rows] = True
        return found


def find_lines(offsets: Integers, data: Bytes) -> Pieces:
    """The lines of each text.

    Args:
        offsets: [n + 1] into ``data``.
        data: valid UTF-8.
    """
    return _find(offsets, data, paragraphs=False)


def find_paragraphs(offsets: Integers, data: Bytes) -> Pieces:
    """The paragraphs of each text; see :func:`find_lines`."""
    return _find(offsets, data, paragraphs=True)


def joined(offsets: Integers, pieces: pa.Array, keep: Flags, separator: str = "\n") -> pa.Array:
    """[n] texts of the pieces that are kept.

    Args:
        offsets: [n + 1] pieces before each text.
        pieces: [pieces] large strings.
        keep: [pieces] which to keep.
        separator: what to put between them.
    """
    before = np.concatenate([[0], np.cumsum(keep)])[offsets]
    lists = pa.ListArray.from_arrays(pa.array(before, pa.int32()), pieces.filter(pa.array(keep)))
    return pc.binary_join(lists, pa.scalar(separator, pa.large_string()))


def _find(offsets: Integers, data: Bytes, *, paragraphs: bool) -> Pieces:
    n = len(offsets) - 1
    library = load("text_lines")
    if library is None:
        return _found(offsets, data, paragraphs)
    before = np.zeros(n + 1, np.int64)
    given = (offsets.ctypes.data, data.ctypes.data, characters().bits.ctypes.data)
    call = _native(library)
    call(n, *given, paragraphs, before.ctypes.data, *[None] * 7)
    total = int(before[-1])
    types = (*[np.int64] * 4, np.int32, np.uint32, np.uint64)
    columns: list[Any] = [np.empty(total, kind) for kind in types]
    if total:
        call(n, *given, paragraphs, *(array.ctypes.data for array in (before, *columns)))
    return Pieces(before, *columns)


def _found(offsets: Integers, data: Bytes, paragraphs: bool) -> Pieces:
    counts, rows = [0], []
    for text, (start, _) in zip(
        texts_of(offsets, data), itertools.pairwise(offsets.tolist()), strict=True
    ):
        if paragraphs:
            start += len(text[: len(text) - len(text.lstrip())].encode())
            body = text.strip()
            pieces = _PARAGRAPHS.split(body) if body else []
            gaps = [*map(len, _PARAGRAPHS.findall(body)), 0][: len(pieces)]
        else:
            pieces = text.splitlines()
            whole = text.splitlines(keepends=True)
            gaps = [len(w[len(p) :].encode()) for w, p in zip(whole, pieces, strict=True)]
        for piece, gap in zip(pieces, gaps, strict=True):
            end = start + len(piece.encode())
            left = len(piece.encode()) - len(piece.lstrip().encode())
            right = len(piece.encode()) - len(piece.rstrip().encode())
            inner = (start + left, end - right) if piece.strip() else (end, end)
            last = ord(piece[-1]) if piece else 0
            rows.append((start, end, *inner, len(piece), last, hash_text(piece)))
            start = end + gap
        counts.append(len(rows))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    types = (*[np.int64] * 4, np.int32, np.uint32, np.uint64)
    arrays = [np.array(c, t) for c, t in zip(columns, types, strict=True)]
    return Pieces(np.array(counts, np.int64), *arrays)


@functools.cache
def _copying(library: ctypes.CDLL) -> Callable[..., None]:
    pointers = [ctypes.c_void_p] * 4
    found: Callable[..., None] = function(library, "copy_pieces", ctypes.c_int64, *pointers)
    return found


@functools.cache
def _native(library: ctypes.CDLL) -> Callable[..., None]:
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    found: Callable[..., None] = function(
        library, "text_lines", whole, *[pointer] * 3, whole, *[pointer] * 8
    )
    return found
