"""Products of 4- and 8-bit weights in native code, one call a product.

With 8-bit activations (:class:`IntegerProduct`, ``native/integer_products.cpp``): the two exact
steps of ``mixed.py``, integers within a group of 128 inputs, float32 over groups. Which
instructions take the integer sums is chosen once::

    tiles     AMX: sixteen rows at a time, for 9 rows and more; else as below
    vnni      AVX512-VNNI: up to eight rows at a time, at memory speed for few
    plain     pairs in 16 bits (AVX2), or plain code

Activations of 16 bits are two numbers of 8: a row, and what rounding leaves of it, are two rows of
one product, and their outputs are added.

With bfloat16 activations (:class:`CodeProduct`, ``native/code_products.cpp``), for processors that
multiply bfloat16: y = sum over groups s (q x) + o sum(x), codes made bfloat16 numbers on the way.

A row of the result has the same bits whatever the other rows and the number of threads. Weights
are laid out for these instructions when a model is prepared: outputs by 16, and inputs by 4 or by
pairs; the rows that fill up the last tile have codes 0, and a last group is filled up to 64 or 128
inputs. Memory: that of the stored tensors.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.compress.rows import GROUP
from sharpen.core.huge_pages import collapse
from sharpen.models.huge_tensors import huge_zeros
from sharpen.models.products import NativeProduct, has_tiles
from sharpen.native.build import function, load
from sharpen.native.info import cpu_flags, variant

__all__ = ["WAYS", "CodeProduct", "IntegerProduct", "PackedRows", "RowPart", "best_way"]

RowPart = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Places [n], codes [n, K], scales [G, n], and zero points [G, n] of 4-bit or None of 8-bit rows;
codes are 0 .. 15 or -127 .. 127."""

WAYS = ("plain", "vnni", "tiles")
_TWICE = 4
_LANES = 16
_STEP = 32
_CHUNK, _LINE = 64 << 20, 64  # bytes


class _Part(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("codes", "scales", "zeros", "places")),
        *((name, ctypes.c_int64) for name in ("tiles", "bits")),
    ]


class IntegerProduct:
    """[R, K] -> [R, N] in the type of x; x is rounded by row and group.

    Args:
        parts: all rows of the weight; each place once.
        shape: (N, K).
        bias: [N], or None.
        library: the compiled ``integer_products``.
        way: of :data:`WAYS`.
        activation_bits: 8 or 16, of the rounded x.
    """

    def __init__(
        self,
        parts: Iterable[RowPart],
        shape: tuple[int, int],
        bias: Tensor | None,
        library: ctypes.CDLL,
        way: str,
        activation_bits: int = 8,
    ) -> None:
        self._out, self._in = shape
        self._way = WAYS.index(way) | (_TWICE if activation_bits == 16 else 0)
        self._bias = bias.float().contiguous() if bias is not None else None
        packed: dict[int, list[tuple[Tensor, ...]]] = {}
        for part in parts:
            if part[0].numel():
                packed.setdefault(8 if part[3] is None else 4, []).append(_packed(*part))
        self._tensors = {
            bits: [_kept(pieces) for pieces in zip(*packed[bits], strict=True)]
            for bits in sorted(packed)
        }
        self._parts = (_Part * len(packed))(
            *(
                _Part(
                    codes=codes.data_ptr(),
                    scales=scales.data_ptr(),
                    zeros=zeros.data_ptr() if bits == 4 else None,
                    places=places.data_ptr(),
                    tiles=len(places),
                    bits=bits,
                )
                for bits, (codes, scales, zeros, places) in self._tensors.items()
            )
        )
        pointer, integer, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        types = (pointer, integer, *[pointer] * 3, *[integer] * 3, count, count)
        self._native = {
            dtype: function(library, f"product_{suffix}", *types)
            for dtype, suffix in ((torch.float32, "f32"), (torch.bfloat16, "bf16"))
        }

    @classmethod
    def of(
        cls,
        parts: Iterable[RowPart],
        shape: tuple[int, int],
        bias: Tensor | None,
        activation_bits: int = 8,
    ) -> Self | None:
        """The product for this machine; None where there is to be no native code."""
        library = load("integer_products")
        if library is None:
            return None
        return cls(parts, shape, bias, library, best_way(library), activation_bits)

    @property
    def nbytes(self) -> int:
        """Of the weights: what a product reads."""
        return sum(x.nbytes for tensors in self._tensors.values() for x in tensors)

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        native = self._native.get(x.dtype)
        if native is None:
            return self(x.float()).to(x.dtype)
        x = x.contiguous()
        y = x.new_empty((x.shape[0], self._out))
        native(
            ctypes.addressof(self._parts),
            len(self._parts),
            self._bias.data_ptr() if self._bias is not None else None,
            x.data_ptr(),
            y.data_ptr(),
            x.shape[0],
            self._in,
            self._out,
            self._way,
            torch.get_num_threads(),
        )
        return y

    def rows(self) -> PackedRows | None:
        """Its weights by row; None where some have 4 bits."""
        if set(self._tensors) != {8}:
            return None
        codes, scales, _, places = self._tensors[8]
        return PackedRows(codes, scales, places, self._in)

    def native(self, dtype: torch.dtype) -> tuple[NativeProduct, int] | None:
        """See :class:`~sharpen.models.products.NativeProduct`."""
        if dtype not in self._native:
            return None
        made = NativeProduct.of(
            self._native[dtype],
            NativeProduct.PARTS,
            weight=ctypes.addressof(self._parts),
            parts=len(self._parts),
            bias=self._bias.data_ptr() if self._bias is not None else None,
            inputs=self._in,
            outputs=self._out,
            way=self._way,
        )
        return made, sys.maxsize


class PackedRows:
    """Rows of 8-bit weights that are laid out for products.

    Args:
        codes: [T, 16 K'] uint8.
        scales: [T, G, 16].
        places: [T, 16] int32, rows of the weight; -1 for none.
        columns: K.
    """

    def __init__(self, codes: Tensor, scales: Tensor, places: Tensor, columns: int) -> None:
        self._codes = codes.view(codes.shape[0], -1, _LANES, 4)
        self._scales = scales
        self._columns = columns
        where = places.flatten()
        is_row = where >= 0
        self._at = torch.empty(int(is_row.sum()), dtype=torch.int32)
        self._at[where[is_row].long()] = is_row.nonzero()[:, 0].int()

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [n, K] int8 and scales [G, n] of rows [n]."""
        at = self._at[ids].long()
        tile, lane = at // _LANES, at % _LANES
        codes = (self._codes[tile, :, lane] ^ 128).view(torch.int8).flatten(1)
        return codes[:, : self._columns], self._scales[tile, :, lane].T


class _Weight(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("codes", "scales")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "bits", "group")),
    ]


class CodeProduct:
    """[R, K] -> [R, N] in the type of x, which is rounded to bfloat16 if it is another.

    Args:
        codes: [N, K] int8, -8 .. 7 with 4 bits.
        scales: [N, G], for equal groups of inputs, of a multiple of 32 unless there is one group.
        offsets: [N, G], what is added to q s, or None.
        bits: 4 or 8.
        bias: [N], or None.
        library: the compiled ``code_products``.
        tiles: use tile registers.
    """

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        offsets: Tensor | None,
        bits: int,
        bias: Tensor | None,
        library: ctypes.CDLL,
        tiles: bool,
    ) -> None:
        self._out, columns = codes.shape
        self._tiles = tiles
        self._bias = bias.float().contiguous() if bias is not None else None
        self._codes = _steps(codes, bits)
        extra = -self._out % _LANES
        both = torch.stack((scales, torch.zeros_like(scales) if offsets is None else offsets))
        both = F.pad(both.to(torch.bfloat16), (0, 0, 0, extra))
        groups = scales.shape[1]
        self._scales = both.view(2, -1, _LANES, groups).permute(1, 3, 0, 2).contiguous()
        group = columns // groups if groups > 1 else columns + -columns % _STEP
        self._described = _Weight(
            self._codes.data_ptr(), self._scales.data_ptr(), columns, self._out, bits, group
        )
        collapse([(self._codes.data_ptr(), self._codes.nbytes)])
        pointer, count = ctypes.c_void_p, ctypes.c_int
        types = (*[pointer] * 4, ctypes.c_int64, count, count)
        self._native = {
            dtype: function(library, f"product_{suffix}", *types)
            for dtype, suffix in ((torch.float32, "f32"), (torch.bfloat16, "bf16"))
        }

    @classmethod
    def of(
        cls,
        codes: Tensor,
        scales: Tensor,
        offsets: Tensor | None,
        bits: int,
        bias: Tensor | None,
    ) -> Self | None:
        """The product for this machine; None where it does not multiply bfloat16."""
        library = load("code_products")
        if library is None or variant() != "avx512" or "avx512_bf16" not in cpu_flags():
            return None
        return cls(codes, scales, offsets, bits, bias, library, has_tiles(library, "bf16"))

    @property
    def nbytes(self) -> int:
        """Of the weights: what a product reads."""
        return self._codes.nbytes + self._scales.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        native = self._native.get(x.dtype)
        if native is None:
            return self(x.to(torch.bfloat16)).to(x.dtype)
        y = x.new_empty((x.shape[0], self._out))
        x = x.to(torch.bfloat16).contiguous()
        native(
            ctypes.addressof(self._described),
            self._bias.data_ptr() if self._bias is not None else None,
            x.data_ptr(),
            y.data_ptr(),
            x.shape[0],
            self._tiles,
            torch.get_num_threads(),
        )
        return y

    def native(self, dtype: torch.dtype) -> tuple[NativeProduct, int] | None:
        """See :class:`~sharpen.models.products.NativeProduct`."""
        if dtype != torch.bfloat16:
            return None
        made = NativeProduct.of(
            self._native[dtype],
            NativeProduct.DESCRIBED,
            weight=ctypes.addressof(self._described),
            bias=self._bias.data_ptr() if self._bias is not None else None,
            inputs=self._described.inputs,
            outputs=self._out,
            way=self._tiles,
        )
        return made, sys.maxsize


class _Space:
    """Memory in huge pages for what products keep, taken piece by piece."""

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.uint8)
        self._lock = threading.Lock()

    def take(self, size: int) -> Tensor:
        """[size] uint8, at a line of the cache."""
        with self._lock:
            if size > self._free.numel():
                self._free = huge_zeros((max(size, _CHUNK),), torch.uint8)
            found = self._free[:size]
            self._free = self._free[-(-size // _LINE) * _LINE :]
            return found


_space = _Space()


def _kept(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces end to end, where they stay: between them, nothing that is free for long."""
    rows = sum(piece.shape[0] for piece in pieces)
    shape, dtype = (rows, *pieces[0].shape[1:]), pieces[0].dtype
    memory = _space.take(math.prod(shape) * dtype.itemsize).view(dtype).view(shape)
    return torch.cat(list(pieces), out=memory)


def _steps(codes: Tensor, bits: int) -> Tensor:
    """Codes [T, S, 256 or 512] uint8 of tiles of 16 outputs and steps of 32 inputs."""
    rows, columns = codes.shape
    codes = F.pad(codes, (0, -columns % _STEP, 0, -rows % _LANES))
    tiles, steps = codes.shape[0] // _LANES, codes.shape[1] // _STEP
    if bits == 8:
        pairs = codes.view(torch.uint8).view(tiles, _LANES, steps, 16, 2)
        return pairs.permute(0, 2, 3, 1, 4).reshape(tiles, steps, -1)
    quarters = (codes + 8).view(torch.uint8).view(tiles, _LANES, steps, 4, 4, 2)
    words = quarters.permute(0, 2, 3, 1, 5, 4)
    return (words[..., ::2] | (words[..., 1::2] << 4)).reshape(tiles, steps, -1)


def best_way(library: ctypes.CDLL) -> str:
    """The fastest of :data:`WAYS` that this processor and the chosen variant have."""
    if variant() != "avx512" or "avx512_vnni" not in cpu_flags():
        return "plain"
    return "tiles" if has_tiles(library, "int8") else "vnni"


def _packed(
    places: Tensor, codes: Tensor, scale: Tensor, zero: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes [T, 8 K' or 16 K'] uint8, scales and zeros [T, G, 16], places [T, 16].

    K' is K, filled up to a multiple of 64.
    """
    rows, columns = codes.shape
    groups, extra = -(-columns // GROUP), -rows % _LANES
    tiles = (rows + extra) // _LANES
    codes = F.pad(codes, (0, -columns % (GROUP // 2), 0, extra)).view(torch.uint8)
    whole = codes.shape[1] - codes.shape[1] % GROUP
    halves = zero is not None
    pieces = [
        _quads(piece, width, halves)
        for piece, width in ((codes[:, :whole], GROUP), (codes[:, whole:], GROUP // 2))
        if piece.shape[1]
    ]
    laid = torch.cat(pieces, dim=1)
    if zero is None:
        zero = torch.zeros((groups, 0), dtype=torch.uint8)

    def by_tile(x: Tensor) -> Tensor:
        filled = F.pad(x, (0, tiles * _LANES - x.shape[1]))
        return filled.view(groups, tiles, _LANES).transpose(0, 1).contiguous()

    placed = F.pad(places.to(torch.int32), (0, extra), value=-1).view(tiles, _LANES)
    return laid, by_tile(scale.to(torch.bfloat16)), by_tile(zero), placed


def _quads(codes: Tensor, width: int, halves: bool) -> Tensor:
    """[N, K] uint8 -> [T, ...]: groups of ``width`` inputs by 4, a byte each, or by halves."""
    tiles, groups = codes.shape[0] // _LANES, codes.shape[1] // width
    if halves:
        both = codes.reshape(tiles, _LANES, groups, 2, width // 8, 4)
        quads = both[:, :, :, 0] | (both[:, :, :, 1] << 4)
    else:
        quads = (codes ^ 128).view(tiles, _LANES, groups, width // 4, 4)
    return quads.permute(0, 2, 3, 1, 4).reshape(tiles, -1)
