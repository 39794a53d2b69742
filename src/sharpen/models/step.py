"""What a block does between its matrix products, fused: norms, the gate, one token's attention.

::

    add_norm   x <- x + delta;  y = x / sqrt(mean(x^2) + eps) * w
    gate       silu(g) * u
    attend     q, k <- rope(norm(q)), rope(norm(k));  cache <- k, v;  softmax(q k^T / sqrt(D)) v

A step of one token starts hundreds of operations that each touch a few kilobytes; starting them
costs more than their work. :class:`NativeStep` does each of the three in one call
(``native/decode.cpp``). :class:`TorchStep` is its reference, and what runs on other devices, in
other types and without a compiler. There the G query heads that share a key head are one attention
of G rows, so keys are not repeated.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.kv_cache import KVCache
from sharpen.native.build import function, load

__all__ = ["NativeStep", "StepContext", "TorchStep", "fused_step"]

_SHORT_CONTEXT = 2048  # up to here one token attends by plain products


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


class TorchStep:
    """The three steps in torch operations."""

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
        q, k, v = torch.split(qkv, [heads, kv_heads, kv_heads], dim=2)
        if norms is not None:
            q, k = self._norm(q, norms[0]), self._norm(k, norms[1])
        q, k = self._turned(q, step), self._turned(k, step)
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

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._spec.rms_norm_eps)

    def _turned(self, x: Tensor, step: StepContext) -> Tensor:
        cos, sin = step.cos.to(x.dtype), step.sin.to(x.dtype)
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def _attend_one(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for one token: [K, G, D], [K, S, D] -> [K, G, D].

    Three small products start sooner than the fused kernel, whose threads must meet.
    """
    scale = q.shape[-1] ** -0.5
    scores = torch.baddbmm(q.new_empty(()), q, keys.transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), values)


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("batch", "heads", "kv_heads", "size"),
            *("capacity", "position", "window", "rope_stride"),
        )
    ]


class NativeStep(TorchStep):
    """The three steps in native code; attention of several tokens a row stays with torch.

    Args:
        spec: the model's shape.
        library: the compiled ``decode``.
        dtype: float32 or bfloat16.
    """

    def __init__(self, spec: ModelSpec, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        super().__init__(spec)
        suffix = {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        real, count = ctypes.c_float, ctypes.c_int
        self._add_norm = function(
            library, f"add_norm_{suffix}", *[pointer] * 4, integer, integer, real, count
        )
        self._gate = function(
            library, f"silu_multiply_{suffix}", pointer, pointer, integer, integer, count
        )
        self._attend = function(
            library, f"attend_step_{suffix}", *[pointer] * 5, real, *[pointer] * 5, count
        )
        self._shape = _Shape(heads=spec.num_heads, kv_heads=spec.num_kv_heads, size=spec.head_dim)

    def add_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The sum, in ``x``, and its norm."""
        rows, size = x.shape
        out = torch.empty_like(x)
        self._add_norm(
            x.data_ptr(),
            delta.data_ptr() if delta is not None else None,
            weight.data_ptr(),
            out.data_ptr(),
            rows,
            size,
            self._spec.rms_norm_eps,
            torch.get_num_threads(),
        )
        return x, out

    def gate(self, gate_up: Tensor) -> Tensor:
        """[R, 2 I] -> [R, I]."""
        rows, size = gate_up.shape
        out = gate_up.new_empty((rows, size // 2))
        self._gate(gate_up.data_ptr(), out.data_ptr(), rows, size // 2, torch.get_num_threads())
        return out

    def attend(
        self,
        qkv: Tensor,
        norms: tuple[Tensor, Tensor] | None,
        layer: int,
        window: int | None,
        step: StepContext,
    ) -> Tensor:
        """As :meth:`TorchStep.attend`."""
        if step.num_tokens > 1:
            return super().attend(qkv, norms, layer, window, step)
        keys, values = step.cache.buffers(layer)
        shape, starts = self._shape, step.cache.starts
        shape.batch, shape.capacity, shape.position = step.batch, keys.shape[2], step.cache.length
        shape.window = window or 0
        shape.rope_stride = step.cos.stride(0) if step.cos.shape[0] > 1 else 0
        out = qkv.new_empty((step.batch, shape.heads * shape.size))
        self._attend(
            qkv.data_ptr(),
            step.cos.data_ptr(),
            step.sin.data_ptr(),
            norms[0].data_ptr() if norms is not None else None,
            norms[1].data_ptr() if norms is not None else None,
            self._spec.rms_norm_eps,
            keys.data_ptr(),
            values.data_ptr(),
            starts.data_ptr() if starts is not None else None,
            out.data_ptr(),
            ctypes.addressof(shape),
            torch.get_num_threads(),
        )
        return out


def fused_step(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> TorchStep:
    """The fastest implementation for a type and a device."""
    if device.type == "cpu" and dtype in (torch.float32, torch.bfloat16):
        library = load("decode")
        if library is not None:
            return NativeStep(spec, library, dtype)
    return TorchStep(spec)
