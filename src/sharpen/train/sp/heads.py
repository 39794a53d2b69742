"""Which heads each rank of an exchange computes, and the exchange of tokens against heads.

Rank r of P gets c_r = n_h // P query heads in order, one more on the first n_h % P ranks, and the
g_r key/value heads that these use. A key head goes to every rank that uses it and to no other; its
gradient is the sum over them. With more ranks than query heads the last ranks get none; they still
take part in every collective.

Tokens of a head lie side by side after the exchange, [B, heads, P T, D]: the flash kernel reads its
blocks of keys in order then, which saves it more time than the exchange's copies take.

Legend: B batch, T tokens of a rank, N query heads, K key/value heads, D head size, P ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sharpen.train.comm import Axis

__all__ = ["HeadShare", "gather_tokens", "scatter_tokens", "share_heads"]


@dataclass(frozen=True, slots=True)
class HeadShare:
    """Heads of one rank."""

    queries: slice
    """Of the N query heads."""
    keys: slice
    """Of the K key/value heads."""
    of_query: tuple[int, ...]
    """The key head of each query head, counted within ``keys``."""

    @property
    def num_queries(self) -> int:
        """Query heads, c_r."""
        return len(self.of_query)

    @property
    def num_keys(self) -> int:
        """Key heads, g_r."""
        return self.of_query[-1] + 1 if self.of_query else 0

    def kv_index(self, device: torch.device) -> Tensor | None:
        """``of_query`` as int64; None when every key head serves the same number in order."""
        if self.num_keys:
            each, rest = divmod(self.num_queries, self.num_keys)
            if not rest and self.of_query == tuple(i // each for i in range(self.num_queries)):
                return None
        return torch.tensor(self.of_query, dtype=torch.int64, device=device)


@lru_cache(maxsize=256)
def share_heads(num_heads: int, num_kv_heads: int, ranks: int) -> tuple[HeadShare, ...]:
    """Heads of each rank. Query head i uses key head i K // N.

    Args:
        num_heads: N, at least 1.
        num_kv_heads: K, from 1 to N.
        ranks: P.
    """
    shares, first = [], 0
    for rank in range(ranks):
        last = first + num_heads // ranks + (rank < num_heads % ranks)
        used = [i * num_kv_heads // num_heads for i in range(first, last)]
        keys = slice(used[0], used[-1] + 1) if used else slice(0, 0)
        shares.append(HeadShare(slice(first, last), keys, tuple(kv - keys.start for kv in used)))
        first = last
    return tuple(shares)


def gather_tokens(axis: Axis, groups: Sequence[Sequence[tuple[Tensor, slice]]]) -> Tensor:
    """Give every rank its heads of this rank's tokens; get the own heads of all tokens.

    Args:
        axis: P ranks.
        groups: for each rank the tensors [B, T, heads, D] and the heads of each that it gets, laid
            side by side. Every rank gives the same to a rank.

    Returns:
        [B, P T, own heads, D], a view of [B, own heads, P T, D].
    """
    first = groups[0][0][0]
    batch, tokens, _, size = first.shape
    own = [heads.stop - heads.start for _, heads in groups[axis.rank]]
    whole = first.new_empty((batch, sum(own), axis.size * tokens, size))
    sends = [[x[:, :, heads].transpose(1, 2) for x, heads in group] for group in groups]
    receives = [torch.split(part, own, 1) for part in torch.split(whole, tokens, 2)]
    axis.exchange(sends, receives)
    for part, mine in zip(receives[axis.rank], sends[axis.rank], strict=True):
        part.copy_(mine)
    return whole.transpose(1, 2)


def scatter_tokens(
    axis: Axis, tensors: Sequence[Tensor], heads: Sequence[Sequence[slice]]
) -> list[Tensor]:
    """Give every rank its tokens of the own heads; get all heads of the own tokens.

    Args:
        axis: P ranks.
        tensors: [B, P T, own heads, D] each.
        heads: for each rank the heads it has of each tensor. Heads that several ranks have are
            summed.

    Returns:
        Of each tensor [B, T, all heads, D].
    """
    batch, length, _, size = tensors[0].shape
    shape = (batch, length // axis.size)
    sends = [list(parts) for parts in zip(*(x.chunk(axis.size, 1) for x in tensors), strict=True)]
    results: list[Tensor] = []
    receives: list[list[Tensor]] = [[] for _ in heads]
    shared: list[tuple[Tensor, Tensor]] = []
    for i, x in enumerate(tensors):
        slices = [row[i] for row in heads]
        whole = x.new_empty((*shape, max(s.stop for s in slices), size))
        results.append(whole)
        end = 0
        for at, row in zip(slices, receives, strict=True):
            part = whole[:, :, at]
            if at.start < end:  # a rank before has the first head too
                whole[:, :, end : at.stop].zero_()
                fresh = torch.empty_like(part)
                shared.append((part, fresh))
                part = fresh
            row.append(part)
            end = max(end, at.stop)
    axis.exchange(
        [[x.transpose(1, 2) for x in row] for row in sends],
        [[x.transpose(1, 2) for x in row] for row in receives],
    )
    for part, mine in zip(receives[axis.rank], sends[axis.rank], strict=True):
        part.copy_(mine)
    for part, fresh in shared:
        part += fresh
    return results
