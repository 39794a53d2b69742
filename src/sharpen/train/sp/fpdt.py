"""FPDT: Ulysses attention over chunks of the sequence, which may wait elsewhere.

Yao et al., *Training ultra long context language model with fully pipelined distributed
transformer*, 2024, arXiv 2408.16978. A rank cuts its T tokens into u chunks. Chunk i of all ranks
is projected and exchanged against heads on its own, so only a chunk of the P T tokens is here at a
time::

    forward     for i: q_i, k_i, v_i are projected, exchanged, kept
                       as soon as all that chunk m sees is here, for each j of it:
                           l' = logaddexp(l, l_j)      o' = o exp(l - l') + o_j exp(l_j - l')
                       and o of chunk m is exchanged back
    backward    for j: for i that see it: dk_j, dv_j += ...;  dq_i += ...
                       dk_j, dv_j and every dq_i that is whole go home
                for i: gradients of the projections, which are computed again

Pairs of chunks that causality, a window or documents hide are left out. With a store (a file, or
the host's memory) what is kept of a chunk is here while it is used, the next on its way.

Differs from the paper: tokens stay where sequence parallelism puts them, in order of ranks, so that
a chunk is u-th parts of all ranks and no token moves; which pairs see each other follows from their
places. On several ranks chunks therefore wait for later ones before they attend. The MLP has tiles
of its own (:mod:`sharpen.models.tiled`).

Exchanged: the bytes of :mod:`sharpen.train.sp.ulysses`, in u parts each. Memory beside what the
store holds: 1/u of what Ulysses exchanges at once; the output; in the backward pass the gradient of
q in float32.

Legend: B batch, T tokens of a rank, N query heads, K key/value heads, D head size, P ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from sharpen.core.errors import ConfigError
from sharpen.train.comm import Axis
from sharpen.train.sp.block import (
    backward_pieces,
    check_inputs,
    forward_pieces,
)
from sharpen.train.sp.heads import HeadShare, gather_tokens, scatter_tokens, share_heads
from sharpen.train.sp.layout import gather_documents
from sharpen.train.sp.pieces import Block, Piece, cut_pieces
from sharpen.train.sp.ring import merge_block
from sharpen.train.tensor_store import Stored, TensorStore

__all__ = ["ChunkPlan", "Project", "attend_in_chunks", "fpdt_attention", "project_in_chunks"]

Project = Callable[[Tensor, slice], tuple[Tensor, Tensor, Tensor]]
"""q [B, t, N, D] and k, v [B, t, K, D] of a chunk [B, t, H], and where among T it lies."""


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
        [b, s/P, n_h, d] in the type of ``q``. First derivatives only.

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
    documents = gather_documents(doc_ids, positions, q.shape[1], sp, alone, "contiguous")
    shape = q.shape[0], q.shape[1], q.shape[2], k.shape[2]
    plan = ChunkPlan(
        shape, sp, chunks, documents, causal=causal, window=window, scale=scale, device=q.device
    )
    return attend_in_chunks(q, k, v, plan, store)


def attend_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, plan: ChunkPlan, store: TensorStore | None
) -> Tensor:
    """The attention of :func:`fpdt_attention`, for tensors of the plan's shape."""
    work = _Work(plan, store)
    for parts in zip(*(torch.split(x, plan.sizes, 1) for x in (q, k, v)), strict=True):
        work.enter(*parts)
    return work.leave()


def project_in_chunks(
    x: Tensor, project: Project, plan: ChunkPlan, store: TensorStore | None
) -> Tensor:
    """Attention of q, k and v that exist for one chunk at a time.

    Args:
        x: [B, T, H].
        project: computes a chunk's q, k and v; in the backward pass once more.
        plan: for B and T.
        store: where chunks wait for the backward pass; None keeps them here.

    Returns:
        [B, T, N, D].
    """
    work = _Work(plan, store)
    for part, span in zip(torch.split(x, plan.sizes, 1), plan.spans, strict=True):
        work.enter(*checkpoint(project, part, span, use_reentrant=False))
    return work.leave()


class ChunkPlan:
    """Who computes which heads, and which chunks see each other; the same for layers alike.

    Args:
        shape: B, T, N, K.
        sp: P ranks.
        chunks: u, from 1 to T.
        documents: [B, P T] from :func:`~sharpen.train.sp.layout.number_documents`.
        causal: a token sees no later one.
        window: tokens seen at most on each side; None for all.
        scale: of the scores; None for 1 / sqrt(D).
        device: of the tensors.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        sp: Axis,
        chunks: int,
        documents: Tensor | None,
        *,
        causal: bool,
        window: int | None,
        scale: float | None,
        device: torch.device,
    ) -> None:
        rows, tokens, heads, kv_heads = shape
        self.sp, self.scale = sp, scale
        self.shares: Sequence[HeadShare] = share_heads(heads, kv_heads, sp.size)
        self.own = self.shares[sp.rank]
        self.kv_index = self.own.kv_index(device)
        self.spans: list[slice] = []
        blocks = []
        for part in torch.tensor_split(torch.arange(tokens), chunks):
            self.spans.append(slice(int(part[0]), int(part[-1]) + 1))
            places = torch.cat([part + rank * tokens for rank in range(sp.size)])
            blocks.append(Block(places, None if documents is None else documents[:, places]))
        self.sizes = [span.stop - span.start for span in self.spans]
        self._pieces = [
            [cut_pieces(a, b, rows, causal=causal, window=window) for b in blocks] for a in blocks
        ]

    def pieces(self, queries: int, keys: int) -> Sequence[Piece]:
        """Of a pair of chunks, for the heads that are computed here."""
        return self._pieces[queries][keys] if self.own.num_queries else []

    def seen_by(self, queries: int) -> list[int]:
        """Chunks of keys that a chunk of queries sees; the same on every rank."""
        return [j for j, pieces in enumerate(self._pieces[queries]) if pieces]

    def seeing(self, keys: int) -> list[int]:
        """Chunks of queries that see a chunk of keys."""
        return [i for i in range(len(self.spans)) if self._pieces[i][keys]]

    def gather(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """[B, P t, own heads, D] of a chunk: queries; keys and values side by side."""
        groups = [[(q, s.queries), (k, s.keys), (v, s.keys)] for s in self.shares]
        whole = gather_tokens(self.sp, groups)
        first = self.own.num_queries
        return whole[:, :, :first], whole[:, :, first:]

    def gather_queries(self, x: Tensor) -> Tensor:
        """[B, P t, own heads, D] of a chunk [B, t, N, D]."""
        if self.sp.size == 1:
            return x
        return gather_tokens(self.sp, [[(x, s.queries)] for s in self.shares])

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
    """A tensor of each chunk, by number, here or in a store."""

    def __init__(self, store: TensorStore | None, kept: Iterable[Tensor] = ()) -> None:
        self.store = store
        self._kept: dict[int, Tensor | Stored] = dict(enumerate(kept))
        self._last: Stored | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, number: int, x: Tensor) -> None:
        """A chunk's; the one that was added before is gone afterwards."""
        if self.store is None:
            self._kept[number] = x
            return
        if self._last is not None:
            self._last.settle()
        self._kept[number] = self._last = self.store.put(x)

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
                self._fetch(following)
            yield number, x
            del x
            kept.drop()

    def take(self, number: int) -> Tensor:
        """A chunk's tensor, which is then no longer kept; the one before is on its way."""
        kept = self._kept.pop(number)
        if isinstance(kept, Tensor):
            return kept
        x = kept.get()
        self._fetch(number - 1)
        return x

    def take_all(self) -> list[Tensor]:
        """The tensors of all chunks, in order, where they are here; none are kept then."""
        here = [x for _, x in sorted(self._kept.items()) if isinstance(x, Tensor)]
        self._kept = {n: x for n, x in self._kept.items() if not isinstance(x, Tensor)}
        return here

    def _fetch(self, number: int) -> None:
        kept = self._kept.get(number)
        if kept is not None and not isinstance(kept, Tensor):
            kept.fetch()


class _Work:
    """One pass over all chunks: each enters, and the output leaves when all have."""

    def __init__(self, plan: ChunkPlan, store: TensorStore | None) -> None:
        self.plan, self.store = plan, store
        self.keys, self.queries, self.outputs = (_Chunks(store) for _ in range(3))
        self.grads = [_Chunks(store) for _ in range(3)]
        """Of q, k and v."""
        self.sums: list[Tensor] = []
        """Log-sum-exp [B, own heads, P t] of each chunk that has attended."""
        self.out: Tensor | None = None
        """Outputs of the same, in their places in [B, T, N, D]."""
        self._marks: list[Tensor] = []

    def enter(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """The next chunk: [B, t, N, D] and twice [B, t, K, D]."""
        mark: Tensor = _Enter.apply(q, k, v, self, len(self._marks))  # type: ignore[no-untyped-call]
        self._marks.append(mark)

    def leave(self) -> Tensor:
        """[B, T, N, D]."""
        marks, self._marks = self._marks, []  # a mark knows its node, which knows this
        out: Tensor = _Leave.apply(self, *marks)  # type: ignore[no-untyped-call]
        return out

    def take_in(self, number: int, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Exchange a chunk, and attend with all chunks that have all they see."""
        queries, keys = self.plan.gather(q, k, v)
        self.keys.add(number, keys)
        self.queries.add(number, queries)
        del queries, keys
        if self.out is None:
            self.out = q.new_empty((q.shape[0], sum(self.plan.sizes), *q.shape[2:]))
        while len(self.sums) <= number and self.plan.seen_by(len(self.sums))[-1] <= number:
            self._attend(len(self.sums), self.out)

    def _attend(self, i: int, whole: Tensor) -> None:
        plan = self.plan
        ((_, chunk),) = self.queries.visit([i])
        exact = torch.promote_types(whole.dtype, torch.float32)
        out = torch.zeros(chunk.shape, dtype=exact, device=chunk.device)
        sums = out.new_full((chunk.shape[0], chunk.shape[2], chunk.shape[1]), float("-inf"))
        for j, both in self.keys.visit(plan.seen_by(i)):
            for piece, part, part_sums in forward_pieces(
                chunk,
                *plan.halves(both),
                pieces=plan.pieces(i, j),
                scale=plan.scale,
                kv_index=plan.kv_index,
            ):
                at = piece.rows, piece.queries
                merge_block(out[at], sums[at[0], :, at[1]], part, part_sums)
        done = out.to(whole.dtype)
        whole[:, plan.spans[i]] = plan.scatter_queries(done)
        self.outputs.add(i, done)
        self.sums.append(sums)

    def differentiate(
        self,
        grad: Tensor,
        keys: _Chunks,
        queries: _Chunks,
        outputs: _Chunks,
        sums: Sequence[Tensor],
    ) -> None:
        """Gradients of all chunks from that of the output, [B, T, N, D]."""
        plan, dtype = self.plan, grad.dtype
        exact = torch.promote_types(dtype, torch.float32)
        grads = _Chunks(self.store)
        for number, part in enumerate(torch.split(grad, plan.sizes, 1)):
            grads.add(number, plan.gather_queries(part))
        grad_q: dict[int, Tensor] = {}
        for j, both in keys.visit(range(len(sums))):
            one_k, one_v = plan.halves(both)
            sum_k, sum_v = (torch.zeros_like(x, dtype=exact) for x in (one_k, one_v))
            seeing = plan.seeing(j)
            visits = (chunks.visit(seeing) for chunks in (queries, outputs, grads))
            for (i, chunk), (_, out), (_, one_grad) in zip(*visits, strict=True):
                if i not in grad_q:
                    grad_q[i] = torch.zeros_like(chunk, dtype=exact)
                for piece, part_q, part_k, part_v in backward_pieces(
                    one_grad,
                    chunk,
                    one_k,
                    one_v,
                    out,
                    sums[i],
                    pieces=plan.pieces(i, j),
                    scale=plan.scale,
                    kv_index=plan.kv_index,
                ):
                    grad_q[i][piece.rows, piece.queries] += part_q
                    sum_k[piece.rows, piece.keys] += part_k
                    sum_v[piece.rows, piece.keys] += part_v
            home = plan.scatter_keys(sum_k.to(dtype), sum_v.to(dtype))
            for chunks, part in zip(self.grads[1:], home, strict=True):
                chunks.add(j, part)
            for i in [i for i in sorted(grad_q) if plan.seen_by(i)[-1] == j]:
                self.grads[0].add(i, plan.scatter_queries(grad_q.pop(i).to(dtype)))


class _Enter(torch.autograd.Function):
    """One node a chunk, so that its projections are computed again one after the other."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, work: _Work, number: int) -> Tensor:
        ctx.work, ctx.number = work, number
        work.take_in(number, q, k, v)
        return q.new_empty(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(chunks.take(ctx.number) for chunks in ctx.work.grads), None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, *marks: Tensor) -> Tensor:
        out, work.out = work.out, None
        assert out is not None, "a pass has at least one chunk"
        sums, work.sums = work.sums, []
        chunks = work.keys, work.queries, work.outputs
        # What is here is autograd's to free, or a checkpointed block's to compute again.
        ctx.save_for_backward(*(x for kind in chunks for x in kind.take_all()), *sums)
        ctx.work, ctx.number = work, len(marks)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        work, number = ctx.work, ctx.number
        *here, sums = _groups(ctx.saved_tensors, number)
        chunks = [_Chunks(None, kept) for kept in here] or [work.keys, work.queries, work.outputs]
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            # A graph outlives its backward pass; what waits in the store need not.
            work.keys, work.queries, work.outputs = (_Chunks(work.store) for _ in range(3))
        work.differentiate(grad, *chunks, sums)
        return None, *(grad.new_zeros(()) for _ in range(number))


def _groups(tensors: Sequence[Tensor], size: int) -> Iterator[Sequence[Tensor]]:
    for start in range(0, len(tensors), size):
        yield tensors[start : start + size]
