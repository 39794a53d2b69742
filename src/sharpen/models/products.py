"""Matrix products of decoding: for each weight the kernel that is fastest for its type and rows.

On CPUs::

    bfloat16          oneDNN, weights reordered once into its blocked layout (AMX, AVX512-BF16)
    float32, 1 to 8   native/products.cpp, which reads each weight once, at memory speed
    float32, to 16    oneDNN on a second, blocked copy of the weights, made when first needed
    float32, more     a plain matrix product

Weights are moved into huge pages: streaming them through 4 KiB pages can halve the speed.
A kind of layer that has a faster product offers it by a class method ``product_of(layers)``, None
where it does not apply. All else runs the layers' own ``forward``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.core.huge_pages import collapse
from sharpen.native.build import function, load

__all__ = ["Product", "product"]

_ROWS_HINT = 8  # the blocked layout oneDNN picks for it is good from 1 row to hundreds
_NATIVE_ROWS = 8
_MAX_FEW_ROWS = 16

Product = Callable[[Tensor], Tensor]


class Blocked:
    """[R, in] -> [R, out] with a weight in oneDNN's own layout."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS_HINT)
        self._bias = bias
        self._linear: Any = torch.ops.mkldnn._linear_pointwise.default
        address = int(torch.ops.mkldnn.data_ptr(self._weight))
        collapse([(address, int(torch.ops.mkldnn._nbytes(self._weight)))])

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._linear(x, self._weight, self._bias, "none", [], "")
        return y


class Float32:
    """[R, in] -> [R, out] in float32.

    Without native code a blocked copy of the weight serves 2 to 8 rows, too.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.contiguous()
        self._bias = bias
        self._blocked: Blocked | None = None
        self._native = _native_linear()
        collapse([(self._weight.data_ptr(), self._weight.nbytes)])

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if 1 <= rows <= _NATIVE_ROWS and self._native is not None:
            return self._by_native(x.contiguous())
        if not 1 < rows <= _MAX_FEW_ROWS:
            return F.linear(x, self._weight, self._bias)
        if self._blocked is None:
            self._blocked = Blocked(self._weight, self._bias)
        return self._blocked(x)

    def _by_native(self, x: Tensor) -> Tensor:
        out_features, in_features = self._weight.shape
        y = x.new_empty((x.shape[0], out_features))
        self._native(
            self._weight.data_ptr(),
            self._bias.data_ptr() if self._bias is not None else None,
            x.data_ptr(),
            y.data_ptr(),
            x.shape[0],
            in_features,
            out_features,
            torch.get_num_threads(),
        )
        return y


def _native_linear() -> Any:
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    types = (pointer, pointer, pointer, pointer, integer, integer, integer, ctypes.c_int)
    library = load("products")
    return function(library, "linear_f32", *types) if library is not None else None


class Layers:
    """One or several layers on the same input, called as they are; outputs end to end."""

    def __init__(self, *layers: nn.Module) -> None:
        self._layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        outputs = [layer(x) for layer in self._layers]
        return torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0].contiguous()


def product(*layers: nn.Module) -> Product:
    """The fastest product for ``layers``, which share their input."""
    fuse = getattr(type(layers[0]), "product_of", None)
    if fuse is not None and all(type(layer) is type(layers[0]) for layer in layers):
        made: Product | None = fuse(layers)
        if made is not None:
            return made
    linear = [layer for layer in layers if type(layer) is nn.Linear]
    if len(linear) < len(layers) or not _can_block(linear[0].weight):
        return Layers(*layers)
    biases = [bias for layer in linear if (bias := getattr(layer, "bias", None)) is not None]
    if 0 < len(biases) < len(linear):
        return Layers(*layers)
    weight = _end_to_end([layer.weight for layer in linear])
    bias = _end_to_end(biases) if biases else None
    return (Float32 if weight.dtype == torch.float32 else Blocked)(weight, bias)


def _end_to_end(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach() for t in tensors]) if len(tensors) > 1 else tensors[0].detach()


def _can_block(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
