"""Attention that stays within documents, and the masks of padding and sliding windows.

Packed rows hold several documents one after the other. Each is attended on its own by torch's
flash kernel, whose backward pass needs q, k, v, the output and the log-sum-exp of every query. On
CPUs one operation goes over all documents and keeps these five for the whole batch: five tensors of
the same size at every step, whatever the documents' lengths, so that memory does not fragment.

A document may go on from another one: then its tokens see all of that one too, and how it goes on
in several ways is computed without computing it several times. Its keys and values lie once, and
the gradients of all that go on from it add up.

Torch's bfloat16 kernel takes twice as long as its float32 one on short documents: those are
computed in float32, a document at a time, from bfloat16 tensors.

On CUDA devices torch's flash kernel for packed documents computes all at once, where types are of
16 bits; others are computed a document at a time.

Legend: B batch, T tokens, N query heads, K key/value heads, D head size, S keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from inspect import signature
from itertools import accumulate
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = [
    "Document",
    "Documents",
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


@dataclass(frozen=True, slots=True)
class Document:
    """Where a document's tokens lie, and those of the one that it goes on from."""

    own: slice
    before: slice | None = None

    @property
    def past(self) -> int:
        """Tokens before its own."""
        return 0 if self.before is None else int(self.before.stop - self.before.start)

    @property
    def length(self) -> int:
        """Its own tokens."""
        return int(self.own.stop - self.own.start)

    def seen(self, x: Tensor) -> Tensor:
        """[past + length, ...] rows of [B T, ...]."""
        return x[self.own] if self.before is None else torch.cat((x[self.before], x[self.own]))


@dataclass(frozen=True, slots=True)
class Packed:
    """What a kernel over packed documents is told; keys of one document lie together."""

    query_offsets: Tensor
    """[documents + 1] int32."""
    key_offsets: Tensor
    """[documents + 1] int32."""
    most_queries: int
    """Of a document."""
    most_keys: int
    """Of a document."""
    places: Tensor | None
    """[keys] int64: tokens whose keys these are; None where each is seen by one document."""


class Documents:
    """Documents laid end to end, and the masks that they need.

    Args:
        lengths: of the documents in the batch laid row after row; their sum is B T.
        follows: for each document the number of an earlier one that it goes on from, and which
            goes on from none itself; None where it begins. None where all do.
    """

    def __init__(self, lengths: Sequence[int], follows: Sequence[int | None] | None = None) -> None:
        spans = [
            slice(end - length, end)
            for length, end in zip(lengths, accumulate(lengths), strict=True)
        ]
        before = follows or [None] * len(spans)
        self.all = [
            Document(span, None if at is None else spans[at])
            for span, at in zip(spans, before, strict=True)
        ]
        self._longest: dict[int, int] = {}  # of the documents with so many tokens before them
        for one in self.all:
            self._longest[one.past] = max(self._longest.get(one.past, 0), one.length)
        self._masks: dict[tuple[int, int | None, torch.dtype], Tensor] = {}
        self._packed: Packed | None = None

    def packed(self, device: torch.device) -> Packed:
        """Where each document's queries and keys lie, for a kernel over all of them."""
        if self._packed is None:
            own = [one.length for one in self.all]
            seen = [one.past + one.length for one in self.all]
            places = None
            if own != seen:
                rows = torch.arange(sum(own))
                places = torch.cat([one.seen(rows) for one in self.all]).to(device)
            offsets = [
                torch.tensor([0, *accumulate(n)], dtype=torch.int32, device=device)
                for n in (own, seen)
            ]
            self._packed = Packed(offsets[0], offsets[1], max(own), max(seen), places)
        return self._packed

    def mask(self, one: Document, window: int | None, like: Tensor) -> Tensor | None:
        """[length, past + length] to add to scores; None where causal attention is all."""
        past, length = one.past, one.length
        if not past and (window is None or length <= window):
            return None
        found = self._masks.get((past, window, like.dtype))
        if found is None:
            seen = attention_mask(past, self._longest[past], None, window, like.device)[0, 0]
            found = torch.zeros_like(seen, dtype=like.dtype).masked_fill_(~seen, float("-inf"))
            self._masks[past, window, like.dtype] = found
        return found[:length, : past + length]


def document_attention(
    q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int | None = None
) -> Tensor:
    """Causal attention of each document to itself and to what it goes on from.

    Args:
        q: [B, T, N, D], float.
        k: [B, T, K, D]; N is a multiple of K.
        v: [B, T, K, D].
        documents: of the batch.
        window: positions a token sees at most, its own included; None for all.

    Returns:
        [B, T, N, D] in the type of ``q``. First derivatives only on CPUs.
    """
    rows = [x.reshape(-1, *x.shape[2:]) for x in (q, k, v)]
    if q.device.type == "cpu":
        out: Tensor = _DocumentAttention.apply(*rows, documents, window)  # type: ignore[no-untyped-call]
        return out.view(q.shape)
    if _has_packed_kernel(q):
        return _packed_attention(rows, documents.packed(q.device), window).view(q.shape)
    parts = []
    for one in documents.all:
        one_q = _heads_first(rows[0][one.own])
        one_k, one_v = (_heads_first(one.seen(x)) for x in rows[1:])
        mask = documents.mask(one, window, rows[0])
        y = F.scaled_dot_product_attention(
            one_q, one_k, one_v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
        parts.append(y[0].transpose(0, 1))
    return torch.cat(parts).view(q.shape)


def _has_packed_kernel(q: Tensor) -> bool:
    size = q.shape[-1]
    return (
        q.dtype in (torch.bfloat16, torch.float16)
        and size % 8 == 0
        and size <= 256
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
    )


def _packed_attention(rows: Sequence[Tensor], packed: Packed, window: int | None) -> Tensor:
    """[B T, N, D] of all documents at once; the last query of each sees its last key."""
    q, k, v = rows
    if packed.places is not None:
        k, v = k.index_select(0, packed.places), v.index_select(0, packed.places)
    return _packed_kernel()(
        q,
        k,
        v,
        packed.query_offsets,
        packed.key_offsets,
        packed.most_queries,
        packed.most_keys,
        window_size=(-1 if window is None else window - 1, 0),
    )


@cache
def _packed_kernel() -> Callable[..., Tensor]:
    """Torch's, which takes long to import."""
    from torch.nn.attention.varlen import varlen_attn

    # From torch 2.12 on fewer heads of keys than of queries must be asked for.
    grouped = "enable_gqa" in signature(varlen_attn).parameters
    kernel: Callable[..., Any] = varlen_attn
    return partial(kernel, enable_gqa=True) if grouped else kernel


class _DocumentAttention(torch.autograd.Function):
    """Tensors are [B T, heads, D]; the log-sum-exp is [B T, N]."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int | None
    ) -> Tensor:
        exact = torch.promote_types(q.dtype, torch.float32)
        out, sums = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=exact)
        for one in documents.all:
            pieces = _pieces(one, [q], [k, v])
            mask = documents.mask(one, window, pieces[0])
            y, sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *(_heads_first(x) for x in pieces), 0.0, mask is None, attn_mask=mask
            )
            out[one.own] = y[0].transpose(0, 1)
            sums[one.own] = sum_exp[0].T
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.documents, ctx.window = documents, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums = ctx.saved_tensors
        documents: Documents = ctx.documents
        grads = [torch.empty_like(x) for x in (q, k, v)]
        for one in documents.all:
            by_query = _pieces(one, [grad, q, out], [])
            by_key = _pieces(one, [], [k, v])
            mask = documents.mask(one, ctx.window, by_query[1])
            pieces = [*by_query[:2], *by_key, by_query[2]]
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *(_heads_first(x) for x in pieces),
                sums[one.own].T[None],
                0.0,
                mask is None,
                attn_mask=mask,
            )
            for whole, part in zip(grads, found, strict=True):
                rows = part[0].transpose(0, 1)
                past = rows.shape[0] - one.length
                whole[one.own] = rows[past:]
                if past:
                    whole[one.before] += rows[:past]
        return (*grads, None, None)


def _pieces(one: Document, own: Sequence[Tensor], seen: Sequence[Tensor]) -> list[Tensor]:
    """One document of each, and what it sees, in the type its attention runs in."""
    pieces = [*(x[one.own] for x in own), *(one.seen(x) for x in seen)]
    low = pieces[0].dtype == torch.bfloat16 and one.past + one.length <= _SHORT
    return [x.float() for x in pieces] if low else pieces


def _heads_first(x: Tensor) -> Tensor:
    """[T, heads, D] -> [1, heads, T, D]."""
    return x.transpose(0, 1)[None]


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
