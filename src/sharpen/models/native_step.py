"""The steps of ``step.py`` in native code: ``native/decode.cpp``, ``native/attention.cpp``.

Results do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import importlib.util

import torch
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.products import has_tiles
from sharpen.models.step import Rows, StepContext, TorchStep
from sharpen.native.build import function, load
from sharpen.native.info import cpu_flags, variant

__all__ = ["AttentionShape", "NativeStep", "fused_step"]


class AttentionShape(ctypes.Structure):
    """Sizes as the kernels take them."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("rows", "heads", "kv_heads", "size"),
            *("block", "table_width", "window", "rope_stride"),
        )
    ]


class NativeStep(TorchStep):
    """The steps in native code.

    Attention of long parts stays with torch unless the processor multiplies bfloat16.

    Attributes:
        add_norm_kernel, gate_kernel, turn_kernel, attend_kernel: functions of the libraries.
        attend_tiles: whether the last one is to use tile registers; None where it takes all rows
            one by one, and has no such argument.

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
        self.add_norm_kernel = function(
            library, f"add_norm_{suffix}", *[pointer] * 4, integer, integer, real, count
        )
        self.gate_kernel = function(
            library, f"silu_multiply_{suffix}", pointer, pointer, integer, integer, count
        )
        self.turn_kernel = function(
            library, f"turn_rows_{suffix}", *[pointer] * 5, real, *[pointer] * 5, count
        )
        self.attend_kernel = function(library, f"attend_rows_{suffix}", *[pointer] * 9, count)
        self.attend_tiles: bool | None = None
        dots = load("attention") if dtype == torch.bfloat16 and spec.head_dim % 32 == 0 else None
        if dots is not None and variant() == "avx512" and "avx512_bf16" in cpu_flags():
            self.attend_kernel = function(dots, "attend_bf16", *[pointer] * 9, count, count)
            self.attend_tiles = has_tiles(dots, "bf16")
        self.rows_are_enough = self.attend_tiles is not None
        self._shape = AttentionShape(
            heads=spec.num_heads, kv_heads=spec.num_kv_heads, size=spec.head_dim
        )

    def add_norm(self, x: Tensor, delta: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The sum, in ``x``, and its norm."""
        rows, size = x.shape
        out = torch.empty_like(x)
        self.add_norm_kernel(
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
        self.gate_kernel(
            gate_up.data_ptr(), out.data_ptr(), rows, size // 2, torch.get_num_threads()
        )
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
        if step.rows is None:
            return super().attend(qkv, norms, layer, window, step)
        buffers = step.cache.buffers(layer)
        q = self.turn_rows(qkv, norms, step.cos, step.sin, buffers, step.rows)
        return self.attend_rows(q, buffers, step.rows, window)

    def turn_rows(
        self,
        qkv: Tensor,
        norms: tuple[Tensor, Tensor] | None,
        cos: Tensor,
        sin: Tensor,
        buffers: tuple[Tensor, Tensor],
        rows: Rows,
    ) -> Tensor:
        """As :meth:`TorchStep.turn_rows`; queries are float32."""
        shape = self._sized(qkv.shape[0], buffers[0], rows)
        shape.rope_stride = cos.stride(0) if cos.shape[0] > 1 else 0
        q = torch.empty((shape.rows, shape.heads, shape.size))
        self.turn_kernel(
            qkv.data_ptr(),
            cos.data_ptr(),
            sin.data_ptr(),
            norms[0].data_ptr() if norms is not None else None,
            norms[1].data_ptr() if norms is not None else None,
            self._spec.rms_norm_eps,
            q.data_ptr(),
            buffers[0].data_ptr(),
            buffers[1].data_ptr(),
            rows.places.data_ptr(),
            ctypes.addressof(shape),
            torch.get_num_threads(),
        )
        return q

    def attend_rows(
        self, q: Tensor, buffers: tuple[Tensor, Tensor], rows: Rows, window: int | None
    ) -> Tensor:
        """As :meth:`TorchStep.attend_rows`."""
        keys, values = buffers
        shape = self._sized(q.shape[0], keys, rows)
        shape.window = window or 0
        out = keys.new_empty((shape.rows, shape.heads * shape.size))
        self.attend_kernel(
            q.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            rows.tables.data_ptr(),
            rows.sequences.data_ptr(),
            rows.positions.data_ptr(),
            rows.firsts.data_ptr() if rows.firsts is not None else None,
            out.data_ptr(),
            ctypes.addressof(shape),
            *(() if self.attend_tiles is None else (self.attend_tiles,)),
            torch.get_num_threads(),
        )
        return out

    def _sized(self, count: int, keys: Tensor, rows: Rows) -> AttentionShape:
        shape = self._shape
        shape.rows, shape.block, shape.table_width = count, keys.shape[2], rows.tables.shape[1]
        return shape


def fused_step(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> TorchStep:
    """The fastest implementation for a type and a device."""
    if device.type == "cpu" and dtype in (torch.float32, torch.bfloat16):
        library = load("decode")
        if library is not None:
            return NativeStep(spec, library, dtype)
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from sharpen.models.triton_step import TritonStep

        return TritonStep(spec)
    return TorchStep(spec)
