"""Rows on two grids, 4 and 8 bits, and how they are laid out in files.

Zheng et al., "MixLLM: LLM quantization with global mixed-precision between output-features and
highly-efficient system design", 2024, arXiv 2412.14590: 4-bit rows are asymmetric, 8-bit rows are
symmetric, and every g = 128 neighbours of a row share a scale (and a zero point)::

    4 bits    l = min(min w, 0) r   h = max(max w, 0) r
              s = max(h - l, 1e-5) / 15        z = clamp(round(-l / s), 0, 15)
              q = clamp(round(w / s) + z, 0, 15)
    8 bits    s = max(max |w| r, 1e-5) / 127   z = 0
              q = clamp(round(w / s), -127, 127)
    w ~ (q - z) s

r <= 1 shrinks the range. Pulling 0 into the range keeps groups whose weights share a sign on the
grid. Scales are rounded up to bfloat16, in which they are stored, before anything is divided by
them.

Differs from the paper: the type of the scales; -128 is not used.

Memory: O(N K). Legend: N rows, K columns, G = ceil(K / 128) groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.compress.groupwise import round_up
from sharpen.core.errors import DataError

__all__ = [
    "GROUP",
    "RowCodes",
    "checked",
    "encode",
    "grouped",
    "pack_nibbles",
    "parameters",
    "quantize_rows",
    "row_bytes",
    "unpack_nibbles",
]

GROUP = 128
"""Neighbours in a row that share a scale."""

_LEAST = 1e-5
_HIGH4, _HIGH8 = 15, 127


@dataclass(frozen=True, slots=True)
class RowCodes:
    """A weight whose rows have 4 or 8 bits."""

    values: Tensor
    """[N, K] int16: 0 .. 15 in 4-bit rows, -127 .. 127 in 8-bit rows."""

    scale: Tensor
    """[N, G] float32 that bfloat16 holds, above 0."""

    zero: Tensor
    """[N, G] float32: 0 .. 15 in 4-bit rows, 0 in 8-bit rows."""

    eight: Tensor
    """[N] bool: the rows with 8 bits."""

    def dequantized(self) -> Tensor:
        """The weight (q - z) s as [N, K] float32."""
        centred = grouped(self.values.float()) - self.zero[..., None]
        return (centred * self.scale[..., None]).flatten(1)[:, : self.values.shape[1]]


def grouped(weight: Tensor) -> Tensor:
    """[N, K] -> [N, G, 128]; the last group is filled up with zeros."""
    extra = -weight.shape[1] % GROUP
    padded = F.pad(weight, (0, extra)) if extra else weight
    return padded.reshape(weight.shape[0], padded.shape[1] // GROUP, GROUP)


def parameters(groups: Tensor, eight: Tensor, ratio: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each group.

    Args:
        groups: [N, G, 128] float32.
        eight: [N] bool, the rows with 8 bits.
        ratio: of the range that the grid covers: a number, or [N, G].

    Returns:
        [N, G] float32 scales, which bfloat16 holds, and [N, G] float32 zero points.
    """
    low = groups.amin(-1).clamp(max=0) * ratio
    high = groups.amax(-1).clamp(min=0) * ratio
    of_four = (high - low).clamp(min=_LEAST) / _HIGH4
    of_eight = torch.maximum(-low, high).clamp(min=_LEAST) / _HIGH8
    by_row = eight[:, None]
    scale = round_up(torch.where(by_row, of_eight, of_four)).float()
    zero = torch.round(-low / scale).clamp_(0, _HIGH4)
    return scale, zero.masked_fill_(by_row, 0)


def encode(weight: Tensor, scale: Tensor, zero: Tensor, eight: Tensor) -> Tensor:
    """Codes of weights on given grids: clamp(round(w / s) + z), in the type of ``weight``.

    Args:
        weight: any shape that starts with N.
        scale: broadcasts to it, above 0.
        zero: the same.
        eight: [N] bool.
    """
    by_row = eight.view(-1, *[1] * (weight.ndim - 1))
    high = torch.where(by_row, _HIGH8, _HIGH4).to(weight.dtype)
    low = torch.where(by_row, -_HIGH8, 0).to(weight.dtype)
    return torch.minimum(torch.maximum(torch.round(weight / scale) + zero, low), high)


def checked(weight: Tensor, where: str) -> Tensor:
    """``weight`` in float32.

    Raises:
        DataError: it is no matrix, holds NaN or infinity, or is too large for bfloat16 scales.
    """
    if weight.ndim != 2 or weight.numel() == 0:
        raise DataError(f"{where} has shape {list(weight.shape)}; a weight has rows and columns.")
    if not bool(torch.isfinite(weight).all()):
        raise DataError(f"{where} holds NaN or infinity and cannot be quantized.")
    weight = weight.detach().float()
    if float(weight.abs().max()) > torch.finfo(torch.bfloat16).max / 4:
        raise DataError(f"{where} has values too large for bfloat16 scales.")
    return weight


def quantize_rows(weight: Tensor, eight: Tensor, *, where: str = "the weight") -> RowCodes:
    """Round each row to the nearest values of its grid.

    Args:
        weight: [N, K], any float type; computed in float32.
        eight: [N] bool, the rows with 8 bits.
        where: the weight's name, for messages.

    Raises:
        DataError: NaN or infinity in the weight, or values too large for bfloat16 scales.

    Examples:
        >>> import torch
        >>> weight = torch.linspace(-1, 1, 256).reshape(2, 128)
        >>> codes = quantize_rows(weight, torch.tensor([False, True]))
        >>> (codes.dequantized() - weight).abs().amax(1) <= codes.scale[:, 0] / 2
        tensor([True, True])
    """
    weight = checked(weight, where)
    groups = grouped(weight)
    scale, zero = parameters(groups, eight)
    values = encode(groups, scale[..., None], zero[..., None], eight).flatten(1)
    return RowCodes(values[:, : weight.shape[1]].to(torch.int16), scale, zero, eight)


def row_bytes(columns: int) -> tuple[int, int]:
    """Stored bytes of one 4-bit and one 8-bit row: codes, scales and zero points."""
    groups = -(-columns // GROUP)
    return -(-columns // 2) + 3 * groups, columns + 2 * groups


def pack_nibbles(codes: Tensor) -> Tensor:
    """Two 4-bit codes a byte.

    Each group of c columns (128, or what is left at the end) takes h = ceil(c / 2) bytes; byte j
    holds column j in its low half and column j + h in its high half. So one load of a group and a
    mask or shift give runs of neighbours.

    Args:
        codes: [N, K] integers from 0 to 15.

    Returns:
        [N, ceil(K / 2)] uint8.
    """
    codes = codes.to(torch.uint8)
    rows, columns = codes.shape
    whole = columns - columns % GROUP
    halves = codes[:, :whole].reshape(rows, whole // GROUP, 2, GROUP // 2)
    packed = (halves[:, :, 0] | (halves[:, :, 1] << 4)).flatten(1)
    if whole == columns:
        return packed.contiguous()
    last = F.pad(codes[:, whole:], (0, columns % 2))
    half = last.shape[1] // 2
    return torch.cat((packed, last[:, :half] | (last[:, half:] << 4)), dim=1)


def unpack_nibbles(packed: Tensor, columns: int) -> Tensor:
    """Undo :func:`pack_nibbles`.

    Args:
        packed: [N, ceil(columns / 2)] uint8.
        columns: of the result.

    Returns:
        [N, columns] int8, from 0 to 15.
    """
    whole = columns - columns % GROUP
    out = packed.new_empty(packed.shape[0], columns + columns % 2)
    for begin, end, length in ((0, whole, GROUP), (whole, out.shape[1], out.shape[1] - whole)):
        if begin < end:
            shape = out.shape[0], (end - begin) // length, length // 2
            source = packed[:, begin // 2 : end // 2].view(shape)
            halves = out[:, begin:end].view(shape[0], shape[1], 2, shape[2])
            torch.bitwise_and(source, 15, out=halves[:, :, 0])
            torch.bitwise_right_shift(source, 4, out=halves[:, :, 1])
    return out[:, :columns].view(torch.int8)
