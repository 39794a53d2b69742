"""Which heads each rank of an exchange computes, and the exchange of tokens against heads.

Rank r of P gets c_r = n_h // P query heads in order, one more on the first n_h % P ranks, and the
g_r key/value heads that these use. A key head goes to every rank that uses it and to no other; its
gradient is the sum over them. With more ranks than query heads the last ranks get none; they still
take part in every collective.

Parts travel as [tokens, B, heads, D], so that what arrives from P ranks is the whole sequence,
[P T, B, heads, D], without a copy.

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


def gather_tokens(axis: Axis, *groups: Sequence[tuple[Tensor, slice]]) -> Tensor:
    """Give every rank its heads of this rank's tokens; get the own heads of all tokens.

    Args:
        axis: P ranks.
        groups: for each rank the tensors [B, T, heads, D] and the heads of each that it gets, laid
            side by side. Every rank gives the same to a rank.

    Returns:
        [B, P T, own heads, D], a view of [P T, B, own heads, D].
    """
    batch, tokens, _, size = groups[0][0][0].shape
    counts = [sum(heads.stop - heads.start for _, heads in group) for group in groups]
    unit = tokens * batch * size
    first = groups[0][0][0]
    send = first.new_empty(sum(counts) * unit)
    for part, count, group in zip(
        torch.split(send, [n * unit for n in counts]), counts, groups, strict=True
    ):
        _lay_side_by_side(part.view(tokens, batch, count, size), group)
    own = counts[axis.rank]
    received = axis.all_to_all(send, [n * unit for n in counts], [own * unit] * axis.size)
    return received.view(axis.size * tokens, batch, own, size).transpose(0, 1)


def _lay_side_by_side(part: Tensor, group: Sequence[tuple[Tensor, slice]]) -> None:
    """Fill [T, B, heads, D] from the heads of tensors [B, T, heads, D]."""
    at = 0
    for tensor, heads in group:
        count = heads.stop - heads.start
        part[:, :, at : at + count].copy_(tensor[:, :, heads].transpose(0, 1))
        at += count


def scatter_tokens(axis: Axis, tensors: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """Give every rank its tokens of the own heads; get all heads of the own tokens.

    Args:
        axis: P ranks.
        tensors: [B, P T, heads, D] each; laid side by side.
        counts: heads that each rank gives.

    Returns:
        From each rank [B, T, its count, D], views.
    """
    batch, length, _, size = tensors[0].shape
    tokens, own = length // axis.size, counts[axis.rank]
    if len(tensors) == 1:
        send = tensors[0].transpose(0, 1).contiguous()
    else:
        send = tensors[0].new_empty((length, batch, own, size))
        _lay_side_by_side(send, [(x, slice(0, x.shape[2])) for x in tensors])
    unit = tokens * batch * size
    receive_counts = [n * unit for n in counts]
    received = axis.all_to_all(send, [own * unit] * axis.size, receive_counts)
    return [
        part.view(tokens, batch, count, size).transpose(0, 1)
        for part, count in zip(torch.split(received, receive_counts), counts, strict=True)
    ]
