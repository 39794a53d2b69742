"""Linear and embedding layers over quantized weights, run by torch's packed CPU kernels.

::

    y = x W^T,  W = (q - z) s     decoding: the integers are read, 1/2 or 1 byte a weight
                                  prompts:  W (or q) is unpacked to bfloat16 for one product

The packed kernels (``_weight_int4pack_mm_for_cpu``, ``_weight_int8pack_mm``) read the weights once
and win where reading is the cost; with many rows of x a bfloat16 product on unpacked weights wins.
The borders below are measured on 2 Sapphire Rapids cores for layers of 192 to 49,152 outputs.

What the kernels ask for, and what happens otherwise:

- bfloat16 activations and scales. With float32 they run 28 to 134 times slower, so x is converted
  and y converted back. Scales that are no bfloat16 numbers take the reference path.
- int4: rows padded to a multiple of 64 with zeros (cut off again); groups of 32, 64 or 128, larger
  ones repeated as groups of 32. The layout depends on the processor, so it is made on load, checked
  against ours once, and never stored.
- int8: symmetric, one scale a row, K divisible by 16 (the kernel reads past the end otherwise) and
  at least one row of x.

A model prepared for inference takes native products instead, where the processor multiplies
bfloat16 (``kernels.py``): at memory speed for few rows, and without packed kernels for many.

All else, and every device but the CPU, takes the reference path: dequantize, then multiply. It is
also what gradients flow through. Memory: packed weights and scales only, whatever the path.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.compress.groupwise import QuantizedWeight, dequantize
from sharpen.compress.kernels import CodeProduct
from sharpen.compress.packing import pack_int32, unpack_int32

__all__ = ["Kernel", "QuantizedEmbedding", "QuantizedLinear", "weight_bytes"]

Kernel = Literal["auto", "reference"]
_BLOCK = 64
_INT4_ROWS = 32
"""Rows of x up to which the int4 kernel beats unpacking."""
_INT8_ROWS = 8
"""The same for int8, which unpacks faster."""
_INT8_COLUMNS = 16


class QuantizedLinear(nn.Module):
    """A linear layer with an integer weight.

    Args:
        weight: [N, K] on a 4- or 8-bit grid.
        bias: [N], or None.
        kernel: ``auto`` takes the packed kernels where they apply; ``reference`` never does.

    Attributes:
        path: ``int4``, ``int8`` or ``reference``: what runs.
    """

    def __init__(
        self, weight: QuantizedWeight, bias: Tensor | None = None, *, kernel: Kernel = "auto"
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bits = weight.bits
        self.group_size = weight.group_size
        self.path = _choose(weight) if kernel == "auto" else "reference"
        self.register_buffer("packed", None)
        self.register_buffer("scale", None)
        self.register_buffer("zero", None)
        self.packed: Tensor
        self.scale: Tensor
        self.zero: Tensor | None
        if self.path == "int4":
            self.packed, self.scale = _pack_int4(weight)
        elif self.path == "int8":
            self.packed, self.scale = weight.values, weight.scale.to(torch.bfloat16).flatten()
        else:
            # Eight bits are stored as they are, so that an embedding can share them.
            four = weight.bits == 4
            self.packed = pack_int32(weight.values, 4) if four else weight.values
            self.scale, self.zero = weight.scale, weight.zero
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def extra_repr(self) -> str:
        """Shape, grid and path."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, "
            f"group_size={self.group_size}, path={self.path}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N], in the type of ``x`` (the autocast type under autocast)."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        rows = x.reshape(-1, self.in_features)
        if self.path == "reference" or device != "cpu" or rows.shape[0] == 0 or x.requires_grad:
            y = F.linear(rows.to(dtype), self.dequantized(dtype))
        elif self.path == "int4":
            y = self._int4(rows.to(torch.bfloat16))
        else:
            y = self._int8(rows.to(torch.bfloat16))
        y = y.to(dtype)
        if self.bias is not None:
            y = y + self.bias.to(dtype)
        return y.view(*x.shape[:-1], self.out_features)

    @classmethod
    def product_of(cls, layers: Sequence[Self]) -> CodeProduct | None:
        """The native product of layers on the same input, outputs end to end; None without one."""
        first = layers[0]
        alike = all((one.path, one.group_size) == (first.path, first.group_size) for one in layers)
        biases = [one.bias for one in layers if one.bias is not None]
        if first.path == "reference" or not alike or 0 < len(biases) < len(layers):
            return None
        if first.packed.device.type != "cpu" or (first.path == "int4" and not _knows_layout()):
            return None
        codes, scales, offsets = zip(*(one._codes() for one in layers), strict=True)
        return CodeProduct.of(
            torch.cat(codes),
            torch.cat(scales),
            torch.cat(offsets) if first.path == "int4" else None,
            first.bits,
            torch.cat([bias.detach() for bias in biases]) if biases else None,
        )

    def _codes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [N, K] int8, scales and offsets [N, G] of W = q s + o."""
        if self.path == "int8":
            scale = self.scale[:, None]
            return self.packed, scale, torch.zeros_like(scale)
        one = torch.ones(1, self.packed.shape[0], 1)
        unit = torch.cat((one, torch.zeros_like(one)), dim=-1)
        codes = _unpack_int4(self.packed, unit, torch.int8).T[: self.out_features]
        scale, offset = self.scale[:, : self.out_features].permute(2, 1, 0)
        return codes.contiguous(), scale, offset

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [N, K]; exact in float32 but for rounded zero points of 4-bit grids."""
        if self.path == "int4":
            if not _knows_layout():
                unit = torch.eye(self.in_features, dtype=torch.bfloat16)
                return _int4_kernel(unit, self.packed, self.scale)[:, : self.out_features].T.to(
                    dtype
                )
            return _unpack_int4(self.packed, self.scale, dtype)[:, : self.out_features].T
        if self.path == "int8":
            return self.packed.to(dtype) * self.scale.to(dtype)[:, None]
        values = self.packed
        if self.bits == 4:
            values = unpack_int32(self.packed, 4, self.in_features)
        return dequantize(QuantizedWeight(values, self.scale, self.zero, self.bits), dtype)

    def _int4(self, x: Tensor) -> Tensor:
        if x.shape[0] <= _INT4_ROWS or not _knows_layout():
            y = _int4_kernel(x, self.packed, self.scale)
        else:
            y = x @ _unpack_int4(self.packed, self.scale, torch.bfloat16)
        # One slice less a layer is a few percent of a small model's step.
        return y if y.shape[1] == self.out_features else y[:, : self.out_features]

    def _int8(self, x: Tensor) -> Tensor:
        if x.shape[0] <= _INT8_ROWS:
            scale = self.scale.to(torch.bfloat16)
            y: Tensor = torch.ops.aten._weight_int8pack_mm(x, self.packed, scale)
            return y
        # Integers up to 127 are exact in bfloat16, so the scale can wait for the output.
        return F.linear(x, self.packed.to(torch.bfloat16)) * self.scale


class QuantizedEmbedding(nn.Module):
    """A token embedding with an 8-bit weight, one scale a row.

    Args:
        weight: [V, H], 8 bits, symmetric, one group a row.
        dtype: of the output.
    """

    def __init__(self, weight: QuantizedWeight, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.dtype = dtype
        self.register_buffer("values", weight.values)
        self.register_buffer("scale", weight.scale)
        self.values: Tensor
        self.scale: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        """[...] int64 -> [..., H]."""
        return self.values[ids].to(self.dtype) * self.scale[ids].to(self.dtype)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers of a model, shared ones counted once."""
    seen: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def _choose(weight: QuantizedWeight) -> Literal["int4", "int8", "reference"]:
    """The packed kernel that takes this weight, if any does."""
    columns = weight.shape[1]
    if weight.values.device.type != "cpu":
        return "reference"
    if not torch.equal(weight.scale.to(torch.bfloat16).to(weight.scale.dtype), weight.scale):
        return "reference"
    if weight.bits == 4:
        return "int4" if weight.group_size % 32 == 0 else "reference"
    by_row = weight.scale.shape[1] == 1 and weight.zero is None
    return "int8" if by_row and columns % _INT8_COLUMNS == 0 else "reference"


def _pack_int4(weight: QuantizedWeight) -> tuple[Tensor, Tensor]:
    """Kernel layout [N', K / 2] uint8, scales with zeros [K / g, N', 2]; N' = 64 ceil(N / 64)."""
    rows = weight.shape[0]
    extra = -rows % _BLOCK
    values = F.pad(weight.values.to(torch.int32) + 8, (0, 0, 0, extra))
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1)
    scale = weight.scale.to(torch.bfloat16)
    # The kernel computes (u - 8) s + zero with u = q + 8, so zero = -z s.
    zero = torch.zeros_like(scale) if weight.zero is None else -weight.zero.to(scale.dtype) * scale
    if weight.group_size not in (32, 64, 128):
        repeats = weight.group_size // 32
        scale, zero = scale.repeat_interleave(repeats, 1), zero.repeat_interleave(repeats, 1)
    both = F.pad(torch.stack((scale.T, zero.T), dim=-1), (0, 0, 0, extra))
    return packed, both.contiguous()


def _int4_kernel(x: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
    group = packed.shape[1] * 2 // scale.shape[0]
    if scale.dtype != torch.bfloat16:  # the model was converted after loading
        scale = scale.to(torch.bfloat16)
    y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, scale)
    return y


def _unpack_int4(packed: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """W^T [K, N'] from the kernel's layout [N' / 64, K, 32]: low nibbles are rows 0 .. 31."""
    rows, columns, groups = packed.shape[0], packed.shape[1] * 2, scale.shape[0]
    blocks = packed.view(rows // _BLOCK, columns, _BLOCK // 2)
    out = torch.empty(columns, rows // _BLOCK, _BLOCK, dtype=dtype)
    by_block = out.permute(1, 0, 2)
    by_block[..., : _BLOCK // 2].copy_((blocks & 15).view(torch.int8).sub_(8))
    by_block[..., _BLOCK // 2 :].copy_((blocks >> 4).view(torch.int8).sub_(8))
    grouped = out.view(groups, columns // groups, rows)
    grouped.mul_(scale[:, None, :, 0].to(dtype))
    zero = scale[..., 1]
    if bool(zero.any()):
        grouped.add_(zero[:, None].to(dtype))
    return grouped.view(columns, rows)


@functools.cache
def _knows_layout() -> bool:
    """Whether this processor's int4 layout is the one :func:`_unpack_int4` reads."""
    values = (torch.arange(_BLOCK * 32, dtype=torch.int32) * 7 // 3 % 16).view(_BLOCK, 32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1)
    ones = torch.ones(1, _BLOCK, 1)
    scale = torch.cat((ones, torch.zeros_like(ones)), dim=-1).to(torch.bfloat16)
    return torch.equal(_unpack_int4(packed, scale, torch.float32).T, values.float() - 8)
