"""What an optimizer remembers of a parameter, declared once.

From a rule's slots follow the allocation, the bytes, how states are cut over ranks, and how they
are kept in few bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sharpen.core.errors import ConfigError

__all__ = ["Kind", "SlotSpec", "quantized_shapes", "slot_bytes", "stored_kind"]

Kind = Literal["fp32", "bf16", "q8", "q4"]


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """One state tensor of a parameter."""

    shape: tuple[int, ...]
    """Of the tensor."""

    code: Literal["signed", "unsigned"] | None = None
    """Which values it holds when kept in few bits; None: always in full precision."""

    rows: bool = True
    """Its first dimension is the parameter's, so that it is cut between rows where that is."""

    init: float | Literal["weights"] = 0.0
    """What it starts with: a number, or the parameter's values."""

    projection: bool = False
    """A basis that could be made again, counted apart."""

    integer: bool = False
    """Holds whole numbers, kept as int32."""

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)


def stored_kind(spec: SlotSpec, group: Mapping[str, Any]) -> Kind:
    """How a group's ``state_dtype`` keeps a slot."""
    kind: Kind = group["state_dtype"]
    if kind not in ("fp32", "bf16", "q8", "q4"):
        raise ConfigError(f"state_dtype={kind!r} must be 'fp32', 'bf16', 'q8' or 'q4'.")
    if spec.code is None or not spec.numel or kind == "bf16":
        return "fp32" if spec.code is None or not spec.numel else kind
    cut = group["layout"] == "row" and len(spec.shape) == 1  # between values of a block
    return "fp32" if cut or spec.numel < group["min_quant_size"] else kind


def quantized_shapes(
    shape: tuple[int, ...], bits: int, block_size: int, layout: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the uint8 codes and float32 scales of a quantized tensor.

    Args:
        shape: of the tensor.
        bits: 8 or 4 a code.
        block_size: elements that share a scale.
        layout: ``flat``, blocks over the whole tensor; or ``row``, over each row by itself.
    """
    rows = shape[0] if layout == "row" and len(shape) > 1 else 1
    width = math.prod(shape) // max(rows, 1)
    codes, blocks = -(-width * bits // 8), -(-width // block_size)
    return ((rows, codes), (rows, blocks)) if layout == "row" else ((codes,), (blocks,))


def slot_bytes(spec: SlotSpec, group: Mapping[str, Any], full: int = 4) -> int:
    """Bytes that a slot takes.

    Args:
        spec: the slot.
        group: the parameter's group.
        full: bytes of full precision, 8 for parameters in float64.
    """
    if not spec.shape:
        return 0  # numbers, not counted
    kind = stored_kind(spec, group)
    if kind == "fp32":
        return (4 if spec.integer else full) * spec.numel
    if kind == "bf16":
        return 2 * spec.numel
    bits = 8 if kind == "q8" else 4
    codes, scales = quantized_shapes(spec.shape, bits, group["block_size"], group["layout"])
    return math.prod(codes) + 4 * math.prod(scales)
