"""Tensors in 8 or 4 bits a value with a scale for each block: states of an optimizer.

Dettmers et al., 8-bit Optimizers via Block-wise Quantization, ICLR 2022 (arXiv 2110.02861); the
4-bit codes are those of Li et al., Memory Efficient Optimizers with 4-bit States, NeurIPS 2023
(arXiv 2309.01507). Blocks of ``block_size`` values share a scale, their largest magnitude::

    code  = number of midpoints between neighbouring codes that are below x (1 / absmax)
    value = codebook[code] absmax

so a tie goes to the lower code. Dynamic codes of b bits: in the decade of 10^(i - b + 2) lie 2^i
values of each sign (signed) or 2^(i + 1) (unsigned), evenly, and beside them 0 and 1. Unsigned
4-bit codes are (k + 1) / 16.

Differs from the paper: blocks of 256, not 2048; a value that rounds to 0 in an unsigned tensor
reads as 1.6e-7 of the scale when asked (``floor``), because m / sqrt(0) would be without bound.

On the CPU codes are made and read by native/optim.cpp, with the same bits.
"""

from __future__ import annotations

import ctypes
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.native.build import function, load

__all__ = [
    "BlockQuantTensor",
    "Layout",
    "codebook",
    "dequantize_blockwise",
    "midpoints",
    "native_library",
    "packs_natively",
    "quantize_blockwise",
]

Layout = Literal["flat", "row"]
Rounding = Literal["nearest", "lut16"]
_FLOOR = 1.6e-7  # just under the first midpoint above zero, so that it encodes to zero again
_LARGEST = torch.finfo(torch.float32).max

_POINTER, _NUMBER, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


@lru_cache(maxsize=8)
def codebook(signed: bool, bits: int = 8) -> Tensor:
    """The values of the codes, ascending: float32 [2^bits], from -0.993 or 0 to 1.

    Examples:
        >>> float(codebook(signed=False)[255])
        1.0
    """
    if not signed and bits == 4:
        return torch.arange(1, 17, dtype=torch.float32) / 16
    values = [0.0, 1.0]
    decades = bits - 1
    for i in range(decades):
        count = 2**i if signed else 2 ** (i + 1)
        edges = torch.linspace(0.1, 1, count + 1, dtype=torch.float32)
        centres = (edges[:-1] + edges[1:]) / 2
        decade = (centres * 10.0 ** (i - decades + 1)).tolist()  # rounded as bitsandbytes does
        values += decade
        if signed:
            values += [-value for value in decade]
    return torch.tensor(sorted(values), dtype=torch.float64).to(torch.float32)


@lru_cache(maxsize=8)
def midpoints(signed: bool, bits: int = 8) -> Tensor:
    """Float32 [2^bits - 1] between neighbouring codes."""
    values = codebook(signed, bits)
    return 0.5 * (values[:-1] + values[1:])


def native_library() -> ctypes.CDLL | None:
    """The native kernels of optimizers, which know the codebooks; None where there are none."""
    return _prepared(os.environ.get("SHARPEN_NATIVE"))


@lru_cache(maxsize=8)
def _prepared(variant: str | None) -> ctypes.CDLL | None:
    library = load("optim")
    if library is not None:
        signed, unsigned, small = codebook(True), codebook(False), codebook(True, 4)
        take = function(library, "set_codes", _POINTER, _POINTER, ctypes.c_float, _POINTER)
        take(signed.data_ptr(), unsigned.data_ptr(), _FLOOR, small.data_ptr())
    return library


def quantize_blockwise(
    x: Tensor,
    *,
    signed: bool = True,
    bits: int = 8,
    block_size: int = 256,
    layout: Layout = "flat",
    rounding: Rounding = "nearest",
) -> tuple[Tensor, Tensor]:
    """Codes and scales of a tensor.

    Args:
        x: finite values; 0 or more when not ``signed``.
        signed: which codebook.
        bits: 8 or 4.
        block_size: values that share a scale.
        layout: blocks over the flat tensor, or over each row (first index) by itself.
        rounding: to the nearest code; or ``lut16``: 8-bit codes as bitsandbytes' CPU path has them,
            by the centre of one of 65,536 cells of [-1, 1].

    Returns:
        uint8 codes, two 4-bit ones a byte with the first in the low half, and float32 scales: of
        shapes [bytes] and [blocks], or [rows, bytes] and [rows, blocks].

    Examples:
        >>> codes, absmax = quantize_blockwise(torch.tensor([0.0, -1.0, 2.0]))
        >>> codes.tolist(), absmax.tolist()
        ([127, 35, 255], [2.0])
    """
    rows = _rows(x.shape, layout)
    width = x.numel() // max(rows, 1)
    x = x.detach().to(torch.float32).reshape(rows, width)
    library = _library_for(x, bits, block_size)
    if library is not None and rounding == "nearest":
        codes, absmax = _quantize_natively(library, x.contiguous(), signed, bits, block_size)
        return (codes.view(-1), absmax.view(-1)) if layout == "flat" else (codes, absmax)
    blocks = _blocks(x, block_size)
    # Scales and their inverses stay finite, at either end of float32.
    absmax = blocks.abs().amax(2).clamp(max=_LARGEST)
    inverse = torch.where(absmax > 0, (1.0 / absmax).clamp(max=_LARGEST), 1.0)
    scaled = blocks * inverse.unsqueeze(2)
    if rounding == "lut16":
        cell = ((scaled.clamp(-1, 1) + 1) * 0.5 * 65535 + 0.5).long()
        scaled = 2 * cell.to(torch.float32) / 65535 - 1
    codes = torch.searchsorted(midpoints(signed, bits).to(x.device), scaled)
    codes = codes.to(torch.uint8).view(rows, -1)[:, :width]
    if bits == 4:
        codes = F.pad(codes, (0, width % 2))
        codes = codes[:, ::2] | codes[:, 1::2] << 4
    if layout == "flat":
        return codes.reshape(-1), absmax.reshape(-1)
    return codes.contiguous(), absmax


def dequantize_blockwise(
    codes: Tensor,
    absmax: Tensor,
    shape: tuple[int, ...],
    *,
    signed: bool = True,
    bits: int = 8,
    block_size: int = 256,
    layout: Layout = "flat",
    floor: bool = False,
) -> Tensor:
    """Float32 values of codes; arguments as for :func:`quantize_blockwise`.

    Args:
        codes: uint8.
        absmax: float32.
        shape: of the tensor.
        signed: which codebook.
        bits: 8 or 4.
        block_size: values that share a scale.
        layout: how the blocks run.
        floor: unsigned 8-bit code 0 stands for a little more than 0, except where the scale is 0.
    """
    rows = _rows(shape, layout)
    width = math.prod(shape) // max(rows, 1)
    library = _library_for(codes, bits, block_size)
    if library is not None and codes.is_contiguous() and absmax.is_contiguous():
        values = torch.empty(shape, dtype=torch.float32)
        call = function(library, "dequantize", *[_POINTER] * 3, *[_NUMBER] * 3, *[_INT] * 4)
        pointers = codes.data_ptr(), absmax.data_ptr(), values.data_ptr()
        call(*pointers, rows, width, block_size, signed, bits, floor, torch.get_num_threads())
        return values
    book = codebook(signed, bits).to(codes.device)
    if floor and not signed and bits == 8:
        book = book.clone()
        book[0] = _FLOOR
    codes = codes.view(rows, -1)
    if bits == 4:
        codes = torch.stack([codes & 15, codes >> 4], -1).view(rows, -1)[:, :width]
    values = _blocks(book[codes.long()], block_size) * absmax.view(rows, -1, 1)
    return values.view(rows, -1)[:, :width].reshape(shape)


def packs_natively(bits: int, block_size: int) -> bool:
    """Whether native code has these codes: no block ends within a byte."""
    return bits == 8 or block_size % 2 == 0


def _library_for(x: Tensor, bits: int, block_size: int) -> ctypes.CDLL | None:
    serves = x.device.type == "cpu" and packs_natively(bits, block_size)
    return native_library() if serves else None


def _quantize_natively(
    library: ctypes.CDLL, x: Tensor, signed: bool, bits: int, block_size: int
) -> tuple[Tensor, Tensor]:
    """Codes and scales of [rows, width]."""
    rows, width = x.shape
    codes = torch.empty((rows, -(-width * bits // 8)), dtype=torch.uint8)
    absmax = torch.empty((rows, -(-width // block_size)), dtype=torch.float32)
    call = function(library, "quantize", *[_POINTER] * 3, *[_NUMBER] * 3, *[_INT] * 3)
    pointers = x.data_ptr(), codes.data_ptr(), absmax.data_ptr()
    call(*pointers, rows, width, block_size, signed, bits, torch.get_num_threads())
    return codes, absmax


def _rows(shape: tuple[int, ...], layout: Layout) -> int:
    return shape[0] if layout == "row" and len(shape) > 1 else 1


def _blocks(x: Tensor, block_size: int) -> Tensor:
    """[rows, width] -> [rows, blocks, block_size], filled up with zeros."""
    width = x.shape[1]
    return F.pad(x, (0, -width % block_size)).view(x.shape[0], -1, block_size)


@dataclass(slots=True)
class BlockQuantTensor:
    """A tensor kept as codes and scales; two plain tensors, so that they save and shard as such."""

    codes: Tensor
    absmax: Tensor
    shape: tuple[int, ...]
    signed: bool = True
    bits: int = 8
    block_size: int = 256
    layout: Layout = "flat"

    @classmethod
    def quantize(
        cls,
        x: Tensor,
        *,
        signed: bool = True,
        bits: int = 8,
        block_size: int = 256,
        layout: Layout = "flat",
    ) -> BlockQuantTensor:
        """Of a tensor's values; arguments as for :func:`quantize_blockwise`."""
        codes, absmax = quantize_blockwise(
            x, signed=signed, bits=bits, block_size=block_size, layout=layout
        )
        return cls(codes, absmax, tuple(x.shape), signed, bits, block_size, layout)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes + self.absmax.nbytes

    def dequantize(self, *, floor: bool = False) -> Tensor:
        """Float32 values; ``floor`` as for :func:`dequantize_blockwise`."""
        return dequantize_blockwise(
            self.codes,
            self.absmax,
            self.shape,
            signed=self.signed,
            bits=self.bits,
            block_size=self.block_size,
            layout=self.layout,
            floor=floor,
        )

    def copy_(self, x: Tensor, *, rounding: Rounding = "nearest") -> None:
        """Take over the values of a tensor of the same shape."""
        codes, absmax = quantize_blockwise(
            x,
            signed=self.signed,
            bits=self.bits,
            block_size=self.block_size,
            layout=self.layout,
            rounding=rounding,
        )
        self.codes.copy_(codes)
        self.absmax.copy_(absmax)
