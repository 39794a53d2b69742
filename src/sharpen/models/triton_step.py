"""The steps of ``step.py`` as Triton kernels, for CUDA devices.

::

    add_norm   a program a row
    gate       a program a piece of a row
    turn       a program a row and head: norm, rotation, and the cache for keys and values
    attend     a program a row, key head and part of the context; parts meet in a second kernel

Attention of few rows splits the context (Dao et al., Flash-Decoding, 2023): with p parts, each
leaves the maximum m_i of its scores, its sum l_i of exp(s - m_i) and its output o_i::

    m = max_i m_i      o = sum_i exp(m_i - m) o_i / sum_i exp(m_i - m) l_i

The G query heads of a key head are rows of one matrix product, so that keys and values are read
once. The number of parts follows from the number of rows, so sums may round differently with other
neighbours. Attention of long parts is torch's FlashAttention for all of them in one call, on keys
and values that are gathered before; where it does not apply, as in float32, each goes by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.step import Rows, Span, TorchStep

__all__ = ["TritonStep"]

_GATE_BLOCK = 1024
_KEYS = 64  # of one matrix product
_PROGRAMS = 1024  # that attention of few rows is split into
_MOST_PARTS = 64
_LEAST_HEADS = 16  # rows that a matrix product needs


@triton.jit
def _add_norm(x, delta, weight, out, size, eps, ADDS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * size
    at = tl.arange(0, BLOCK)
    inside = at < size
    exact = tl.load(x + row + at, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        exact += tl.load(delta + row + at, mask=inside, other=0.0).to(tl.float32)
        rounded = exact.to(x.dtype.element_ty)
        tl.store(x + row + at, rounded, mask=inside)
        exact = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(exact * exact, 0) / size + eps)
    scaled = exact * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + at, scaled, mask=inside)


@triton.jit
def _gate(gate_up, out, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    gate = tl.load(gate_up + row * 2 * size + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * size + size + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + at, gate * tl.sigmoid(gate) * up, mask=inside)


@triton.jit
def _turn(
    qkv,
    cos,
    sin,
    q_norm,
    k_norm,
    q,
    keys,
    values,
    places,
    rope_stride,
    page,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    NORMS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, HALF_BLOCK)
    inside = at < HALF
    source = qkv + (row * (HEADS + 2 * KV_HEADS) + head) * 2 * HALF
    a = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(source + HALF + at, mask=inside, other=0.0).to(tl.float32)
    if head < HEADS + KV_HEADS:
        if NORMS:
            weight = q_norm if head < HEADS else k_norm
            scale = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / (2 * HALF) + eps)
            a = a * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
            b = b * scale * tl.load(weight + HALF + at, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(cos + row * rope_stride + at, mask=inside, other=0.0)
        s = tl.load(sin + row * rope_stride + at, mask=inside, other=0.0)
        a, b = a * c - b * s, b * c + a * s
    if head < HEADS:
        target = q + (row * HEADS + head) * 2 * HALF
        tl.store(target + at, a, mask=inside)
        tl.store(target + HALF + at, b, mask=inside)
    else:
        place = tl.load(places + row).to(tl.int64)
        if place >= 0:
            kv = (head - HEADS) % KV_HEADS
            cache = keys if head < HEADS + KV_HEADS else values
            target = cache + ((place // page * KV_HEADS + kv) * page + place % page) * 2 * HALF
            tl.store(target + at, a, mask=inside)
            tl.store(target + HALF + at, b, mask=inside)


@triton.jit(do_not_specialize=["width"])
def _attend(
    q,
    keys,
    values,
    tables,
    width,
    sequences,
    positions,
    firsts,
    out,
    largest,
    sums,
    scale,
    WINDOW: tl.constexpr,
    PAGE: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_BLOCK: tl.constexpr,
    SIZE: tl.constexpr,
    SIZE_BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH_AT: tl.constexpr,
    FIRSTS: tl.constexpr,
    EXACT: tl.constexpr,
):
    row = tl.program_id(0)
    kv = tl.program_id(1)
    part = tl.program_id(2)
    if WIDTH_AT:
        width = tl.load(width)
    last = tl.load(positions + row)
    first = last - last
    if FIRSTS:
        first = tl.minimum(tl.load(firsts + row), last)
    if WINDOW > 0:
        first = tl.maximum(first, last + 1 - WINDOW)
    length = tl.cdiv(tl.cdiv(tl.maximum(last + 1 - first, 0), PARTS), KEYS) * KEYS
    begin = first + part * length
    end = tl.minimum(begin + length, last + 1)

    group = tl.arange(0, GROUP_BLOCK)
    at = tl.arange(0, SIZE_BLOCK)
    head = kv * GROUP + group
    is_head = group < GROUP
    inside = is_head[:, None] & (at < SIZE)[None, :]
    row_head = row.to(tl.int64) * HEADS + head
    query = tl.load(q + row_head[:, None] * SIZE + at[None, :], mask=inside, other=0.0)
    query = query.to(keys.dtype.element_ty)

    m = tl.full((GROUP_BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP_BLOCK,), tl.float32)
    o = tl.zeros((GROUP_BLOCK, SIZE_BLOCK), tl.float32)
    table = tables + tl.load(sequences + row).to(tl.int64) * width
    for start in range(begin, end, KEYS):
        token = start + tl.arange(0, KEYS)
        seen = token < end
        block = tl.load(table + token // PAGE, mask=seen, other=0).to(tl.int64)
        offset = ((block * KV_HEADS + kv) * PAGE + token % PAGE) * SIZE
        stored = seen[:, None] & (at < SIZE)[None, :]
        k = tl.load(keys + offset[:, None] + at[None, :], mask=stored, other=0.0)
        v = tl.load(values + offset[:, None] + at[None, :], mask=stored, other=0.0)
        if EXACT:
            scores = tl.dot(query, tl.trans(k), input_precision="ieee") * scale
        else:
            scores = tl.dot(query, tl.trans(k)) * scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        new = tl.maximum(m, tl.max(scores, 1))
        p = tl.exp2(scores - new[:, None])
        shrink = tl.exp2(m - new)
        total = total * shrink + tl.sum(p, 1)
        if EXACT:
            o = o * shrink[:, None] + tl.dot(p, v, input_precision="ieee")
        else:
            o = o * shrink[:, None] + tl.dot(p.to(v.dtype), v)
        m = new
    if PARTS == 1:
        o = o / tl.where(total > 0, total, 1.0)[:, None]
        tl.store(out + row_head[:, None] * SIZE + at[None, :], o, mask=inside)
    else:
        place = row_head * PARTS + part
        tl.store(out + place[:, None] * SIZE + at[None, :], o, mask=inside)
        tl.store(largest + place, m, mask=is_head)
        tl.store(sums + place, total, mask=is_head)


@triton.jit
def _join(
    parts, largest, sums, out, SIZE: tl.constexpr, SIZE_BLOCK: tl.constexpr, PARTS: tl.constexpr
):
    row_head = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    at = tl.arange(0, SIZE_BLOCK)
    m = tl.load(largest + row_head * PARTS + part)
    top = tl.max(m, 0)
    weight = tl.where(m > float("-inf"), tl.exp2(m - tl.where(top > float("-inf"), top, 0.0)), 0.0)
    total = tl.sum(weight * tl.load(sums + row_head * PARTS + part), 0)
    place = (row_head * PARTS + part)[:, None] * SIZE + at[None, :]
    o = tl.load(parts + place, mask=(weight > 0)[:, None] & (at < SIZE)[None, :], other=0.0)
    o = tl.sum(o * weight[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(out + row_head * SIZE + at, o, mask=at < SIZE)


@dataclass(frozen=True, slots=True)
class _Packed:
    """Spans as FlashAttention takes them: end to end, with all that each of them sees."""

    spans: Sequence[Span]
    blocks: Tensor
    """[S] int64: where keys and values lie."""
    offsets: Tensor
    """[S] int64, in them."""
    query_ends: Tensor
    """[n + 1] int32."""
    key_ends: Tensor
    """[n + 1] int32."""
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, spans: Sequence[Span], page: int) -> _Packed:
        device = spans[0].table.device
        queries = [span.count for span in spans]
        keys = [span.slot + span.count for span in spans]
        ends = torch.tensor(
            [[0, *accumulate(queries)], [0, *accumulate(keys)]], dtype=torch.int32, device=device
        )
        slots = torch.cat([torch.arange(count, device=device) for count in keys])
        tables = torch.stack([span.table for span in spans])
        owners = torch.arange(len(spans), device=device)
        owners = owners.repeat_interleave(ends[1].diff(), output_size=sum(keys))
        return cls(
            spans,
            tables[owners, slots // page].long(),
            slots % page,
            ends[0],
            ends[1],
            max(queries),
            max(keys),
        )


def _takes(q: Tensor, keys: Tensor) -> bool:
    """Whether FlashAttention takes such queries and keys."""
    return (
        q.is_cuda
        and q.dtype == keys.dtype
        and q.dtype in (torch.bfloat16, torch.float16)
        and q.shape[-1] % 8 == 0
        and q.shape[-1] <= 256
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
    )


class TritonStep(TorchStep):
    """The steps as Triton kernels.

    Args:
        spec: the model's shape.
    """

    is_recordable = True

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._group = spec.num_heads // spec.num_kv_heads
        self._scale = spec.head_dim**-0.5 / math.log(2)
        self._packed: _Packed | None = None

    def add_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The sum, in ``x``, and its norm."""
        rows, size = x.shape
        x = x.contiguous()
        out = torch.empty_like(x)
        block = triton.next_power_of_2(size)
        _add_norm[(rows,)](
            x,
            delta.contiguous() if delta is not None else x,
            weight,
            out,
            size,
            self._spec.rms_norm_eps,
            ADDS=delta is not None,
            BLOCK=block,
            num_warps=min(max(block // 512, 4), 16),
        )
        return x, out

    def gate(self, gate_up: Tensor) -> Tensor:
        """[R, 2 I] -> [R, I]."""
        rows, size = gate_up.shape[0], gate_up.shape[1] // 2
        out = gate_up.new_empty((rows, size))
        grid = rows, triton.cdiv(size, _GATE_BLOCK)
        _gate[grid](gate_up.contiguous(), out, size, BLOCK=_GATE_BLOCK)
        return out

    def turn_rows(
        self,
        qkv: Tensor,
        norms: tuple[Tensor, Tensor] | None,
        cos: Tensor,
        sin: Tensor,
        buffers: tuple[Tensor, Tensor],
        rows: Rows,
    ) -> Tensor:
        """As :meth:`TorchStep.turn_rows`; a negative place is none."""
        spec, count = self._spec, qkv.shape[0]
        q = qkv.new_empty((count, spec.num_heads, spec.head_dim))
        _turn[(count, spec.num_heads + 2 * spec.num_kv_heads)](
            qkv.contiguous(),
            cos,
            sin,
            norms[0] if norms is not None else qkv,
            norms[1] if norms is not None else qkv,
            q,
            *buffers,
            rows.places,
            cos.stride(0) if cos.shape[0] > 1 else 0,
            buffers[0].shape[2],
            spec.rms_norm_eps,
            HEADS=spec.num_heads,
            KV_HEADS=spec.num_kv_heads,
            HALF=spec.head_dim // 2,
            HALF_BLOCK=triton.next_power_of_2(spec.head_dim // 2),
            NORMS=norms is not None,
            num_warps=1,
        )
        return q

    def attend_rows(
        self, q: Tensor, buffers: tuple[Tensor, Tensor], rows: Rows, window: int | None
    ) -> Tensor:
        """As :meth:`TorchStep.attend_rows`; a row at a negative position is zeros."""
        spec, (keys, values) = self._spec, buffers
        count, heads, size = q.shape
        parts = self._parts(count)
        out = keys.new_empty((count, heads * size))
        found = out
        if parts > 1:
            found = torch.empty((count, heads, parts, size), device=q.device)
        largest = torch.empty((count, heads, parts) if parts > 1 else (1,), device=q.device)
        sums = torch.empty_like(largest)
        _attend[(count, spec.num_kv_heads, parts)](
            q.contiguous(),
            keys,
            values,
            rows.tables,
            rows.tables.shape[1] if rows.width is None else rows.width,
            rows.sequences,
            rows.positions,
            rows.firsts if rows.firsts is not None else rows.positions,
            found,
            largest,
            sums,
            self._scale,
            WINDOW=window or 0,
            PAGE=keys.shape[2],
            HEADS=heads,
            KV_HEADS=spec.num_kv_heads,
            GROUP=self._group,
            GROUP_BLOCK=max(triton.next_power_of_2(self._group), _LEAST_HEADS),
            SIZE=size,
            SIZE_BLOCK=triton.next_power_of_2(size),
            KEYS=_KEYS,
            PARTS=parts,
            WIDTH_AT=rows.width is not None,
            FIRSTS=rows.firsts is not None,
            EXACT=keys.dtype == torch.float32,
        )
        if parts > 1:
            _join[(count * heads,)](
                found,
                largest,
                sums,
                out,
                SIZE=size,
                SIZE_BLOCK=triton.next_power_of_2(size),
                PARTS=parts,
            )
        return out

    def attend_spans(
        self,
        q: Tensor,
        buffers: tuple[Tensor, Tensor],
        spans: Sequence[Span],
        window: int | None,
    ) -> Tensor:
        """As :meth:`TorchStep.attend_spans`; all in one call where FlashAttention takes them."""
        starts_alone = len(spans) == 1 and not spans[0].slot and window is None
        if starts_alone or not _takes(q, buffers[0]):
            return super().attend_spans(q, buffers, spans, window)
        if self._packed is None or self._packed.spans is not spans:
            self._packed = _Packed.of(spans, buffers[0].shape[2])
        packed = self._packed
        keys, values = (buffer[packed.blocks, :, packed.offsets] for buffer in buffers)
        out = torch.ops.aten._flash_attention_forward(
            q,
            keys,
            values,
            packed.query_ends,
            packed.key_ends,
            packed.most_queries,
            packed.most_keys,
            0.0,
            True,
            False,
            window_size_left=window - 1 if window is not None else None,
            window_size_right=0 if window is not None else None,
        )[0]
        return cast(Tensor, out).flatten(1)

    def _parts(self, rows: int) -> int:
        """Of the context, a power of two."""
        wanted = triton.cdiv(_PROGRAMS, rows * self._spec.num_kv_heads)
        return int(min(triton.next_power_of_2(wanted), _MOST_PARTS))
