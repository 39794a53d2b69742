"""Integers of 4 and 8 bits in int32 words, as the ``pack-quantized`` format lays them out.

::

    word = sum_i (q_i + 2^(b-1)) << (b i)        i = 0 .. 32/b - 1, little-endian

Rows are padded with zero bits to a whole word. A quantized layer is stored as ``weight_packed``
[N, ceil(K b / 32)] int32, ``weight_scale`` [N, G], ``weight_shape`` [2] int64 and, if asymmetric,
``weight_zero_point`` [ceil(N b / 32), G] int32, packed along rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.compress.groupwise import QuantizedWeight
from sharpen.core.errors import FileFormatError

__all__ = ["pack_int32", "pack_weight", "unpack_int32", "unpack_weight"]


def pack_int32(values: Tensor, bits: int) -> Tensor:
    """Pack rows.

    Args:
        values: [N, K] int8, from -2^(bits-1) to 2^(bits-1) - 1.
        bits: 4 or 8.

    Returns:
        [N, ceil(K bits / 32)] int32.
    """
    per_word = 32 // bits
    unsigned = (values.to(torch.int16) + (1 << (bits - 1))).to(torch.uint8)
    padded = F.pad(unsigned, (0, -unsigned.shape[1] % per_word))
    if bits == 4:
        padded = padded[:, 0::2] | (padded[:, 1::2] << 4)
    # A copy, since a transposed row counts as contiguous and still cannot be viewed as words.
    return padded.clone(memory_format=torch.contiguous_format).view(torch.int32)


def unpack_int32(words: Tensor, bits: int, columns: int) -> Tensor:
    """Undo :func:`pack_int32`.

    Args:
        words: [N, ceil(columns bits / 32)] int32.
        bits: 4 or 8.
        columns: of the result.

    Returns:
        [N, columns] int8.
    """
    raw = words.clone(memory_format=torch.contiguous_format).view(torch.uint8)
    if bits == 4:
        raw = torch.stack((raw & 15, raw >> 4), dim=-1).flatten(1)
    # Taking off 2^(b-1) in 8-bit arithmetic wraps to the right signed value.
    return raw[:, :columns].contiguous().view(torch.int8) - (1 << (bits - 1) if bits == 4 else -128)


def pack_weight(quantized: QuantizedWeight) -> dict[str, Tensor]:
    """The tensors a file stores for a weight, by the part of their name after the layer's."""
    tensors = {
        "weight_packed": pack_int32(quantized.values, quantized.bits),
        "weight_scale": quantized.scale.contiguous(),
        "weight_shape": torch.tensor(quantized.values.shape, dtype=torch.int64),
    }
    if quantized.zero is not None:
        packed = pack_int32(quantized.zero.T.contiguous(), quantized.bits)
        tensors["weight_zero_point"] = packed.T.contiguous()
    return tensors


def unpack_weight(
    tensors: Mapping[str, Tensor], bits: int, shape: tuple[int, int], where: str
) -> QuantizedWeight:
    """The weight of stored tensors, everything checked.

    Args:
        tensors: as :func:`pack_weight` names them.
        bits: 4 or 8.
        shape: (N, K) the layer must have.
        where: file and layer, for messages.

    Raises:
        FileFormatError: a part is missing or of the wrong shape or type, or a scale is 0 or
            no number.
    """
    rows, columns = shape
    for name in ("weight_packed", "weight_scale", "weight_shape"):
        if name not in tensors:
            raise FileFormatError(f"{where} lacks {name}.")
    packed, scale = tensors["weight_packed"], tensors["weight_scale"]
    if tensors["weight_shape"].tolist() != [rows, columns]:
        raise FileFormatError(
            f"{where}: weight_shape is {tensors['weight_shape'].tolist()}; config.json says "
            f"{[rows, columns]}."
        )
    _check(packed, torch.int32, (rows, -(-columns * bits // 32)), f"{where}: weight_packed")
    grouped = scale.ndim == 2 and scale.shape[0] == rows and scale.shape[1] > 0
    if not grouped or columns % scale.shape[1]:
        raise FileFormatError(
            f"{where}: weight_scale has shape {list(scale.shape)}; it must be [{rows}, G] with G "
            f"dividing {columns}."
        )
    if not scale.is_floating_point() or not bool((torch.isfinite(scale) & (scale != 0)).all()):
        raise FileFormatError(f"{where}: weight_scale must hold finite numbers other than 0.")
    zero = None
    if "weight_zero_point" in tensors:
        stored = tensors["weight_zero_point"]
        wanted = (-(-rows * bits // 32), scale.shape[1])
        _check(stored, torch.int32, wanted, f"{where}: weight_zero_point")
        zero = unpack_int32(stored.T.contiguous(), bits, rows).T.contiguous()
    return QuantizedWeight(unpack_int32(packed, bits, columns), scale, zero, bits)


def _check(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, int], where: str) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise FileFormatError(
            f"{where} is {tensor.dtype} of shape {list(tensor.shape)}; it must be {dtype} of shape "
            f"{list(shape)}."
        )
