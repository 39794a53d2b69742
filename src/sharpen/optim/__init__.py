"""Gradient optimizers and learning-rate schedules; names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.optim.adamw import AdamW, AdamW4bit, AdamW8bit
    from sharpen.optim.backward import fuse_into_backward
    from sharpen.optim.base import Optimizer
    from sharpen.optim.estimate import MemoryReport, estimate
    from sharpen.optim.groups import describe, param_groups, roles
    from sharpen.optim.quant import BlockQuantTensor, dequantize_blockwise, quantize_blockwise
    from sharpen.optim.registry import available, create, parse_options
    from sharpen.optim.rule import Rule
    from sharpen.optim.schedules import Schedule
    from sharpen.optim.slots import SlotSpec

__all__ = [
    "AdamW",
    "AdamW4bit",
    "AdamW8bit",
    "BlockQuantTensor",
    "MemoryReport",
    "Optimizer",
    "Rule",
    "Schedule",
    "SlotSpec",
    "available",
    "create",
    "dequantize_blockwise",
    "describe",
    "estimate",
    "fuse_into_backward",
    "param_groups",
    "parse_options",
    "quantize_blockwise",
    "roles",
]

_MODULES = {
    "adamw": ("AdamW", "AdamW4bit", "AdamW8bit"),
    "backward": ("fuse_into_backward",),
    "base": ("Optimizer",),
    "estimate": ("MemoryReport", "estimate"),
    "groups": ("describe", "param_groups", "roles"),
    "quant": ("BlockQuantTensor", "dequantize_blockwise", "quantize_blockwise"),
    "registry": ("available", "create", "parse_options"),
    "rule": ("Rule",),
    "schedules": ("Schedule",),
    "slots": ("SlotSpec",),
}

__getattr__ = exports(
    __name__,
    {name: f"sharpen.optim.{module}" for module, names in _MODULES.items() for name in names},
)
