"""Making models smaller: integer weights, their files and the layers that run them."""

from sharpen.compress.files import load_quantized, save_quantized
from sharpen.compress.linear import QuantizedEmbedding, QuantizedLinear, weight_bytes
from sharpen.compress.quantize import Grid, QuantizedWeight, dequantize, quantize

__all__ = [
    "Grid",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "QuantizedWeight",
    "dequantize",
    "load_quantized",
    "quantize",
    "save_quantized",
    "weight_bytes",
]
