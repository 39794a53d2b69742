"""Ulysses: ranks exchange tokens against heads around attention.

Jacobs et al., *DeepSpeed Ulysses: system optimizations for enabling training of extreme long
sequence transformer models*, 2023, arXiv 2309.14509. Rank r of P holds T = s / P tokens. Before
attention an all-to-all gives it all s tokens of its heads, after it another gives it all heads of
its tokens; the backward pass goes the same way back::

    q, k, v [b, s/P, all heads, d]  ->  [b, s, own heads, d]  ->  attention  ->  [b, s/P, n_h, d]

Differs from the paper: q, k and v travel in one exchange; heads need not divide by P, and key
heads go only to the ranks that use them (see :mod:`sharpen.train.sp.heads`).

With c_r query and g_r key heads on rank r, G = sum of g_r and elements of e bytes, rank r sends
e b T d [(n_h - c_r) + 2 (G - g_r) + (P-1) c_r] bytes forward and
e b T d [(n_h - c_r) + (P-1) (c_r + 2 g_r)] backward, each in two exchanges.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharpen.train.comm import Axis
from sharpen.train.sp.block import InnerAttention, attend, check_inputs
from sharpen.train.sp.heads import HeadShare, gather_tokens, scatter_tokens, share_heads
from sharpen.train.sp.layout import gather_documents
from sharpen.train.sp.ring import inner_attention

__all__ = ["IdleRanksWarning", "exchange_and_attend", "ulysses_attention"]


class IdleRanksWarning(UserWarning):
    """More ranks exchange heads than there are query heads."""


def ulysses_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    group: dist.ProcessGroup | Axis | None,
    causal: bool,
    window: int | None = None,
    scale: float | None = None,
    positions: Tensor | None = None,
    doc_ids: Tensor | None = None,
) -> Tensor:
    """Attention over a sequence whose tokens lie in order on the ranks of a group.

    Args:
        q: [b, s/P, n_h, d], this rank's tokens; the same shape on every rank.
        k: [b, s/P, n_kv, d]; any number of heads up to n_h. Query head i uses key head
            i n_kv // n_h.
        v: [b, s/P, n_kv, d].
        group: P ranks; an :class:`~sharpen.train.comm.Axis` keeps account of what is sent.
        causal: a token sees no later one.
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

    References:
        Jacobs et al., 2023, arXiv 2309.14509.
    """
    check_inputs(q, k, v, window)
    sp, alone = Axis.of(group, "sp"), Axis(None)
    documents = gather_documents(doc_ids, positions, q.shape[1], sp, alone, "contiguous")
    shares = share_heads(q.shape[2], k.shape[2], sp.size)
    inner = inner_attention(
        alone,
        length=q.shape[1] * sp.size,
        rows=q.shape[0],
        layout="contiguous",
        documents=documents,
        causal=causal,
        window=window,
        scale=scale,
        kv_index=shares[sp.rank].kv_index(q.device),
    )
    return exchange_and_attend(q, k, v, sp, inner)


def exchange_and_attend(q: Tensor, k: Tensor, v: Tensor, sp: Axis, inner: InnerAttention) -> Tensor:
    """Exchange tokens against heads, attend, and exchange back.

    Args:
        q: [b, t, n_h, d], this rank's tokens.
        k: [b, t, n_kv, d].
        v: [b, t, n_kv, d].
        sp: P ranks.
        inner: attention of this rank's heads over P t tokens.

    Returns:
        [b, t, n_h, d].
    """
    if sp.size == 1:
        return attend(q, k, v, inner)
    if sp.size > q.shape[2]:
        warnings.warn(
            f"{sp.size} ranks exchange {q.shape[2]} query heads: {sp.size - q.shape[2]} of them "
            "idle in attention. Use fewer, and a ring over the rest (usp_attention).",
            IdleRanksWarning,
            stacklevel=3,
        )
    out: Tensor = _Exchange.apply(q, k, v, sp, inner)  # type: ignore[no-untyped-call]
    return out


class _Exchange(torch.autograd.Function):
    """One node for the whole, so that all ranks run its collectives in one order."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, sp: Axis, inner: InnerAttention
    ) -> Tensor:
        shares = share_heads(q.shape[2], k.shape[2], sp.size)
        groups = [[(q, s.queries), (k, s.keys), (v, s.keys)] for s in shares]
        gathered = gather_tokens(sp, groups)
        parts = _split(gathered, shares[sp.rank])
        if shares[sp.rank].num_queries:
            out, sums = inner.forward(*parts)
        else:
            # The kernel dies of an empty block.
            out, sums = torch.empty_like(parts[0]), gathered.new_empty(0)
        ctx.save_for_backward(gathered, out, sums)
        ctx.sp, ctx.inner, ctx.shares = sp, inner, shares
        (result,) = scatter_tokens(sp, [out], [[s.queries] for s in shares])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gathered, out, sums = ctx.saved_tensors
        sp: Axis = ctx.sp
        shares: Sequence[HeadShare] = ctx.shares
        parts = _split(gathered, shares[sp.rank])
        grad = gather_tokens(sp, [[(grad, s.queries)] for s in shares])
        grads = parts
        if shares[sp.rank].num_queries:
            grads = ctx.inner.backward(grad, *parts, out, sums)
        heads = [[s.queries, s.keys, s.keys] for s in shares]
        return *scatter_tokens(sp, grads, heads), None, None


def _split(x: Tensor, share: HeadShare) -> tuple[Tensor, Tensor, Tensor]:
    """A rank's q, k and v, which lie side by side in the heads' dimension."""
    q, k, v = torch.split(x, [share.num_queries, share.num_keys, share.num_keys], 2)
    return q, k, v
