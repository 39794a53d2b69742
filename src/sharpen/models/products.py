"""Matrix products of decoding: for each weight the kernel that is fastest for its type and rows.

On CUDA devices one row goes by ``triton_products.py``, more by cuBLAS.

On CPUs, weights in one layout for all rows but where said::

    bfloat16, 1 to 64  native/bf16_products.cpp, on oneDNN's own layout: tile registers (AMX), at
                       memory speed up to 32 rows; without them AVX512-BF16, 1 to 16 rows
    bfloat16, more     oneDNN
    float32, 1 to 8    native/products.cpp, which reads each weight once, at memory speed; so does
                       bfloat16 on processors that have no products of it
    float32, to 16     oneDNN on a second, blocked copy of the weights, made when first needed
    float32, more      a plain matrix product, by the faster library (``matmul.py``)

A row of a native product has the same bits whatever the other rows and the number of threads.
oneDNN compiles code for each number of rows, and keeps a megabyte or so of it for each: rows beyond
a few are filled up with zeros to some multiple (:func:`rounded_rows`).
Weights are moved into huge pages: streaming them through 4 KiB pages can halve the speed.
A kind of layer that has a faster product offers it by a class method ``product_of(layers)``, None
where it does not apply. All else runs the layers' own ``forward``.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.core.huge_pages import collapse
from sharpen.models.matmul import ROUND, mm, prefers_onednn
from sharpen.native.build import function, load
from sharpen.native.info import cpu_flags, variant

__all__ = ["Dense", "NativeProduct", "Product", "has_tiles", "product", "refill"]

_ROWS_HINT = 8  # the blocked layout oneDNN picks for it is good from 1 row to hundreds
_NATIVE_ROWS = 8
_MAX_FEW_ROWS = 16
_TILE_ROWS, _DOT_ROWS = 64, 16  # up to which native bfloat16 products beat oneDNN's
_LEAST_STEP = 16  # rows of a tile

Product = Callable[[Tensor], Tensor]


class NativeProduct(ctypes.Structure):
    """A product as ``native/layers.cpp`` calls it; whoever made it keeps what it points to.

    Its makers have a method ``native(dtype)``, which gives it and the most rows that it is for, or
    None where rows of that type go another way.
    """

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("run", "weight", "bias")),
        *((name, ctypes.c_int64) for name in ("kind", "parts", "inputs", "outputs", "way")),
    ]
    PLAIN, DESCRIBED, PARTS = range(3)

    @classmethod
    def of(cls, run: Any, kind: int, **fields: int | None) -> Self:
        """One that calls the function ``run`` of a library."""
        return cls(run=ctypes.cast(run, ctypes.c_void_p).value, kind=kind, **fields)


class Blocked:
    """[R, in] -> [R, out] with a weight in oneDNN's own layout."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS_HINT)
        self._bias = bias
        self._linear: Any = torch.ops.mkldnn._linear_pointwise.default
        address = int(torch.ops.mkldnn.data_ptr(self._weight))
        collapse([(address, int(torch.ops.mkldnn._nbytes(self._weight)))])

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        more = rounded_rows(rows) - rows
        x = F.pad(x, (0, 0, 0, more)) if more else x
        y: Tensor = self._linear(x, self._weight, self._bias, "none", [], "")
        return y[:rows] if more else y

    def refill(self, weight: Tensor, bias: Tensor | None) -> None:
        """See :func:`refill`."""
        weight = weight.to(self._weight.dtype).contiguous()
        laid = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT)
        source, target = (int(torch.ops.mkldnn.data_ptr(t)) for t in (laid, self._weight))
        ctypes.memmove(target, source, int(torch.ops.mkldnn._nbytes(self._weight)))
        _copy_bias(self._bias, bias)


def rounded_rows(rows: int) -> int:
    """``rows`` or somewhat more: a multiple of 16, or of a sixteenth to a 32nd of them if more.

    Few numbers of rows are met then. 16 and less stay.

    Examples:
        >>> [rounded_rows(rows) for rows in (9, 17, 500, 513)]
        [9, 32, 512, 544]
    """
    if rows <= _LEAST_STEP:
        return rows
    step = max(_LEAST_STEP, 1 << (rows - 1).bit_length() >> 5)
    return -(-rows // step) * step


class BFloat16(Blocked):
    """[R, in] -> [R, out] in bfloat16; few rows by native code on the same bytes, if it can."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._most = 0
        width = _block_width(weight, int(torch.ops.mkldnn.data_ptr(self._weight)))
        library = load("bf16_products") if width and variant() == "avx512" else None
        if library is None or "avx512_bf16" not in cpu_flags():
            return
        self._tiles = has_tiles(library, "bf16")
        self._most = _TILE_ROWS if self._tiles else _DOT_ROWS
        self._out = weight.shape[0]
        self._described = _Weight(
            int(torch.ops.mkldnn.data_ptr(self._weight)), weight.shape[1], self._out, width
        )
        self._added = bias.float() if bias is not None else None
        pointer, count = ctypes.c_void_p, ctypes.c_int
        types = (*[pointer] * 4, ctypes.c_int64, count, count)
        self._native = function(library, "linear_bf16", *types)

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        rows = x.shape[0]
        if not 1 <= rows <= self._most or x.dtype != torch.bfloat16:
            return super().__call__(x)
        x = x.contiguous()
        y = x.new_empty((rows, self._out))
        self._native(
            ctypes.addressof(self._described),
            self._added.data_ptr() if self._added is not None else None,
            x.data_ptr(),
            y.data_ptr(),
            rows,
            self._tiles,
            torch.get_num_threads(),
        )
        return y

    def refill(self, weight: Tensor, bias: Tensor | None) -> None:
        """See :func:`refill`."""
        super().refill(weight, bias)
        if self._most:
            _copy_bias(self._added, bias)

    def native(self, dtype: torch.dtype) -> tuple[NativeProduct, int] | None:
        """See :class:`NativeProduct`."""
        if not self._most or dtype != torch.bfloat16:
            return None
        made = NativeProduct.of(
            self._native,
            NativeProduct.DESCRIBED,
            weight=ctypes.addressof(self._described),
            bias=self._added.data_ptr() if self._added is not None else None,
            inputs=self._described.inputs,
            outputs=self._out,
            way=self._tiles,
        )
        return made, self._most


class _Weight(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "width")),
    ]


def _block_width(weight: Tensor, address: int) -> int:
    """w, if oneDNN laid it out as [out / w][in / 32][16][w][2], filled up with zeros; else 0."""
    columns = -(-weight.shape[1] // 32) * 32
    matching = []
    for width in (32, 64):
        first = weight[:width]
        first = F.pad(first, (0, columns - first.shape[1], 0, width - first.shape[0]))
        laid = first.view(width, columns // 2, 2).transpose(0, 1).reshape(-1)
        stored = (ctypes.c_char * laid.nbytes).from_address(address)
        if torch.equal(torch.frombuffer(stored, dtype=laid.dtype), laid):
            matching.append(width)
    return matching[0] if len(matching) == 1 else 0  # a weight of zeros fits all


def has_tiles(library: ctypes.CDLL, kind: str) -> bool:
    """Whether this processor has tile registers (AMX), and the system grants them.

    Args:
        library: one that is compiled with ``tiles.h``.
        kind: of their products: ``bf16`` or ``int8``.
    """
    granted = ctypes.c_int32(0)
    if {"amx_tile", f"amx_{kind}"} <= cpu_flags():
        function(library, "request_tiles", ctypes.c_void_p)(ctypes.addressof(granted))
    return bool(granted.value)


class RowMajor:
    """[R, in] -> [R, out] by native code for few rows, by torch for more.

    Args:
        weight: [out, in], float32 or bfloat16.
        bias: [out], or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.contiguous()
        self._bias = bias
        self._native = _native_linear(weight.dtype)
        collapse([(self._weight.data_ptr(), self._weight.nbytes)])

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        if 1 <= x.shape[0] <= _NATIVE_ROWS and self._native is not None:
            return self._by_native(x.contiguous())
        return self._by_torch(x)

    def _by_torch(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)

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

    def refill(self, weight: Tensor, bias: Tensor | None) -> None:
        """See :func:`refill`."""
        self._weight.copy_(weight)
        _copy_bias(self._bias, bias)

    def native(self, dtype: torch.dtype) -> tuple[NativeProduct, int] | None:
        """See :class:`NativeProduct`."""
        if self._native is None or dtype != self._weight.dtype:
            return None
        made = NativeProduct.of(
            self._native,
            NativeProduct.PLAIN,
            weight=self._weight.data_ptr(),
            bias=self._bias.data_ptr() if self._bias is not None else None,
            inputs=self._weight.shape[1],
            outputs=self._weight.shape[0],
        )
        return made, _NATIVE_ROWS


class Float32(RowMajor):
    """[R, in] -> [R, out] in float32.

    A blocked copy of the weight serves 9 to 16 rows; without native code 2 to 8, too.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._blocked: Blocked | None = None

    def _by_torch(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows > _MAX_FEW_ROWS and prefers_onednn():
            more = -rows % ROUND
            y = mm(F.pad(x, (0, 0, 0, more)) if more else x, self._weight.T)[:rows]
            return y if self._bias is None else y.add_(self._bias)
        if not 1 < rows <= _MAX_FEW_ROWS:
            return super()._by_torch(x)
        if self._blocked is None:
            self._blocked = Blocked(self._weight, self._bias)
        return self._blocked(x)

    def refill(self, weight: Tensor, bias: Tensor | None) -> None:
        """See :func:`refill`."""
        super().refill(weight, bias)
        self._blocked = None  # made again when it is needed


def _native_linear(dtype: torch.dtype) -> Any:
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    types = (pointer, pointer, pointer, pointer, integer, integer, integer, ctypes.c_int)
    library = load("products")
    name = "linear_f32" if dtype == torch.float32 else "linear_bf16"
    return function(library, name, *types) if library is not None else None


class Dense:
    """[R, in] -> [R, out] on a CUDA device; one row by a Triton kernel, more by cuBLAS.

    Args:
        weight: [out, in].
        bias: [out], or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.contiguous()
        self._bias = bias
        self._kernels = _one_row()

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        if x.shape[0] == 1 and self._kernels is not None:
            y: Tensor = self._kernels.linear_one(x.contiguous(), self._weight, self._bias)
            return y
        return F.linear(x, self._weight, self._bias)

    def gated(self, x: Tensor) -> Tensor | None:
        """[1, out / 2]: silu(g) u of its outputs g, u; None where there is no kernel for it."""
        if x.shape[0] != 1 or self._kernels is None:
            return None
        y: Tensor = self._kernels.gated_one(x.contiguous(), self._weight, self._bias)
        return y

    def refill(self, weight: Tensor, bias: Tensor | None) -> None:
        """See :func:`refill`."""
        self._weight.copy_(weight)
        _copy_bias(self._bias, bias)


def _one_row() -> Any:
    """The kernels, if Triton is there; it need not be where torch has no CUDA."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("sharpen.models.triton_products")


class Layers:
    """One or several layers on the same input, called as they are; outputs end to end."""

    def __init__(self, *layers: nn.Module) -> None:
        self._layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        outputs = [layer(x) for layer in self._layers]
        return torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0].contiguous()

    @property
    def is_plain(self) -> bool:
        """Whether all are linear layers of plain weights."""
        return all(isinstance(layer, nn.Linear) for layer in self._layers)

    def copy(self, layers: Sequence[nn.Module]) -> None:
        """Take over the weights of other layers."""
        for mine, other in zip(self._layers, layers, strict=True):
            assert isinstance(mine, nn.Linear)
            mine.weight.copy_(_weight_of(other))
            _copy_bias(mine.bias, getattr(other, "bias", None))


def product(*layers: nn.Module) -> Product:
    """The fastest product for ``layers``, which share their input."""
    fuse = getattr(type(layers[0]), "product_of", None)
    if fuse is not None and all(type(layer) is type(layers[0]) for layer in layers):
        made: Product | None = fuse(layers)
        if made is not None:
            return made
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    kind = _kind(linear[0].weight) if len(linear) == len(layers) else None
    if kind is None:
        return Layers(*layers)
    biases = [bias for layer in linear if (bias := getattr(layer, "bias", None)) is not None]
    if 0 < len(biases) < len(linear):
        return Layers(*layers)
    weight = _end_to_end([layer.weight for layer in linear])
    bias = _end_to_end(biases) if biases else None
    return kind(weight, bias)


def refill(made: Product, *layers: nn.Module) -> None:
    """Give a product the weights that ``layers`` have now, in place: who points to them goes on.

    Args:
        made: of layers of the same shapes.
        layers: linear ones, plain or with adapters, of any float type.

    Raises:
        ConfigError: the product is of compressed weights.
    """
    if isinstance(made, Layers) and made.is_plain:
        made.copy(layers)
        return
    take = getattr(made, "refill", None)
    if take is None:
        raise ConfigError(
            "the weights of this model are compressed, so new ones cannot be put in. Load the "
            "model it was compressed from."
        )
    biases = [bias for layer in layers if (bias := getattr(layer, "bias", None)) is not None]
    weight = _end_to_end([_weight_of(layer) for layer in layers])
    take(weight, _end_to_end(biases) if biases else None)


def _weight_of(layer: nn.Module) -> Tensor:
    adapted = getattr(layer, "adapted_weight", None)
    return adapted() if adapted is not None else layer.weight  # type: ignore[return-value]


def _copy_bias(target: Tensor | None, bias: Tensor | None) -> None:
    if target is not None and bias is not None:
        target.copy_(bias)


def _end_to_end(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach() for t in tensors]) if len(tensors) > 1 else tensors[0].detach()


def _kind(weight: Tensor) -> Callable[[Tensor, Tensor | None], Product] | None:
    if weight.device.type == "cuda":
        return Dense
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return None
    if weight.dtype == torch.float32:
        return Float32
    if weight.dtype == torch.bfloat16:
        return BFloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else RowMajor
    return None
