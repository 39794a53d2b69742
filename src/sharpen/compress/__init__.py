"""Making models smaller: integer weights, their files and layers; pruning."""

from sharpen.compress.files import load_quantized, save_quantized
from sharpen.compress.linear import QuantizedEmbedding, QuantizedLinear, weight_bytes
from sharpen.compress.prune import PruneConfig, prune_mask, prune_model, zero_share
from sharpen.compress.quantize import Grid, QuantizedWeight, dequantize, quantize

__all__ = [
    "Grid",
    "PruneConfig",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "QuantizedWeight",
    "dequantize",
    "load_quantized",
    "prune_mask",
    "prune_model",
    "quantize",
    "save_quantized",
    "weight_bytes",
    "zero_share",
]
