"""Attention that stays within documents, and the masks of padding and sliding windows.

Packed rows hold several documents one after the other. Each is attended on its own by torch's
flash kernel, whose backward pass needs q, k, v, the output and the log-sum-exp of every query. On
CPUs one operation goes over all documents and keeps these five for the whole batch: five tensors of
the same size at every step, whatever the documents' lengths, so that memory does not fragment.

Torch's bfloat16 kernel takes twice as long as its float32 one on short documents: those are
computed in float32, a document at a time, from bfloat16 tensors.

Legend: B batch, T tokens, N query heads, K key/value heads, D head size, S keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = [
    "SequenceContext",
    "ShardedAttention",
    "attention_mask",
    "document_attention",
    "document_lengths",
]

_SHORT = 512


class ShardedAttention(Protocol):
    """Causal attention of a rank's tokens to tokens on other ranks."""

    @property
    def chunked(self) -> bool:
        """Whether :meth:`projected` is to be used."""

    @property
    def stored(self) -> bool:
        """Whether what attention needs in the backward pass waits elsewhere."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None) -> Tensor:
        """[B, T, N, D] from [B, T, heads, D]; ``window`` as for :func:`document_attention`."""

    def projected(
        self,
        x: Tensor,
        project: Callable[[Tensor, slice], tuple[Tensor, Tensor, Tensor]],
        heads: tuple[int, int],
        *,
        window: int | None = None,
    ) -> Tensor:
        """[B, T, N, D] from [B, T, H], of which ``project`` takes a chunk and where it lies."""


class SequenceContext(Protocol):
    """What a model must know when its rows are sharded over ranks."""

    @property
    def positions(self) -> Tensor:
        """[B, T] int64 positions of this rank's tokens."""

    @property
    def longest(self) -> int:
        """Largest position on any rank, plus one."""

    def attention(self, shape: Sequence[int]) -> ShardedAttention:
        """Attention for the batch at hand, of which this rank has [B, T] tokens."""


def document_lengths(document_ids: Tensor) -> list[int] | None:
    """Lengths of runs of equal ids, row by row; None when every row is one run."""
    rows, width = document_ids.shape
    flat = document_ids.reshape(-1)
    border = torch.ones_like(flat, dtype=torch.bool)
    border[1:] = flat[1:] != flat[:-1]
    border[::width] = True
    starts = border.nonzero().squeeze(1).tolist()
    if len(starts) == rows:
        return None
    return [b - a for a, b in zip(starts, [*starts[1:], flat.numel()], strict=True)]


def document_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], window: int | None = None
) -> Tensor:
    """Causal attention of each document on its own.

    Args:
        q: [B, T, N, D], float.
        k: [B, T, K, D]; N is a multiple of K.
        v: [B, T, K, D].
        lengths: of the documents in the batch laid row after row; their sum is B T.
        window: positions a token sees at most, its own included; None for all.

    Returns:
        [B, T, N, D] in the type of ``q``. First derivatives only on CPUs.
    """
    rows = [x.reshape(-1, *x.shape[2:]) for x in (q, k, v)]
    if q.device.type == "cpu":
        out: Tensor = _DocumentAttention.apply(*rows, tuple(lengths), window)  # type: ignore[no-untyped-call]
        return out.view(q.shape)
    parts = []
    for span in _spans(lengths):
        one_q, one_k, one_v = (_heads_first(x[span]) for x in rows)
        mask = _band(rows[0][span], window)
        y = F.scaled_dot_product_attention(
            one_q, one_k, one_v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
        parts.append(y[0].transpose(0, 1))
    return torch.cat(parts).view(q.shape)


class _DocumentAttention(torch.autograd.Function):
    """Tensors are [B T, heads, D]; the log-sum-exp is [B T, N]."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], window: int | None
    ) -> Tensor:
        exact = torch.promote_types(q.dtype, torch.float32)
        out, sums = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=exact)
        for span in _spans(lengths):
            pieces = _pieces(span, q, k, v)
            mask = _band(pieces[0], window)
            y, sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *(_heads_first(x) for x in pieces), 0.0, mask is None, attn_mask=mask
            )
            out[span] = y[0].transpose(0, 1)
            sums[span] = sum_exp[0].T
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.lengths, ctx.window = lengths, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in (q, k, v)]
        for span in _spans(ctx.lengths):
            pieces = _pieces(span, grad, q, k, v, out)
            mask = _band(pieces[1], ctx.window)
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *(_heads_first(x) for x in pieces),
                sums[span].T[None],
                0.0,
                mask is None,
                attn_mask=mask,
            )
            for whole, one in zip(grads, found, strict=True):
                whole[span] = one[0].transpose(0, 1)
        return (*grads, None, None)


def _spans(lengths: Sequence[int]) -> Iterator[slice]:
    end = 0
    for length in lengths:
        yield slice(end, end := end + length)


def _pieces(span: slice, *rows: Tensor) -> list[Tensor]:
    """One document of each, in the type its attention runs in."""
    low = rows[0].dtype == torch.bfloat16 and span.stop - span.start <= _SHORT
    return [x[span].float() if low else x[span] for x in rows]


def _heads_first(x: Tensor) -> Tensor:
    """[T, heads, D] -> [1, heads, T, D]."""
    return x.transpose(0, 1)[None]


def _band(q: Tensor, window: int | None) -> Tensor | None:
    """[T, T] to add to the scores of a document [T, N, D] longer than the window, else None."""
    length = q.shape[0]
    if window is None or length <= window:
        return None
    seen = attention_mask(0, length, None, window, q.device)[0, 0]
    return torch.zeros_like(seen, dtype=q.dtype).masked_fill_(~seen, float("-inf"))


def attention_mask(
    past: int, num_tokens: int, starts: Tensor | None, window: int | None, device: torch.device
) -> Tensor:
    """Which of S = past + T keys each of the last T positions sees.

    Args:
        past: positions before them.
        num_tokens: T.
        starts: [B] int64, padding positions on the left of each row; None for none.
        window: positions seen at most, its own included; None for all.
        device: where the mask lies.

    Returns:
        [B or 1, 1, T, S] bool.
    """
    query = torch.arange(past, past + num_tokens, device=device)[:, None]
    key = torch.arange(past + num_tokens, device=device)[None]
    seen = key <= query
    if window is not None:
        seen &= query - key < window
    if starts is None:
        return seen[None, None]
    # A padding position sees itself, so that no row of the softmax is empty.
    return ((key >= starts[:, None, None]) & seen | (key == query))[:, None]
