"""NF4: frozen weights in 4 bits under adapters (QLoRA; Dettmers et al., 2023, arXiv 2305.14314).

The 16 levels are quantiles of the standard normal distribution, scaled to [-1, 1] and with an exact
zero (section 3, eq. 4); Q is the normal quantile function and d = (1/32 + 1/30) / 2::

    positive   Q(p) / Q(1 - d)    p = 8 of 9 even steps from 1 - d down to 1/2
    negative  -Q(p) / Q(1 - d)    p = 7 of 8 even steps from 1 - d down to 1/2

A weight is cut into blocks of 64 with their largest magnitude as scale; the scales, less their
mean, are stored in 8 bits themselves, in blocks of 256 (double quantization)::

    w ~ level[q] s_k          s_k ~ mean + level8[t] r_j

The 8-bit levels are those of Dettmers et al., 8-bit optimizers, 2021, arXiv 2110.02861: a sign, a
decimal exponent in unary and a linear fraction.

Differs from the paper: optimizer states are not paged; what trains is small here.
Memory: 4 + 8/64 + 32/(64 256) = 4.13 bits a weight. A product dequantizes its weight first, in the
forward and again in the backward pass, so one weight at a time exists in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sharpen.core.errors import ConfigError, DataError
from sharpen.models.decoder import DecoderLM

__all__ = [
    "NF4Linear",
    "NF4Weight",
    "dequantize_model_nf4",
    "dequantize_nf4",
    "nf4_levels",
    "quantize_model_nf4",
    "quantize_nf4",
]

_BLOCK = 64
_SCALE_BLOCK = 256
_CHUNK_BLOCKS = 1 << 13  # blocks dequantized at once: 2 MiB of float32, which stay in the cache


@cache
def nf4_levels() -> Tensor:
    """The 16 levels, ascending, float32 (eq. 4).

    Examples:
        >>> [round(float(level), 4) for level in nf4_levels()[[0, 1, 7, 8, 15]]]
        [-1.0, -0.6962, 0.0, 0.0796, 1.0]
    """
    quantile = NormalDist().inv_cdf
    top = 1 - (1 / 32 + 1 / 30) / 2

    def side(steps: int) -> list[float]:
        return [quantile(top + (0.5 - top) * i / steps) / quantile(top) for i in range(steps)]

    levels = [0.0, *side(8), *(-value for value in side(7))]
    return torch.tensor(sorted(levels), dtype=torch.float32)


@cache
def _scale_levels() -> Tensor:
    """The 256 levels of the scales, ascending, float32."""
    levels = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1.0, 2**exponent + 1)
        fractions = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6)
        levels += [*fractions.tolist(), *(-fractions).tolist()]
    return torch.tensor(sorted(levels), dtype=torch.float32)


@cache
def _pairs(device: torch.device) -> Tensor:
    """[256, 2]: the two levels that a byte stands for."""
    byte = torch.arange(256)
    return nf4_levels()[torch.stack([byte >> 4, byte & 15], dim=1)].to(device)


@dataclass(frozen=True, slots=True)
class NF4Weight:
    """A matrix in NF4."""

    packed: Tensor
    """[ceil(n / 64) 32] uint8: two weights a byte, the first in the upper half."""

    codes: Tensor
    """[ceil(n / 64)] uint8: the blocks' scales."""

    scales: Tensor
    """[ceil(n / 64 / 256)] float32: the scales' scales."""

    mean: Tensor
    """[] float32: of the blocks' scales."""

    shape: tuple[int, int]
    """Of the matrix; n is its number of weights."""

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(t.nbytes for t in (self.packed, self.codes, self.scales, self.mean))


def quantize_nf4(weight: Tensor) -> NF4Weight:
    """Round a matrix to NF4.

    Args:
        weight: [out, in], any float type, finite.

    Returns:
        Its NF4 form, on the same device.

    Raises:
        DataError: it holds NaN or infinity, or is no matrix.
    """
    if weight.ndim != 2 or not weight.numel():
        raise DataError(f"NF4 needs a matrix, got shape {list(weight.shape)}.")
    flat = weight.detach().float().reshape(-1)
    if not bool(torch.isfinite(flat).all()):
        raise DataError("the weight holds NaN or infinity, which NF4 cannot hold.")
    blocks = F.pad(flat, (0, -flat.numel() % _BLOCK)).view(-1, _BLOCK)
    largest = blocks.abs().amax(1)
    unit = blocks / largest.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    nearest = _nearest(unit, nf4_levels()).view(-1, 2)
    mean = largest.mean()
    rest = F.pad(largest - mean, (0, -largest.numel() % _SCALE_BLOCK)).view(-1, _SCALE_BLOCK)
    scales = rest.abs().amax(1)
    unit = rest / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return NF4Weight(
        packed=(nearest[:, 0] << 4) | nearest[:, 1],
        codes=_nearest(unit, _scale_levels()).view(-1)[: largest.numel()].contiguous(),
        scales=scales,
        mean=mean,
        shape=(weight.shape[0], weight.shape[1]),
    )


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Index of the nearest level of each value, uint8."""
    middles = ((levels[1:] + levels[:-1]) / 2).to(values.device)
    return torch.bucketize(values, middles, out_int32=True).to(torch.uint8)


def dequantize_nf4(weight: NF4Weight, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix that ``weight`` stands for, [out, in] of type ``dtype``."""
    pairs = _pairs(weight.packed.device)
    num_blocks = weight.codes.numel()
    levels = _scale_levels().to(weight.codes.device)
    factor = weight.scales.repeat_interleave(_SCALE_BLOCK)[:num_blocks]
    scales = levels[weight.codes.int()].mul_(factor).add_(weight.mean)
    out = torch.empty((num_blocks, _BLOCK), dtype=dtype, device=weight.packed.device)
    packed = weight.packed.view(num_blocks, _BLOCK // 2)
    for start in range(0, num_blocks, _CHUNK_BLOCKS):
        end = min(start + _CHUNK_BLOCKS, num_blocks)
        values = pairs.index_select(0, packed[start:end].reshape(-1).int()).view(-1, _BLOCK)
        out[start:end] = values.mul_(scales[start:end, None])
    rows, columns = weight.shape
    return out.view(-1)[: rows * columns].view(rows, columns)


class NF4Linear(nn.Module):
    """A frozen linear layer whose weight is stored in NF4.

    Args:
        base: the layer; its weight is rounded, its bias kept.

    Attributes:
        dtype: type of the weight it was made of.
    """

    packed: Tensor
    codes: Tensor
    scales: Tensor
    mean: Tensor

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.dtype = base.weight.dtype
        self.bias: nn.Parameter | None = base.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        weight = quantize_nf4(base.weight)
        for name in ("packed", "codes", "scales", "mean"):
            self.register_buffer(name, getattr(weight, name))

    @property
    def quantized(self) -> NF4Weight:
        """Its weight."""
        shape = (self.out_features, self.in_features)
        return NF4Weight(self.packed, self.codes, self.scales, self.mean, shape)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the type of ``x``, under autocast in its type."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def product(self, x: Tensor) -> Tensor:
        """W x without the bias; shapes and types as for :meth:`forward`."""
        y: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return y

    def dequantize(self) -> nn.Linear:
        """A plain layer with the rounded weight, in the type of the original."""
        plain = nn.Linear(1, 1, bias=self.bias is not None, device="meta")
        plain.out_features, plain.in_features = self.out_features, self.in_features
        plain.weight = nn.Parameter(dequantize_nf4(self.quantized, self.dtype), requires_grad=False)
        if self.bias is not None:
            plain.bias = self.bias
        return plain


class _Product(torch.autograd.Function):
    """x W^T, keeping nothing: W is frozen and is dequantized again for the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: NF4Linear) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        ctx.layer, ctx.dtype = layer, x.dtype
        with torch.autocast(kind, enabled=False):
            return F.linear(x.to(dtype), dequantize_nf4(layer.quantized, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        weight = dequantize_nf4(ctx.layer.quantized, grad.dtype)
        return (grad @ weight).to(ctx.dtype), None


def quantize_model_nf4(model: DecoderLM) -> None:
    """Freeze ``model`` and store the linear layers of its blocks in NF4, one after the other.

    Embedding, head and norms keep their type.

    Args:
        model: changed in place; the full weights are freed as it goes.

    Raises:
        ConfigError: its blocks hold no plain linear layers.
    """
    found = {n: m for n, m in model.model.named_modules() if isinstance(m, nn.Linear)}
    if not found:
        raise ConfigError(
            "the model's blocks have no plain linear layers to store in NF4. Load the model it was "
            "quantized from."
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name in list(found):
        _replace(model.model, name, NF4Linear(found.pop(name)))


def dequantize_model_nf4(model: DecoderLM) -> None:
    """Make every NF4 layer of ``model`` a plain one again, with its rounded weight."""
    for name, layer in list(model.model.named_modules()):
        if isinstance(layer, NF4Linear):
            _replace(model.model, name, layer.dequantize())


def _replace(root: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, layer)
