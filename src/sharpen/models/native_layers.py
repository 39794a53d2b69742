"""All layers of a dense decoder over a few rows in one native call: ``native/layers.cpp``.

The same kernels in the same order as operation by operation (``decode.py``), so the same bits,
without the time to start each from Python: 2 to 5 ms for a token of a model of 30 layers.

It is for steps of decoding: every row attends for itself or by a kernel that takes any rows, every
product is native, nobody watches, and no adapter adds to the rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.native_step import AttentionShape, NativeStep
from sharpen.models.products import NativeProduct, Product
from sharpen.models.step import Rows, TorchStep
from sharpen.native.build import function, load

__all__ = ["DenseLayer", "NativeLayers"]

_MOST_ROWS = 64


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """What a layer is made of: norms [H] in one type, and products."""

    input_norm: Tensor
    head_norms: tuple[Tensor, Tensor] | None
    """[D] each, of queries and of keys."""
    mlp_norm: Tensor
    window: int | None
    """Positions a token sees; None for all."""
    qkv: Product
    o: Product
    gate_up: Product
    down: Product


class _Buffers(Protocol):
    """A cache: keys and values [blocks, K, B, D] by layer."""

    def buffers(self, layer: int) -> tuple[Tensor, Tensor]:
        """Of one layer."""
        ...


class _Layer(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("input_norm", "q_norm", "k_norm", "mlp_norm", "keys", "values")
        ),
        ("window", ctypes.c_int64),
        *((name, NativeProduct) for name in ("qkv", "o", "gate_up", "down")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("add_norm", "gate", "turn", "attend", "final_norm")),
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "width", "attend_tiles")),
        ("eps", ctypes.c_float),
    ]


class _Pass(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "cos", "sin", "places", "wanted")),
        *((name, ctypes.c_void_p) for name in ("tables", "sequences", "positions", "firsts")),
        ("out", ctypes.c_void_p),
        ("num_wanted", ctypes.c_int64),
        ("shape", AttentionShape),
    ]


class NativeLayers:
    """The layers and the norm after them; made by :meth:`of`.

    Attributes:
        most_rows: rows of a call, at most.

    Args:
        spec: the model's shape.
        step: has the kernels between the products.
        layers: first to last.
        products: of the layers, four each.
        norm: [H], after the last one.
        library: the compiled ``layers``.
    """

    def __init__(
        self,
        spec: ModelSpec,
        step: NativeStep,
        layers: Sequence[DenseLayer],
        products: Sequence[tuple[NativeProduct, int]],
        norm: Tensor,
        library: ctypes.CDLL,
    ) -> None:
        self.most_rows = min(_MOST_ROWS, *(most for _, most in products))
        self._spec = spec
        self._kept = step, layers, norm  # what the pointers point to
        self._run = function(library, "run_layers", *[ctypes.c_void_p] * 3, ctypes.c_int)
        self._layers = (_Layer * len(layers))(
            *(
                _Layer(
                    input_norm=layer.input_norm.data_ptr(),
                    q_norm=layer.head_norms[0].data_ptr() if layer.head_norms else None,
                    k_norm=layer.head_norms[1].data_ptr() if layer.head_norms else None,
                    mlp_norm=layer.mlp_norm.data_ptr(),
                    window=layer.window or 0,
                    **{
                        name: products[4 * i + j][0]
                        for j, name in enumerate(("qkv", "o", "gate_up", "down"))
                    },
                )
                for i, layer in enumerate(layers)
            )
        )
        kernels = {
            name: ctypes.cast(getattr(step, f"{name}_kernel"), ctypes.c_void_p).value
            for name in ("add_norm", "gate", "turn", "attend")
        }
        self._model = _Model(
            **kernels,
            final_norm=norm.data_ptr(),
            layers=len(layers),
            hidden=spec.hidden_size,
            width=norm.dtype.itemsize,
            attend_tiles=-1 if step.attend_tiles is None else step.attend_tiles,
            eps=spec.rms_norm_eps,
        )

    @classmethod
    def of(
        cls, spec: ModelSpec, step: TorchStep, layers: Sequence[DenseLayer], norm: Tensor
    ) -> Self | None:
        """The call for these layers; None where some of their work is not native."""
        library = load("layers") if isinstance(step, NativeStep) else None
        products = []
        for layer in layers:
            for product in (layer.qkv, layer.o, layer.gate_up, layer.down):
                native = getattr(product, "native", None)
                found = native(norm.dtype) if native is not None else None
                if found is None:
                    return None
                products.append(found)
        if library is None or not products:
            return None
        assert isinstance(step, NativeStep)
        return cls(spec, step, layers, products, norm, library)

    def __call__(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        rows: Rows,
        wanted: Tensor,
        cache: _Buffers,
        threads: int,
    ) -> Tensor:
        """States after the last norm.

        Args:
            x: [R, H], embedded; is overwritten.
            cos: [R or 1, 1, D/2] float32, contiguous, of the rows' positions.
            sin: the same.
            rows: where keys and values go, and what each row sees.
            wanted: [M] int64: rows of the result, each at most once.
            cache: takes the keys and values.
            threads: to share the work; the result does not depend on them.

        Returns:
            [M, H].
        """
        keys = cache.buffers(0)[0]
        for i, layer in enumerate(self._layers):
            buffers = cache.buffers(i)
            layer.keys, layer.values = buffers[0].data_ptr(), buffers[1].data_ptr()
        out = x.new_empty((wanted.shape[0], x.shape[1]))
        one = _Pass(
            x=x.data_ptr(),
            cos=cos.data_ptr(),
            sin=sin.data_ptr(),
            places=rows.places.data_ptr(),
            wanted=wanted.data_ptr(),
            tables=rows.tables.data_ptr(),
            sequences=rows.sequences.data_ptr(),
            positions=rows.positions.data_ptr(),
            firsts=rows.firsts.data_ptr() if rows.firsts is not None else None,
            out=out.data_ptr(),
            num_wanted=wanted.shape[0],
            shape=AttentionShape(
                rows=x.shape[0],
                heads=self._spec.num_heads,
                kv_heads=self._spec.num_kv_heads,
                size=self._spec.head_dim,
                block=keys.shape[2],
                table_width=rows.tables.shape[1],
                rope_stride=cos.stride(0) if cos.shape[0] > 1 else 0,
            ),
        )
        self._run(
            ctypes.addressof(self._model),
            ctypes.addressof(self._layers),
            ctypes.addressof(one),
            threads,
        )
        return out
