"""Attention of a block of queries to a block of keys, with its log-sum-exp.

For queries i and the keys j that they see::

    l_i = log sum_j exp(scale q_i k_j)         o_i = sum_j exp(scale q_i k_j - l_i) v_j

Blocks of keys merge by their log-sum-exp (Milakov & Gimelshein, 2018, arXiv 1805.02867)::

    l = logaddexp(l1, l2)                      o = o1 exp(l1 - l) + o2 exp(l2 - l)

and the gradients of a block need only the merged l and o (Dao et al., FlashAttention, 2022, arXiv
2205.14135)::

    P_ij = exp(scale q_i k_j - l_i)            D_i = do_i . o_i
    dv_j = sum_i P_ij do_i                     dS_ij = P_ij (do_i . v_j - D_i) scale
    dq_i = sum_j dS_ij k_j                     dk_j = sum_i dS_ij q_i

A pair of blocks is computed by the rectangles of :mod:`sharpen.train.sp.pieces`: on CPUs by torch's
flash kernel, elsewhere by plain products.

Legend: B batch, T tokens, N query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharpen.core.errors import ConfigError
from sharpen.train.sp.pieces import Piece

__all__ = [
    "InnerAttention",
    "LocalAttention",
    "attend",
    "backward_pieces",
    "check_inputs",
    "forward_pieces",
    "math_backward",
    "math_forward",
]

_SHORT = 512  # torch's bfloat16 kernel is slower than its float32 one below


class InnerAttention(Protocol):
    """Attention of the heads at hand, over tokens that may lie on several ranks."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Output [B, T, N, D] and log-sum-exp [B, N, T] from [B, T, heads, D]."""

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v."""


def check_inputs(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> None:
    """Check the shapes and types of a rank's queries, keys and values.

    Raises:
        ConfigError: they do not fit together; the message says which.
    """
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or q.shape[:2] != k.shape[:2]:
        raise ConfigError(
            f"{shapes} do not fit: give q [b, t, query heads, d] and k, v [b, t, key heads, d] "
            "with the same rows and tokens on every rank."
        )
    if q.shape[3] != k.shape[3] or not 1 <= k.shape[2] <= q.shape[2]:
        raise ConfigError(
            f"{shapes} do not fit: the head size must be the same, and there must be at least one "
            "key head and no more key heads than query heads."
        )
    if not q.dtype == k.dtype == v.dtype or not q.dtype.is_floating_point:
        raise ConfigError(
            f"q is {q.dtype}, k {k.dtype} and v {v.dtype}; give all three one float type."
        )
    if not q.shape[0] or not q.shape[1]:
        raise ConfigError(f"{shapes} hold no tokens. Every rank needs at least one.")
    if window is not None and window < 1:
        raise ConfigError(f"window={window} must be at least 1 token, or None for no window.")


def forward_pieces(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    pieces: Sequence[Piece],
    scale: float | None,
    kv_index: Tensor | None,
) -> Iterator[tuple[Piece, Tensor, Tensor]]:
    """Output [B', T', N, D] and log-sum-exp [B', N, T'] of each piece.

    Args:
        q: [B, T, N, D].
        k: [B, S, K, D].
        v: [B, S, K, D].
        pieces: of these blocks.
        scale: of the scores; None for 1 / sqrt(D).
        kv_index: [N] int64, the key head of each query head; None when all serve N / K in order.
    """
    kernel = _cpu_forward if q.device.type == "cpu" else math_forward
    k, v = _expand(k, kv_index), _expand(v, kv_index)
    for piece in pieces:
        one_q, one_k, one_v = _parts(piece, (q,), (k, v))
        seen = piece.seen()
        out, sums = kernel(one_q, one_k, one_v, piece.is_causal, seen, scale)
        if seen is not None:
            # The kernel reports 0 for a query that sees nothing.
            sums.masked_fill_(~seen.any(1).to(sums.device), float("-inf"))
        yield piece, out.transpose(1, 2), sums


def backward_pieces(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    sums: Tensor,
    *,
    pieces: Sequence[Piece],
    scale: float | None,
    kv_index: Tensor | None,
) -> Iterator[tuple[Piece, Tensor, Tensor, Tensor]]:
    """Gradients of the queries [B', T', N, D], keys and values [B', S', K, D] of each piece.

    Args:
        grad: of the output, [B, T, N, D].
        q: [B, T, N, D].
        k: [B, S, K, D].
        v: [B, S, K, D].
        out: [B, T, N, D], merged over all blocks.
        sums: log-sum-exp [B, N, T], merged over all blocks.
        pieces: of these blocks.
        scale: of the scores.
        kv_index: as for :func:`forward_pieces`.
    """
    kernel = _cpu_backward if q.device.type == "cpu" else math_backward
    heads = k.shape[2]
    k, v = _expand(k, kv_index), _expand(v, kv_index)
    for piece in pieces:
        one_grad, one_q, one_out, one_k, one_v = _parts(piece, (grad, q, out), (k, v))
        found = kernel(
            one_grad,
            one_q,
            one_out,
            one_k,
            one_v,
            sums[piece.rows, :, piece.queries],
            piece.is_causal,
            piece.seen(),
            scale,
        )
        grad_q, grad_k, grad_v = (x.transpose(1, 2) for x in found)
        if kv_index is not None:
            grad_k, grad_v = (_gather(x, kv_index, heads) for x in (grad_k, grad_v))
        yield piece, grad_q, grad_k, grad_v


def _expand(x: Tensor, kv_index: Tensor | None) -> Tensor:
    return x if kv_index is None else x.index_select(2, kv_index)


def _gather(x: Tensor, kv_index: Tensor, heads: int) -> Tensor:
    """Sum the gradients of the copies of a key head."""
    total = x.new_zeros((*x.shape[:2], heads, x.shape[3]))
    return total.index_add_(2, kv_index, x)


def _parts(piece: Piece, *sides: tuple[Tensor, ...]) -> list[Tensor]:
    """The piece's [B', heads, T', D] of tensors on the queries' side and on the keys' side."""
    slices = piece.queries, piece.keys
    return [
        x[piece.rows, at].transpose(1, 2)
        for side, at in zip(sides, slices, strict=True)
        for x in side
    ]


def _kernel_inputs(
    tensors: Sequence[Tensor], seen: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    """In the type the flash kernel is fast in, with the mask to add."""
    dtype = tensors[0].dtype
    if dtype != torch.float64 and (dtype == torch.float16 or tensors[-1].shape[2] <= _SHORT):
        dtype = torch.float32
    mask = None
    if seen is not None:
        mask = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, float("-inf"))
    return [x.to(dtype) for x in tensors], mask


def _cpu_forward(
    q: Tensor, k: Tensor, v: Tensor, is_causal: bool, seen: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    inputs, mask = _kernel_inputs((q, k, v), seen)
    out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *inputs, 0.0, is_causal, attn_mask=mask, scale=scale
    )
    return out.to(q.dtype), sums


def _cpu_backward(
    grad: Tensor,
    q: Tensor,
    out: Tensor,
    k: Tensor,
    v: Tensor,
    sums: Tensor,
    is_causal: bool,
    seen: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    (grad, q, out, k, v), mask = _kernel_inputs((grad, q, out, k, v), seen)
    found: tuple[Tensor, Tensor, Tensor] = (
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, sums, 0.0, is_causal, attn_mask=mask, scale=scale
        )
    )
    return found


def _scores(
    q: Tensor, k: Tensor, is_causal: bool, seen: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Scaled scores [B, N, T, S], -inf where hidden, and keys repeated to N heads, in float32."""
    exact = torch.promote_types(q.dtype, torch.float32)
    k = k.to(exact).repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q.to(exact) @ k.transpose(2, 3) * scale
    if is_causal:
        seen = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).tril_()
    if seen is not None:
        scores = scores.masked_fill(~seen.to(scores.device), float("-inf"))
    return scores, k


def math_forward(
    q: Tensor, k: Tensor, v: Tensor, is_causal: bool, seen: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of a piece by plain products.

    Args:
        q: [B, N, T, D].
        k: [B, K, S, D]; N is a multiple of K.
        v: [B, K, S, D].
        is_causal: query i sees keys up to i.
        seen: [T, S] bool, what is seen; or None.
        scale: of the scores; None for 1 / sqrt(D).

    Returns:
        [B, N, T, D] in the type of ``q`` and [B, N, T], at least float32; 0 and -inf for a query
        that sees nothing.
    """
    scores, k = _scores(q, k, is_causal, seen, scale or q.shape[3] ** -0.5)
    sums = scores.logsumexp(3)
    weights = (scores - sums.unsqueeze(3)).exp().nan_to_num(0.0)
    v = v.to(k.dtype).repeat_interleave(q.shape[1] // v.shape[1], 1)
    return (weights @ v).to(q.dtype), sums


def math_backward(
    grad: Tensor,
    q: Tensor,
    out: Tensor,
    k: Tensor,
    v: Tensor,
    sums: Tensor,
    is_causal: bool,
    seen: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v by plain products; arguments as for :func:`math_forward`.

    ``out`` and ``sums`` may be merged over more keys than ``k`` holds.
    """
    factor = scale or q.shape[3] ** -0.5
    kv_heads, dtype = k.shape[1], q.dtype
    scores, k = _scores(q, k, is_causal, seen, factor)
    weights = (scores - sums.unsqueeze(3)).exp()
    grad, q = grad.to(k.dtype), q.to(k.dtype)
    v = v.to(k.dtype).repeat_interleave(q.shape[1] // v.shape[1], 1)
    delta = (grad * out).sum(3, keepdim=True)
    inner = weights * (grad @ v.transpose(2, 3) - delta) * factor
    grad_k, grad_v = inner.transpose(2, 3) @ q, weights.transpose(2, 3) @ grad
    grouped = (q.shape[0], kv_heads, -1, *k.shape[2:])
    grad_k, grad_v = (x.view(grouped).sum(2).to(dtype) for x in (grad_k, grad_v))
    return (inner @ k).to(dtype), grad_k, grad_v


class LocalAttention:
    """Attention to keys that are all here.

    Args:
        pieces: of the one block; every query lies in one.
        scale: of the scores; None for 1 / sqrt(D).
        kv_index: [N] int64, the key head of each query head; None when all serve N / K in order.
    """

    def __init__(
        self, pieces: Sequence[Piece], *, scale: float | None, kv_index: Tensor | None
    ) -> None:
        self.pieces, self.scale, self.kv_index = pieces, scale, kv_index

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`InnerAttention`."""
        found = forward_pieces(
            q, k, v, pieces=self.pieces, scale=self.scale, kv_index=self.kv_index
        )
        if len(self.pieces) == 1:
            _, out, sums = next(found)
            return out, sums
        exact = torch.promote_types(q.dtype, torch.float32)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        sums = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=exact)
        for piece, part, part_sums in found:
            out[piece.rows, piece.queries] = part
            sums[piece.rows, :, piece.queries] = part_sums
        return out, sums

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`InnerAttention`."""
        found = backward_pieces(
            grad, q, k, v, out, sums, pieces=self.pieces, scale=self.scale, kv_index=self.kv_index
        )
        if len(self.pieces) == 1:
            _, grad_q, grad_k, grad_v = next(found)
            return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype)
        grad_q = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        exact = torch.promote_types(q.dtype, torch.float32)
        grad_k, grad_v = (k.new_zeros(k.shape, dtype=exact) for _ in range(2))
        for piece, part_q, part_k, part_v in found:
            grad_q[piece.rows, piece.queries] = part_q
            grad_k[piece.rows, piece.keys] += part_k
            grad_v[piece.rows, piece.keys] += part_v
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, inner: InnerAttention) -> Tensor:
    """Attention [B, T, N, D] with the gradients of ``inner``; first derivatives only."""
    out: Tensor = _Attend.apply(q, k, v, inner)  # type: ignore[no-untyped-call]
    return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, inner: InnerAttention) -> Tensor:
        out, sums = inner.forward(q, k, v)
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.inner = inner
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums = ctx.saved_tensors
        return *ctx.inner.backward(grad, q, k, v, out, sums), None
