"""What a block of queries sees of a block of keys, cut into rectangles.

What a query sees follows from places and document numbers, never from a mask of the whole sequence:
a pair of blocks is cut into :class:`Piece` rectangles that are full, causal, or a band of a sliding
window, and empty ones are left out. A band is cut into tiles of queries, so that it computes at
most a tile's pairs in vain.

Legend: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Block", "Piece", "cut_pieces"]

_TILE = 256


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens of one owner."""

    places: Tensor
    """[T] int64, growing."""
    documents: Tensor | None
    """[B, T] int64, growing along each row; None when every row is one document."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of queries and keys."""

    rows: slice
    """Of the batch."""
    queries: slice
    """Tokens of the queries' block."""
    keys: slice
    """Tokens of the keys' block."""
    is_causal: bool = False
    """Query i sees the keys up to i of a square piece."""
    query_places: Tensor | None = None
    """[queries], for a piece in which a window hides some keys."""
    key_places: Tensor | None = None
    """[keys]"""
    window: tuple[int, int] = (0, 0)
    """Distances that are seen: least, and first that is not."""

    def seen(self) -> Tensor | None:
        """[queries, keys] bool; None when the piece has no mask."""
        if self.query_places is None or self.key_places is None:
            return None
        distance = self.query_places[:, None] - self.key_places
        return (distance >= self.window[0]) & (distance < self.window[1])


def cut_pieces(
    queries: Block, keys: Block, rows: int, *, causal: bool, window: int | None
) -> list[Piece]:
    """Rectangles that hold every pair of a query and a key it sees.

    Args:
        queries: their tokens.
        keys: theirs; the same block, or one that shares no place with it.
        rows: B.
        causal: a query sees no later place.
        window: places a query sees at most on each side, its own included; None for all.

    Returns:
        Pieces in order of the queries; a query lies in at most one.
    """
    size = queries.places.shape[0], keys.places.shape[0]
    if queries.documents is None or keys.documents is None:
        parts = [(slice(0, rows), slice(0, size[0]), slice(0, size[1]))]
    else:
        parts = list(_same_document(queries.documents, keys.documents))
    pieces = []
    for part, at, to in parts:
        for piece in _cut_document(queries.places[at], keys.places[to], causal, window):
            pieces.append(
                Piece(
                    part,
                    slice(at.start + piece.queries.start, at.start + piece.queries.stop),
                    slice(to.start + piece.keys.start, to.start + piece.keys.stop),
                    piece.is_causal,
                    piece.query_places,
                    piece.key_places,
                    piece.window,
                )
            )
    return pieces


def _same_document(queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Row, queries and keys of every document that both blocks hold a part of."""
    for row in range(queries.shape[0]):
        numbers, counts = torch.unique_consecutive(queries[row], return_counts=True)
        first = torch.searchsorted(keys[row], numbers).tolist()
        last = torch.searchsorted(keys[row], numbers, right=True).tolist()
        end = 0
        for count, a, b in zip(counts.tolist(), first, last, strict=True):
            end += count
            if b > a:
                yield slice(row, row + 1), slice(end - count, end), slice(a, b)


def _cut_document(q: Tensor, k: Tensor, causal: bool, window: int | None) -> Iterator[Piece]:
    """Pieces of one document, with queries and keys at growing places ``q`` and ``k``."""
    every = slice(0, 1)
    (q0, q1), (k0, k1) = ((int(x[0]), int(x[-1])) for x in (q, k))
    farthest = q1 - k0 if causal else max(q1 - k0, k1 - q0)
    whole = slice(0, q.shape[0])
    if window is None or farthest < window:
        if not causal:
            yield Piece(every, whole, slice(0, k.shape[0]))
        elif q0 == k0 and q.shape == k.shape and torch.equal(q, k):
            yield Piece(every, whole, slice(0, k.shape[0]), is_causal=True)
        else:
            for at, reach in _reaches(q, k):
                yield Piece(every, at, slice(0, reach))
        return
    distances = (0 if causal else 1 - window), window
    tile = max(_TILE, min(window, 4 * _TILE))
    for run in _runs(q):
        for start in range(run.start, run.stop, tile):
            at = slice(start, min(start + tile, run.stop))
            low, high = int(q[at.start]), int(q[at.stop - 1])
            first = int(torch.searchsorted(k, low - window + 1))
            last = int(torch.searchsorted(k, high + 1 - distances[0]))
            if last <= first:
                continue
            keys = slice(first, last)
            nearest, far = low - int(k[last - 1]), high - int(k[first])
            if nearest >= distances[0] and far < window:
                yield Piece(every, at, keys)
            else:
                yield Piece(every, at, keys, False, q[at], k[keys], distances)


def _reaches(q: Tensor, k: Tensor) -> Iterator[tuple[slice, int]]:
    """Queries that see the same number of keys, all earlier, and that number above 0."""
    reaches = torch.searchsorted(k, q)
    values, counts = torch.unique_consecutive(reaches, return_counts=True)
    end = 0
    for reach, count in zip(values.tolist(), counts.tolist(), strict=True):
        end += count
        if reach:
            yield slice(end - count, end), reach


def _runs(places: Tensor) -> list[slice]:
    """Slices within which places grow by one."""
    ends = (places.diff() != 1).nonzero().squeeze(1).add_(1).tolist()
    return [slice(a, b) for a, b in zip([0, *ends], [*ends, places.shape[0]], strict=True)]
