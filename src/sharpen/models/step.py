"""What a block does between its matrix products, fused: norms, the gate, attention to a cache.

::

    add_norm   x <- x + delta;  y = x / sqrt(mean(x^2) + eps) * w
    gate       silu(g) * u
    attend     q, k <- rope(norm(q)), rope(norm(k));  cache <- k, v;  softmax(q k^T / sqrt(D)) v

A step of one token starts hundreds of operations that each touch a few kilobytes; starting them
costs more than their work. ``native_step.py`` does them in one or two calls each,
``triton_step.py`` on CUDA devices; :class:`TorchStep` is their reference, and what runs on other
devices, in other types and without a compiler. There the G query heads that share a key head are
one attention of G rows, so keys are not repeated.

Two caches: one batch of equal length (:class:`StepContext`), and blocks of any sequences
(:class:`~sharpen.models.paged.PagedContext`). To native code the first is a special case: a row is
one long block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.attention import attention_mask
from sharpen.models.kv_cache import KVCache

__all__ = ["Rows", "Span", "StepContext", "TorchStep", "gathered"]

_SHORT_CONTEXT = 2048  # up to here one token attends by plain products


@dataclass(frozen=True, slots=True)
class Rows:
    """Where tokens lie in a cache of blocks, and which ones they see; R rows of n sequences."""

    places: Tensor
    """[R] int64: block times its length, plus the offset in it."""
    tables: Tensor
    """[n, W] int32: blocks of each sequence."""
    sequences: Tensor
    """[R] int32: whose each row is."""
    positions: Tensor
    """[R] int32: of each row; it sees those up to its own."""
    firsts: Tensor | None = None
    """[R] int32: first position that each row sees; None for 0."""
    width: Tensor | None = None
    """[1] int32 on the device: W, where ``tables`` is a longer buffer; None for its shape's."""

    @classmethod
    def of(cls, cache: KVCache) -> Rows:
        """Those of the next token of each row of a batch, each a sequence of one block."""
        batch, capacity = cache.batch, cache.buffers(0)[0].shape[2]
        numbers = torch.arange(batch)
        return cls(
            places=numbers * capacity + cache.length,
            tables=numbers.int()[:, None],
            sequences=numbers.int(),
            positions=torch.full((batch,), cache.length, dtype=torch.int32),
            firsts=cache.starts.int() if cache.starts is not None else None,
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one sequence."""

    first: int
    """Row of the first."""
    count: int
    """Rows."""
    start: int
    """Position of the first."""
    slot: int
    """Its slot in the cache."""
    table: Tensor
    """[W] int32: the sequence's blocks."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """What every block needs in one call."""

    batch: int
    num_tokens: int
    cos: Tensor
    """[B or 1, T, 1, D/2] float32."""
    sin: Tensor
    """[B or 1, T, 1, D/2] float32."""
    mask: Tensor | None
    """[B or 1, 1, T, S], added to the scores; None when nothing is masked or causal is enough."""
    window_mask: Tensor | None
    """The same for layers with a sliding window."""
    is_causal: bool
    cache: KVCache
    rows: Rows | None
    """Of one token a row, for native code."""

    def attend(
        self,
        fused: TorchStep,
        qkv: Tensor,
        norms: tuple[Tensor, Tensor] | None,
        layer: int,
        window: int | None,
    ) -> Tensor:
        """See :meth:`TorchStep.attend`."""
        return fused.attend(qkv, norms, layer, window, self)


class TorchStep:
    """The steps in torch operations.

    Attributes:
        rows_are_enough: whether :meth:`attend_rows` is also for the rows of long parts.
        is_recordable: whether they can be recorded in a CUDA graph.
    """

    rows_are_enough = False
    is_recordable = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def add_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The sum and its norm, each [R, H]; ``x`` may be overwritten."""
        if delta is not None:
            x = x + delta
        return x, self._norm(x, weight)

    def gate(self, gate_up: Tensor) -> Tensor:
        """[R, 2 I] -> [R, I]."""
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate) * up

    def attend(
        self,
        qkv: Tensor,
        norms: tuple[Tensor, Tensor] | None,
        layer: int,
        window: int | None,
        step: StepContext,
    ) -> Tensor:
        """[R, (N + 2 K) D] -> [R, N D]; this step's keys and values go into the cache.

        Args:
            qkv: queries, keys and values of B T rows.
            norms: weights [D] of the queries' and keys' norms, or None for none.
            layer: index in the cache.
            window: positions a token sees, itself included; None for all.
            step: what the blocks share.
        """
        spec = self._spec
        heads, kv_heads, size = spec.num_heads, spec.num_kv_heads, spec.head_dim
        qkv = qkv.view(step.batch, step.num_tokens, -1, size)
        q, k, v = self.heads(qkv, norms, step.cos, step.sin)
        keys, values = step.cache.put(layer, k.transpose(1, 2), v.transpose(1, 2))
        mask = step.mask if window is None else step.window_mask
        if step.num_tokens == 1:
            grouped = q.reshape(step.batch, kv_heads, heads // kv_heads, size)
            if step.batch == 1 and mask is None and keys.shape[2] <= _SHORT_CONTEXT:
                return _attend_one(grouped[0], keys[0], values[0]).view(1, heads * size)
            out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
            return out.reshape(step.batch, heads * size)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys,
            values,
            attn_mask=mask,
            is_causal=step.is_causal and mask is None,
            enable_gqa=True,
        )
        return out.transpose(1, 2).reshape(step.batch * step.num_tokens, heads * size)

    def heads(
        self, qkv: Tensor, norms: tuple[Tensor, Tensor] | None, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normed and turned, and values, of [..., N + 2 K, D]."""
        spec = self._spec
        q, k, v = torch.split(qkv, [spec.num_heads, spec.num_kv_heads, spec.num_kv_heads], dim=-2)
        if norms is not None:
            q, k = self._norm(q, norms[0]), self._norm(k, norms[1])
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        return _turned(q, cos, sin), _turned(k, cos, sin), v

    def turn_rows(
        self,
        qkv: Tensor,
        norms: tuple[Tensor, Tensor] | None,
        cos: Tensor,
        sin: Tensor,
        buffers: tuple[Tensor, Tensor],
        rows: Rows,
    ) -> Tensor:
        """Queries [R, N, D], normed and turned; keys and values go to their places.

        Args:
            qkv: [R, (N + 2 K) D].
            norms: weights [D] of the queries' and keys' norms, or None.
            cos: [R or 1, 1, D/2] float32.
            sin: the same.
            buffers: keys and values [blocks, K, block, D].
            rows: where they go.
        """
        q, k, v = self.heads(qkv.view(qkv.shape[0], -1, self._spec.head_dim), norms, cos, sin)
        size = buffers[0].shape[2]
        block, offset = rows.places // size, rows.places % size
        for buffer, new in zip(buffers, (k, v), strict=True):
            buffer[block, :, offset] = new.to(buffer.dtype)
        return q

    def attend_rows(
        self, q: Tensor, buffers: tuple[Tensor, Tensor], rows: Rows, window: int | None
    ) -> Tensor:
        """[R, N D]: each of the queries [R, N, D] attends to what its sequence has before it."""
        out = torch.empty(q.shape, dtype=buffers[0].dtype, device=q.device)
        width = int(rows.positions.max()) + 1
        count = -(-width // buffers[0].shape[2])
        keys, values = (gathered(buffer, rows.tables[:, :count]) for buffer in buffers)
        position = torch.arange(keys.shape[2], device=q.device)
        seen = position <= rows.positions[:, None]
        if rows.firsts is not None:
            seen &= position >= torch.minimum(rows.firsts, rows.positions)[:, None]
        if window is not None:
            seen &= position > rows.positions[:, None] - window
        kv_heads, groups = keys.shape[1], q.shape[1] // keys.shape[1]
        for i, sequence in enumerate(rows.sequences.tolist()):
            out[i] = F.scaled_dot_product_attention(
                q[i].view(kv_heads, groups, -1).to(out.dtype),
                keys[sequence],
                values[sequence],
                attn_mask=seen[i][None, None],
            ).view(q.shape[1:])
        return out.flatten(1)

    def attend_spans(
        self,
        q: Tensor,
        buffers: tuple[Tensor, Tensor],
        spans: Sequence[Span],
        window: int | None,
    ) -> Tensor:
        """[C, N D]: queries [C, N, D] of spans, end to end, attend to what is before them.

        Args:
            q: of all spans.
            buffers: keys and values [blocks, K, block, D].
            spans: at least one.
            window: positions a token sees, itself included; None for all.
        """
        rows = torch.split(q, [span.count for span in spans])
        outs = [
            self.attend_span(part, buffers, span.table, span.slot, window)
            for part, span in zip(rows, spans, strict=True)
        ]
        return torch.cat(outs) if len(outs) > 1 else outs[0]

    def attend_span(
        self,
        q: Tensor,
        buffers: tuple[Tensor, Tensor],
        table: Tensor,
        start: int,
        window: int | None,
    ) -> Tensor:
        """The same for one span.

        Args:
            q: [C, N, D], of slots ``start`` and on.
            buffers: keys and values [blocks, K, block, D].
            table: [W] int32: the sequence's blocks.
            start: slot of the first.
            window: positions a token sees, itself included; None for all.
        """
        end = start + q.shape[0]
        count = -(-end // buffers[0].shape[2])
        keys, values = (gathered(b, table[None, :count])[:, :, :end] for b in buffers)
        mask = None
        if start or (window is not None and end > window):
            mask = attention_mask(start, q.shape[0], None, window, q.device)
        out = F.scaled_dot_product_attention(
            q.to(keys.dtype).transpose(0, 1)[None],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=True,
        )
        return out[0].transpose(0, 1).flatten(1)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._spec.rms_norm_eps)


def gathered(buffer: Tensor, tables: Tensor) -> Tensor:
    """[n, K, W B, D]: keys or values in blocks [blocks, K, B, D] in the order of tables [n, W]."""
    taken = buffer[tables.long()].transpose(1, 2)
    return taken.reshape(*taken.shape[:2], -1, taken.shape[-1])


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def _attend_one(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for one token: [K, G, D], [K, S, D] -> [K, G, D].

    Three small products start sooner than the fused kernel, whose threads must meet.
    """
    scale = q.shape[-1] ** -0.5
    scores = torch.baddbmm(q.new_empty(()), q, keys.transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), values)
