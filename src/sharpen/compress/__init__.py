"""Making models smaller: integer weights, their files and layers; mixed precision; pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.compress.config import MixLLMConfig, PruneConfig
    from sharpen.compress.files import load_quantized, save_quantized
    from sharpen.compress.grid import Grid
    from sharpen.compress.groupwise import QuantizedWeight, dequantize, quantize
    from sharpen.compress.linear import QuantizedEmbedding, QuantizedLinear, weight_bytes
    from sharpen.compress.mixed import MixedLinear, MixedWeight
    from sharpen.compress.mixed_files import MixedSummary, load_mixed, save_mixed
    from sharpen.compress.prune import prune_mask, prune_model, zero_share

__all__ = [
    "Grid",
    "MixLLMConfig",
    "MixedLinear",
    "MixedSummary",
    "MixedWeight",
    "PruneConfig",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "QuantizedWeight",
    "dequantize",
    "load_mixed",
    "load_quantized",
    "prune_mask",
    "prune_model",
    "quantize",
    "save_mixed",
    "save_quantized",
    "weight_bytes",
    "zero_share",
]

__getattr__ = exports(
    __name__,
    {
        "Grid": "sharpen.compress.grid",
        "MixLLMConfig": "sharpen.compress.config",
        "MixedLinear": "sharpen.compress.mixed",
        "MixedSummary": "sharpen.compress.mixed_files",
        "MixedWeight": "sharpen.compress.mixed",
        "PruneConfig": "sharpen.compress.config",
        "QuantizedEmbedding": "sharpen.compress.linear",
        "QuantizedLinear": "sharpen.compress.linear",
        "QuantizedWeight": "sharpen.compress.groupwise",
        "dequantize": "sharpen.compress.groupwise",
        "load_mixed": "sharpen.compress.mixed_files",
        "load_quantized": "sharpen.compress.files",
        "prune_mask": "sharpen.compress.prune",
        "prune_model": "sharpen.compress.prune",
        "quantize": "sharpen.compress.groupwise",
        "save_mixed": "sharpen.compress.mixed_files",
        "save_quantized": "sharpen.compress.files",
        "weight_bytes": "sharpen.compress.linear",
        "zero_share": "sharpen.compress.prune",
    },
)
