"""FPDT: Ulysses attention over chunks of the sequence, which may wait elsewhere.

Yao et al., *Training ultra long context language model with fully pipelined distributed
transformer*, 2024, arXiv 2408.16978. A rank cuts its T tokens into u chunks. Chunk j of all ranks
is exchanged against heads on its own, so only a chunk of the P T tokens is here at a time::

    forward     for j: keys and values of chunk j are exchanged and kept
                for i: queries of chunk i are exchanged; for j: (l, o) merges chunk j's
                    l' = logaddexp(l, l_j)      o' = o exp(l - l') + o_j exp(l_j - l')
                    o of chunk i is exchanged back
    backward    for j: for i: dk_j, dv_j += ...;  dq_i += ...      dk_j, dv_j go home
                for i: dq_i goes home

Pairs of chunks that causality, a window or documents hide are left out. With a store (a file, or
the host's memory) a chunk of keys and values is here while it is used, the next on its way.

Differs from the paper: tokens stay where sequence parallelism puts them, in order of ranks, so that
a chunk is u-th parts of all ranks and no token moves; which pairs see each other follows from their
places. Projections and the MLP run on all T tokens (see :mod:`sharpen.models.tiled` for the MLP).

Exchanged: the bytes of :mod:`sharpen.train.sp.ulysses`, in u parts each. Memory beside what the
store holds: 1/u of what Ulysses exchanges at once; the gradient of q in float32.

Legend: B batch, T tokens of a rank, N query heads, K key/value heads, D head size, P ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharpen.core.errors import ConfigError
from sharpen.train.comm import Axis
from sharpen.train.sp.block import (
    Block,
    Piece,
    backward_pieces,
    check_inputs,
    cut_pieces,
    forward_pieces,
)
from sharpen.train.sp.heads import HeadShare, gather_tokens, scatter_tokens, share_heads
from sharpen.train.sp.layout import number_documents, whole_rows
from sharpen.train.sp.ring import merge_block
from sharpen.train.tensor_store import Stored, TensorStore

__all__ = ["ChunkPlan", "attend_in_chunks", "fpdt_attention"]


def fpdt_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    group: dist.ProcessGroup | Axis | None,
    causal: bool,
    chunks: int,
    store: TensorStore | None = None,
    window: int | None = None,
    scale: float | None = None,
    positions: Tensor | None = None,
    doc_ids: Tensor | None = None,
) -> Tensor:
    """Attention over a sequence whose tokens lie in order on the ranks of a group, in chunks.

    Args:
        q: [b, s/P, n_h, d], this rank's tokens; the same shape on every rank.
        k: [b, s/P, n_kv, d]; any number of heads up to n_h. Query head i uses key head
            i n_kv // n_h.
        v: [b, s/P, n_kv, d].
        group: P ranks, or None for a rank alone; an :class:`~sharpen.train.comm.Axis` keeps account
            of what is sent.
        causal: a token sees no later one.
        chunks: u, from 1 to s/P; the same on every rank.
        store: where chunks wait for the backward pass; None keeps them here.
        window: tokens seen at most on each side, the own one included; None for all.
        scale: of the scores; default 1 / sqrt(d).
        positions: [b, s/P] or [b, s], position ids; where they do not grow by one a new document
            begins. Only when ``doc_ids`` is not given.
        doc_ids: [b, s/P], or [b, s] in order, which saves a collective: equal within a document.
            A token sees its own document only.

    Returns:
        [b, s/P, n_h, d] in the type of ``q``. First derivatives only, and once.

    Raises:
        ConfigError: shapes, types or options do not fit.
        ExecutionError: another rank failed.
        StorageError: the store cannot take a chunk.

    References:
        Yao et al., 2024, arXiv 2408.16978.
    """
    check_inputs(q, k, v, window)
    if not 1 <= chunks <= q.shape[1]:
        raise ConfigError(
            f"chunks={chunks} must be from 1 to the {q.shape[1]} tokens that a rank has."
        )
    sp, alone = Axis.of(group, "sp"), Axis(None)
    documents = number_documents(
        *(
            None if x is None else whole_rows(x, q.shape[1], sp, alone, "contiguous", name)
            for x, name in ((doc_ids, "doc_ids"), (positions, "positions"))
        )
    )
    plan = ChunkPlan(q, k, sp, chunks, documents, causal=causal, window=window, scale=scale)
    return attend_in_chunks(q, k, v, plan, store)


def attend_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, plan: ChunkPlan, store: TensorStore | None
) -> Tensor:
    """The attention of :func:`fpdt_attention`, for tensors like those of the plan."""
    out: Tensor = _Fpdt.apply(q, k, v, plan, store)  # type: ignore[no-untyped-call]
    return out


class ChunkPlan:
    """Who computes which heads, and which chunks see each other; the same for layers alike.

    Args:
        q: [B, T, N, D]; its shape and device count.
        k: [B, T, K, D], the same.
        sp: P ranks.
        chunks: u, from 1 to T.
        documents: [B, P T] from :func:`~sharpen.train.sp.layout.number_documents`.
        causal: a token sees no later one.
        window: tokens seen at most on each side; None for all.
        scale: of the scores; None for 1 / sqrt(D).
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        sp: Axis,
        chunks: int,
        documents: Tensor | None,
        *,
        causal: bool,
        window: int | None,
        scale: float | None,
    ) -> None:
        tokens = q.shape[1]
        self.sp, self.scale = sp, scale
        self.shares: Sequence[HeadShare] = share_heads(q.shape[2], k.shape[2], sp.size)
        self.own = self.shares[sp.rank]
        self.kv_index = self.own.kv_index(q.device)
        self.spans: list[slice] = []
        blocks = []
        for part in torch.tensor_split(torch.arange(tokens), chunks):
            self.spans.append(slice(int(part[0]), int(part[-1]) + 1))
            places = torch.cat([part + rank * tokens for rank in range(sp.size)])
            blocks.append(Block(places, None if documents is None else documents[:, places]))
        self._pieces = [
            [cut_pieces(a, b, q.shape[0], causal=causal, window=window) for b in blocks]
            for a in blocks
        ]

    def pieces(self, queries: int, keys: int) -> Sequence[Piece]:
        """Of a pair of chunks, for the heads that are computed here."""
        return self._pieces[queries][keys] if self.own.num_queries else []

    def seen_by(self, queries: int) -> list[int]:
        """Chunks of keys that a chunk of queries sees."""
        return [j for j in range(len(self.spans)) if self.pieces(queries, j)]

    def seeing(self, keys: int) -> list[int]:
        """Chunks of queries that see a chunk of keys."""
        return [i for i in range(len(self.spans)) if self.pieces(i, keys)]

    def gather_queries(self, x: Tensor, span: slice) -> Tensor:
        """[B, P t, own heads, D] of a chunk of [B, T, N, D]."""
        part = x[:, span]
        if self.sp.size == 1:
            return part
        return gather_tokens(self.sp, [[(part, s.queries)] for s in self.shares])

    def gather_keys(self, k: Tensor, v: Tensor, span: slice) -> Tensor:
        """[B, P t, own keys and values, D] of a chunk."""
        parts = k[:, span], v[:, span]
        if self.sp.size == 1:
            return torch.cat(parts, 2)
        return gather_tokens(self.sp, [[(x, s.keys) for x in parts] for s in self.shares])

    def halves(self, both: Tensor) -> tuple[Tensor, ...]:
        """Keys and values, which lie side by side in the heads' dimension."""
        return torch.split(both, [both.shape[2] // 2] * 2, 2)

    def scatter_queries(self, x: Tensor) -> Tensor:
        """[B, t, N, D], the way back."""
        return scatter_tokens(self.sp, [x], [[s.queries] for s in self.shares])[0]

    def scatter_keys(self, k: Tensor, v: Tensor) -> list[Tensor]:
        """Two of [B, t, K, D], the way back; those of heads that several ranks have are summed."""
        return scatter_tokens(self.sp, [k, v], [[s.keys, s.keys] for s in self.shares])


class _Chunks:
    """A tensor of each chunk, here or in a store."""

    def __init__(self, store: TensorStore | None) -> None:
        self._store = store
        self._kept: list[Tensor | Stored] = []

    def add(self, x: Tensor) -> None:
        """The next chunk's; the one before is gone afterwards."""
        if self._store is None:
            self._kept.append(x)
            return
        if self._kept:
            _stored(self._kept[-1]).settle()
        self._kept.append(self._store.put(x))

    def visit(self, numbers: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
        """Some chunks' tensors, one here at a time and the next on its way."""
        order = list(numbers)
        for place, number in enumerate(order):
            kept = self._kept[number]
            if isinstance(kept, Tensor):
                yield number, kept
                continue
            x = kept.get()
            for following in order[place + 1 : place + 2]:
                _stored(self._kept[following]).fetch()
            yield number, x
            del x
            kept.drop()


def _stored(kept: Tensor | Stored) -> Stored:
    assert not isinstance(kept, Tensor)
    return kept


class _Fpdt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: ChunkPlan, store: TensorStore | None
    ) -> Tensor:
        keys, queries, outputs = (_Chunks(store) for _ in range(3))
        for span in plan.spans:
            keys.add(plan.gather_keys(k, v, span))
        exact = torch.promote_types(q.dtype, torch.float32)
        result, log_sums = torch.empty_like(q), []
        for i, span in enumerate(plan.spans):
            chunk = plan.gather_queries(q, span)
            out = torch.zeros(chunk.shape, dtype=exact, device=q.device)
            sums = out.new_full((q.shape[0], chunk.shape[2], chunk.shape[1]), float("-inf"))
            for j, both in keys.visit(plan.seen_by(i)):
                for piece, part, part_sums in forward_pieces(
                    chunk,
                    *plan.halves(both),
                    pieces=plan.pieces(i, j),
                    scale=plan.scale,
                    kv_index=plan.kv_index,
                ):
                    at = piece.rows, piece.queries
                    merge_block(out[at], sums[at[0], :, at[1]], part, part_sums)
            done = out.to(q.dtype)
            result[:, span] = plan.scatter_queries(done)
            queries.add(chunk)
            outputs.add(done)
            log_sums.append(sums)
        ctx.kept, ctx.plan, ctx.store = (keys, queries, outputs, log_sums), plan, store
        ctx.shapes = q.shape, k.shape
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.kept is None:
            raise ConfigError(
                "the chunks of fpdt_attention are gone after one backward pass. Compute the "
                "attention again for another."
            )
        keys, queries, outputs, log_sums = ctx.kept
        ctx.kept = None  # a graph outlives its backward pass; what it kept need not
        plan: ChunkPlan = ctx.plan
        exact = torch.promote_types(grad.dtype, torch.float32)
        grads = _Chunks(ctx.store)
        for span in plan.spans:
            grads.add(plan.gather_queries(grad, span))
        shapes = [s.shape for s in log_sums]  # [B, own heads, P t]
        size = grad.shape[3]
        grad_q = [grad.new_zeros((b, t, n, size), dtype=exact) for b, n, t in shapes]
        grad_k, grad_v = (grad.new_empty(ctx.shapes[1]) for _ in range(2))
        for j, both in keys.visit(range(len(plan.spans))):
            one_k, one_v = plan.halves(both)
            sum_k, sum_v = (torch.zeros_like(x, dtype=exact) for x in (one_k, one_v))
            seeing = plan.seeing(j)
            visits = (chunks.visit(seeing) for chunks in (queries, outputs, grads))
            for (i, chunk), (_, out), (_, one_grad) in zip(*visits, strict=True):
                for piece, part_q, part_k, part_v in backward_pieces(
                    one_grad,
                    chunk,
                    one_k,
                    one_v,
                    out,
                    log_sums[i],
                    pieces=plan.pieces(i, j),
                    scale=plan.scale,
                    kv_index=plan.kv_index,
                ):
                    grad_q[i][piece.rows, piece.queries] += part_q
                    sum_k[piece.rows, piece.keys] += part_k
                    sum_v[piece.rows, piece.keys] += part_v
            home = plan.scatter_keys(sum_k.to(both.dtype), sum_v.to(both.dtype))
            grad_k[:, plan.spans[j]], grad_v[:, plan.spans[j]] = home
        result = grad.new_empty(ctx.shapes[0])
        for span, part in zip(plan.spans, grad_q, strict=True):
            result[:, span] = plan.scatter_queries(part.to(grad.dtype))
        return result, grad_k, grad_v, None, None
