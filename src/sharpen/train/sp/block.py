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

What a query sees follows from places and document numbers, never from a mask of the whole sequence:
a pair of blocks is cut into :class:`Piece` rectangles that are full, causal, or a band of a sliding
window, and empty ones are left out. On CPUs torch's flash kernel computes a piece; elsewhere plain
products do.

Legend: B batch, T tokens, N query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharpen.core.errors import ConfigError

__all__ = [
    "Block",
    "InnerAttention",
    "LocalAttention",
    "Piece",
    "attend",
    "backward_pieces",
    "check_inputs",
    "cut_pieces",
    "forward_pieces",
    "math_backward",
    "math_forward",
]

_TILE = 256
_SHORT = 512  # torch's bfloat16 kernel is slower than its float32 one below


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
