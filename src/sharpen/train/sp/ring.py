"""Ring attention: queries stay, keys and values go round.

Liu, Zaharia, Abbeel, *Ring attention with blockwise transformers for near-infinite context*, 2023,
arXiv 2310.01889; the zigzag order of tokens is that of Zhu, *ring-flash-attention*, 2024. Rank r of
R holds one block of the sequence. In step i it attends to the block of rank j = (r - i) mod R::

    l' = logaddexp(l, l_j)          o' = o exp(l - l') + o_j exp(l_j - l')

while the next block is already on its way. In the backward pass keys and values go round again, and
their gradients follow one step behind: born at the first visitor, they are home after R - 1 steps,
where the owner adds its own share.

Differs from the paper: blocks that causality, a window or documents hide are not computed (they are
still passed on); gradients of keys and values are summed in float32.

With T tokens a rank, K key heads of D and elements of e bytes a rank sends (R-1) 2 e T K D bytes
forward and (R-1) 2 (e + 4) T K D backward. It holds two blocks of keys and values and a float32
output.

Legend: B batch, T tokens of a rank, N query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from sharpen.train.comm import Axis, Transfer
from sharpen.train.sp.block import (
    InnerAttention,
    LocalAttention,
    attend,
    backward_pieces,
    check_inputs,
    forward_pieces,
)
from sharpen.train.sp.heads import share_heads
from sharpen.train.sp.layout import Layout, block_places, gather_documents
from sharpen.train.sp.pieces import Block, Piece, cut_pieces

__all__ = ["RingAttention", "inner_attention", "merge_block", "ring_attention"]


def ring_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    group: dist.ProcessGroup | Axis | None,
    causal: bool,
    layout: Layout = "contiguous",
    window: int | None = None,
    scale: float | None = None,
    positions: Tensor | None = None,
    doc_ids: Tensor | None = None,
) -> Tensor:
    """Attention over a sequence whose tokens lie on the ranks of a ring.

    Args:
        q: [b, s/R, n_h, d], this rank's block; the same shape on every rank.
        k: [b, s/R, n_kv, d]; any number of heads up to n_h. Query head i uses key head
            i n_kv // n_h.
        v: [b, s/R, n_kv, d].
        group: the ring; an :class:`~sharpen.train.comm.Axis` keeps account of what is sent.
        causal: a token sees no later one.
        layout: how the sequence is cut into blocks. ``zigzag`` gives every rank equal causal work.
        window: tokens seen at most on each side, the own one included; None for all.
        scale: of the scores; default 1 / sqrt(d).
        positions: [b, s/R] or [b, s], position ids; where they do not grow by one a new document
            begins. Only when ``doc_ids`` is not given.
        doc_ids: [b, s/R], or [b, s] in order, which saves a collective: equal within a document.
            A token sees its own document only.

    Returns:
        [b, s/R, n_h, d] in the type of ``q``. First derivatives only.

    Raises:
        ConfigError: shapes, types or options do not fit.
        ExecutionError: another rank failed.

    References:
        Liu et al., 2023, arXiv 2310.01889.
    """
    check_inputs(q, k, v, window)
    ring, alone = Axis.of(group, "ring"), Axis(None)
    documents = gather_documents(doc_ids, positions, q.shape[1], alone, ring, layout)
    inner = inner_attention(
        ring,
        length=q.shape[1] * ring.size,
        rows=q.shape[0],
        layout=layout,
        documents=documents,
        causal=causal,
        window=window,
        scale=scale,
        kv_index=share_heads(q.shape[2], k.shape[2], 1)[0].kv_index(q.device),
    )
    return attend(q, k, v, inner)


def inner_attention(
    ring: Axis,
    *,
    length: int,
    rows: int,
    layout: Layout,
    documents: Tensor | None,
    causal: bool,
    window: int | None,
    scale: float | None,
    kv_index: Tensor | None,
) -> InnerAttention:
    """Attention of this rank's block of the ring, which may be of one rank.

    Args:
        ring: the ranks that hold blocks.
        length: tokens of the whole sequence.
        rows: B.
        layout: of the blocks.
        documents: [B, length] from :func:`~sharpen.train.sp.layout.number_documents`.
        causal: a token sees no later one.
        window: tokens seen at most on each side; None for all.
        scale: of the scores; None for 1 / sqrt(D).
        kv_index: [N] int64, the key head of each query head; None when all serve N / K in order.
    """
    blocks = []
    for rank in range(ring.size):
        places = block_places(length, ring.size, rank, layout)
        blocks.append(Block(places, None if documents is None else documents[:, places]))
    own = blocks[ring.rank]
    pieces = [cut_pieces(own, keys, rows, causal=causal, window=window) for keys in blocks]
    if ring.size == 1:
        return LocalAttention(pieces[0], scale=scale, kv_index=kv_index)
    return RingAttention(ring, pieces, scale=scale, kv_index=kv_index)


class RingAttention:
    """Attention to keys that go round a ring.

    Args:
        ring: two ranks or more.
        pieces: of this rank's queries with the keys of each rank's block.
        scale: of the scores; None for 1 / sqrt(D).
        kv_index: [N] int64, the key head of each query head; None when all serve N / K in order.
    """

    def __init__(
        self,
        ring: Axis,
        pieces: Sequence[Sequence[Piece]],
        *,
        scale: float | None,
        kv_index: Tensor | None,
    ) -> None:
        self.ring, self.pieces, self.scale, self.kv_index = ring, pieces, scale, kv_index

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`~sharpen.train.sp.block.InnerAttention`."""
        ring, exact = self.ring, torch.promote_types(q.dtype, torch.float32)
        out = torch.zeros(q.shape, dtype=exact, device=q.device)
        sums = q.new_full((q.shape[0], q.shape[2], q.shape[1]), float("-inf"), dtype=exact)
        passing = torch.stack((k, v))
        for step in range(ring.size):
            following = ring.rotate(passing) if step + 1 < ring.size else None
            for piece, part, part_sums in forward_pieces(
                q,
                passing[0],
                passing[1],
                pieces=self._visited(step),
                scale=self.scale,
                kv_index=self.kv_index,
            ):
                merge_block(
                    out[piece.rows, piece.queries],
                    sums[piece.rows, :, piece.queries],
                    part,
                    part_sums,
                )
            if following is not None:
                following.wait()
                passing = following.received[0]
        return out.to(q.dtype), sums

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`~sharpen.train.sp.block.InnerAttention`."""
        ring, exact = self.ring, torch.promote_types(q.dtype, torch.float32)
        grad_q = torch.zeros(q.shape, dtype=exact, device=q.device)
        passing = torch.stack((k, v))
        home = torch.zeros(passing.shape, dtype=exact, device=q.device)
        behind: Transfer | None = None
        for step in range(ring.size):
            following = ring.rotate(passing) if step + 1 < ring.size else None
            share = home if step == 0 else torch.zeros_like(home)
            for piece, part_q, part_k, part_v in backward_pieces(
                grad,
                q,
                passing[0],
                passing[1],
                out,
                sums,
                pieces=self._visited(step),
                scale=self.scale,
                kv_index=self.kv_index,
            ):
                grad_q[piece.rows, piece.queries] += part_q
                share[0, piece.rows, piece.keys] += part_k
                share[1, piece.rows, piece.keys] += part_v
            if step:
                if behind is not None:
                    behind.wait()
                    share += behind.received[0]
                behind = ring.rotate(share)
            if following is not None:
                following.wait()
                passing = following.received[0]
        if behind is not None:
            behind.wait()
            home += behind.received[0]
        grad_k, grad_v = home.to(k.dtype)
        return grad_q.to(q.dtype), grad_k, grad_v

    def _visited(self, step: int) -> Sequence[Piece]:
        """Pieces with the keys that are here in a step."""
        return self.pieces[(self.ring.rank - step) % self.ring.size]


def merge_block(out: Tensor, sums: Tensor, part: Tensor, part_sums: Tensor) -> None:
    """Add a block to views of the output [B, T, N, D] and log-sum-exp [B, N, T], in place."""
    merged = torch.logaddexp(sums, part_sums)
    # Nothing seen on either side: -inf - -inf is no number, and its weight is 0.
    old, new = ((x - merged).exp_().nan_to_num_(0.0).mT.unsqueeze(3) for x in (sums, part_sums))
    out.mul_(old).addcmul_(part.to(out.dtype), new)
    sums.copy_(merged)
