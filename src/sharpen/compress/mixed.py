"""A linear layer whose rows have 4 or 8 bits, on activations of 8 bits.

Zheng et al., "MixLLM: LLM quantization with global mixed-precision between output-features and
highly-efficient system design", 2024, arXiv 2412.14590, section 3.2: activations are rounded for
each token and group of 128 inputs, and the product is taken in two steps::

    s_x = max |x_g| / 127,  x_q = round(x_g / s_x)
    a_g = sum over k in g (q_k - z_g) x_q,k             integers: exact
    y   = sum over g a_g s_w,g s_x,g                    float32

|a_g| <= 15 * 127 * 128 for 4-bit rows and 127 * 127 * 128 for 8-bit rows, so 32-bit integers hold
it, and so does float32 exactly. Both kinds of rows are computed apart and put in their places.

A model prepared for inference takes the product in native code (``kernels.py``). Here, codes stay
packed in memory and are unpacked for one product at a time, a tile of rows after the other.
Processors with integer dot products multiply integers; others take float32, which gives the same
a_g. Off the CPU, and where gradients flow to x, weights are dequantized by tiles instead (for
gradients x is not rounded).

A head rounds its input twice, the second time what the first leaves, which makes 16 bits of two
products. Few numbers of a last hidden state are large, and 8 bits for their neighbours cost more
perplexity than 8 bits for the weights.

Memory: the stored tensors, and a tile of at most 4 MiB of unpacked codes.

Legend: M tokens, N rows, K inputs, G = ceil(K / 128) groups.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.compress.kernels import IntegerProduct, PackedRows
from sharpen.compress.rows import GROUP, RowCodes, grouped, pack_nibbles, unpack_nibbles
from sharpen.core.errors import FileFormatError

__all__ = [
    "MixedEmbedding",
    "MixedLinear",
    "MixedWeight",
    "integer_product",
    "quantize_activations",
    "row_product",
]

_TILE_BYTES = 4 << 20
_TILE_TOKENS = 1024
_LEAST = 1e-20


@dataclass(frozen=True, slots=True)
class MixedWeight:
    """The stored tensors of a layer; a file names them like these fields."""

    weight_int4: Tensor
    """[N4, ceil(K / 2)] uint8, see :func:`~sharpen.compress.rows.pack_nibbles`."""

    scale_int4: Tensor
    """[G, N4] bfloat16, above 0."""

    zero_int4: Tensor
    """[G, N4] uint8, 0 to 15."""

    weight_int8: Tensor
    """[N8, K] int8."""

    scale_int8: Tensor
    """[G, N8] bfloat16, above 0."""

    indices_int4: Tensor
    """[N4] int32: places of the 4-bit rows among all rows, growing."""

    indices_int8: Tensor
    """[N8] int32: the same for 8-bit rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K): outputs and inputs."""
        return self.weight_int4.shape[0] + self.weight_int8.shape[0], self.weight_int8.shape[1]

    @classmethod
    def of(cls, codes: RowCodes) -> Self:
        """Pack a weight."""
        four, eight = (~codes.eight).nonzero().flatten(), codes.eight.nonzero().flatten()
        scale = codes.scale.to(torch.bfloat16)
        return cls(
            weight_int4=pack_nibbles(codes.values[four]),
            scale_int4=scale[four].T.contiguous(),
            zero_int4=codes.zero[four].to(torch.uint8).T.contiguous(),
            weight_int8=codes.values[eight].to(torch.int8),
            scale_int8=scale[eight].T.contiguous(),
            indices_int4=four.to(torch.int32),
            indices_int8=eight.to(torch.int32),
        )

    @classmethod
    def checked(cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], where: str) -> Self:
        """The weight of stored tensors.

        Args:
            tensors: by the names of the fields.
            shape: (N, K) the layer must have.
            where: file and layer, for messages.

        Raises:
            FileFormatError: a part is missing, of the wrong shape or type, or out of range.
        """
        for name in cls.names():
            if name not in tensors:
                raise FileFormatError(f"{where} lacks {name}.")
        found = cls(**{name: tensors[name] for name in cls.names()})
        rows, columns = shape
        groups = -(-columns // GROUP)
        four, eight = found.indices_int4.numel(), found.indices_int8.numel()
        wanted = {
            "weight_int4": (torch.uint8, (four, -(-columns // 2))),
            "scale_int4": (torch.bfloat16, (groups, four)),
            "zero_int4": (torch.uint8, (groups, four)),
            "weight_int8": (torch.int8, (eight, columns)),
            "scale_int8": (torch.bfloat16, (groups, eight)),
            "indices_int4": (torch.int32, (four,)),
            "indices_int8": (torch.int32, (eight,)),
        }
        for name, (dtype, size) in wanted.items():
            tensor = getattr(found, name)
            if tensor.dtype != dtype or tuple(tensor.shape) != size:
                raise FileFormatError(
                    f"{where}: {name} is {tensor.dtype} of shape {list(tensor.shape)}; it must be "
                    f"{dtype} of shape {list(size)}."
                )
        places = torch.cat((found.indices_int4, found.indices_int8))
        if not torch.equal(places.sort().values, torch.arange(rows, dtype=torch.int32)):
            raise FileFormatError(
                f"{where}: indices_int4 and indices_int8 must name each of {rows} rows once."
            )
        for name in ("scale_int4", "scale_int8"):
            scale = getattr(found, name)
            if not bool((torch.isfinite(scale) & (scale > 0)).all()):
                raise FileFormatError(f"{where}: {name} must hold finite numbers above 0.")
        if bool((found.zero_int4 > 15).any()):
            raise FileFormatError(f"{where}: zero_int4 must be from 0 to 15.")
        return found

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the stored tensors."""
        return tuple(field.name for field in fields(cls))

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by name."""
        return {name: getattr(self, name) for name in self.names()}

    def parts(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """Places [n], codes [n, ...], scales [G, n] and zeros [G, n], for tiles of rows."""
        columns = self.shape[1]
        size = max(64, _TILE_BYTES // columns)
        for part in _tiles(self.weight_int4.shape[0], size):
            places, codes = self.indices_int4[part], self.weight_int4[part]
            values = unpack_nibbles(codes, columns)
            yield places, values, self.scale_int4[:, part], self.zero_int4[:, part]
        for part in _tiles(self.weight_int8.shape[0], size):
            places, codes = self.indices_int8[part], self.weight_int8[part]
            yield places, codes, self.scale_int8[:, part], None

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight (q - z) s as [N, K], computed in float32."""
        out = torch.empty(self.shape, dtype=dtype, device=self.weight_int8.device)
        for places, values, scale, zero in self.parts():
            out[places.long()] = _dequantized(values, scale, zero).to(dtype)
        return out


class MixedLinear(nn.Module):
    """A linear layer with a :class:`MixedWeight`.

    Args:
        weight: [N, K].
        bias: [N], or None.
        activation_bits: 8 or 16, of the rounded input.
    """

    def __init__(
        self,
        weight: MixedWeight,
        bias: Tensor | None = None,
        *,
        activation_bits: Literal[8, 16] = 8,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.activation_bits = activation_bits
        for name, tensor in weight.tensors().items():
            self.register_buffer(name, tensor)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> MixedWeight:
        """The stored tensors."""
        return MixedWeight(**{name: getattr(self, name) for name in MixedWeight.names()})

    @classmethod
    def product_of(cls, layers: Sequence[Self]) -> IntegerProduct | None:
        """The native product of layers on the same input, outputs end to end; None without one."""
        weights = [layer.weight for layer in layers]
        activation_bits = layers[0].activation_bits
        alike = all(layer.activation_bits == activation_bits for layer in layers)
        if weights[0].weight_int8.device.type != "cpu" or not alike:
            return None
        sizes = [weight.shape[0] for weight in weights]
        offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        bias = None
        if any(layer.bias is not None for layer in layers):
            bias = torch.zeros(sum(sizes))
            for layer, offset in zip(layers, offsets, strict=True):
                if layer.bias is not None:
                    bias[offset : offset + layer.out_features] = layer.bias.detach().float()
        parts = (
            (places + offset, codes, scale, zero)
            for weight, offset in zip(weights, offsets, strict=True)
            for places, codes, scale, zero in weight.parts()
        )
        shape = sum(sizes), weights[0].shape[1]
        return IntegerProduct.of(parts, shape, bias, activation_bits)

    def extra_repr(self) -> str:
        """Shape and bits."""
        weight = self.weight
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"rows_int4={len(weight.indices_int4)}, rows_int8={len(weight.indices_int8)}, "
            f"activation_bits={self.activation_bits}"
        )

    def _apply(self, fn: object, recurse: bool = True) -> Self:
        """Move, but keep the scales' type, which is the file's and the kernels'."""
        scales = {name: getattr(self, name) for name in ("scale_int4", "scale_int8")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, scale in scales.items():
            setattr(self, name, scale.to(getattr(self, name).device))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N], in the type of ``x`` (the autocast type under autocast)."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        rows = x.reshape(-1, self.in_features)
        y = row_product(rows, self.weight, self.activation_bits).to(dtype)
        if self.bias is not None:
            y = y + self.bias.to(dtype)
        return y.view(*x.shape[:-1], self.out_features)


class MixedEmbedding(nn.Module):
    """A token embedding of 8-bit rows, whose tensors a tied head shares.

    Args:
        weight: [V, H], all of whose rows have 8 bits.
        dtype: of the output.
    """

    def __init__(self, weight: MixedWeight, *, dtype: torch.dtype) -> None:
        super().__init__()
        assert not weight.indices_int4.numel()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.dtype = dtype
        self.register_buffer("weight_int8", weight.weight_int8)
        self.register_buffer("scale_int8", weight.scale_int8)
        self.weight_int8: Tensor
        self.scale_int8: Tensor
        self._rows: PackedRows | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """[...] int64 -> [..., H]."""
        flat = ids.flatten()
        if self._rows is not None:
            codes, scale = self._rows(flat)
        else:
            codes, scale = self.weight_int8[flat], self.scale_int8[:, flat]
        rows = _dequantized(codes, scale, None)
        return rows.to(self.dtype).view(*ids.shape, self.embedding_dim)

    def share(self, head: nn.Module, product: object) -> None:
        """Read the weights of a tied head's product from now on, so that they are held once.

        Args:
            head: the layer.
            product: made of it; any other than a native one changes nothing.
        """
        own = getattr(head, "weight_int8", None)
        tied = own is not None and own.data_ptr() == self.weight_int8.data_ptr()
        rows = product.rows() if tied and isinstance(product, IntegerProduct) else None
        if rows is not None:
            self._rows = rows
            self.weight_int8 = self.weight_int8.new_empty((0, self.embedding_dim))

    def _apply(self, fn: object, recurse: bool = True) -> Self:
        """As :meth:`MixedLinear._apply`."""
        scale = self.scale_int8
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scale_int8 = scale.to(self.scale_int8.device)
        return self


def row_product(x: Tensor, weight: MixedWeight, activation_bits: Literal[8, 16] = 8) -> Tensor:
    """X W^T by the path that suits the device and whether gradients flow.

    Args:
        x: [M, K], any float type.
        weight: [N, K].
        activation_bits: of the rounded x.

    Returns:
        [M, N] float32.
    """
    if x.requires_grad:
        return F.linear(x.float(), weight.dequantized())
    codes, scale = quantize_activations(x)
    rounded = (grouped(codes.float()) * scale[..., None]).flatten(1)[:, : x.shape[1]]
    rest = row_product(x.float() - rounded, weight) if activation_bits == 16 else None
    if x.device.type == "cpu":
        y = integer_product(codes, scale, weight)
        return y if rest is None else y.add_(rest)
    y = rounded.new_empty(x.shape[0], weight.shape[0])
    for places, values, s, z in weight.parts():
        y[:, places.long()] = rounded @ _dequantized(values, s, z).T
    return y if rest is None else y.add_(rest)


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round to symmetric 8 bits by token and group.

    Args:
        x: [M, K], any float type.

    Returns:
        [M, K] int8 codes from -127 to 127, and [M, G] float32 scales. A group of NaN or infinity
        has a scale that is no number, so that it shows in the product.
    """
    groups = grouped(x.float())
    scale = groups.abs().amax(-1).clamp(min=_LEAST) / 127
    codes = torch.round(groups / scale[..., None]).nan_to_num_(0.0).to(torch.int8)
    return codes.flatten(1)[:, : x.shape[1]], torch.where(torch.isfinite(scale), scale, torch.nan)


def integer_product(codes: Tensor, scale: Tensor, weight: MixedWeight) -> Tensor:
    """The product in two steps: integers within a group, float32 over groups.

    Args:
        codes: [M, K] int8, activations.
        scale: [M, G] float32, theirs.
        weight: [N, K].

    Returns:
        [M, N] float32.
    """
    tokens = codes.shape[0]
    y = scale.new_empty(tokens, weight.shape[0])
    for places, values, of_weight, zero in weight.parts():
        where = places.long()
        for rows in _tiles(tokens, _TILE_TOKENS):
            found = _two_steps(codes[rows], scale[rows], values, of_weight, zero)
            y[rows].index_copy_(1, where, found)
    return y


def _two_steps(
    codes: Tensor, scale: Tensor, values: Tensor, of_weight: Tensor, zero: Tensor | None
) -> Tensor:
    y = scale.new_zeros(codes.shape[0], values.shape[0])
    of_weight = of_weight.float()
    for group, part in enumerate(_tiles(codes.shape[1], GROUP)):
        inside = values[:, part]
        if zero is not None:
            inside = inside - zero[group].view(torch.int8)[:, None]
        exact = _integers(codes[:, part], inside).mul_(of_weight[group])
        y.addcmul_(exact, scale[:, group, None])
    return y


def _integers(x: Tensor, w: Tensor) -> Tensor:
    """X w^T of int8 matrices [m, k] and [n, k], k <= 128, as float32; exact either way."""
    if _has_integer_dots() and x.shape[1] > 1:  # _int_mm misreads matrices of one column
        return torch._int_mm(x.contiguous(), w.contiguous().T).float()
    return x.float() @ w.float().T


@functools.cache
def _has_integer_dots() -> bool:
    return bool(torch.cpu._is_vnni_supported())


def _dequantized(values: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    centred = grouped(values.float())
    if zero is not None:
        centred = centred - zero.T.float()[..., None]
    return (centred * scale.T.float()[..., None]).flatten(1)[:, : values.shape[1]]


def _tiles(total: int, size: int) -> Iterator[slice]:
    for begin in range(0, total, size):
        yield slice(begin, min(begin + size, total))
