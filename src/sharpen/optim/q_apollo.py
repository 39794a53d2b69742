"""Q-APOLLO: APOLLO over weights that are kept in 8 bits, also while they are trained.

Zhu et al., APOLLO, MLSys 2025 (arXiv 2412.05270); weights as in Zhang et al., Q-GaLore, 2024
(arXiv 2407.08296). For each group of 128 weights of the flat matrix::

    scale = max(high - low, 1e-5) / 255       zero = round(-low / scale)
    code = floor(w / scale + u) + zero        w = (code - zero) scale

with u uniform in [0, 1) after a step, so that the expected weight is the one that the step led to,
and 1/2 at first. Layers multiply with the read weights and keep nothing but codes for the backward
pass; no copy of the weights in more bits exists between steps.

Differs from the paper: a group's range includes 0, which the codes could not represent otherwise; a
last group may be shorter; groups that a step leaves as they were keep their codes; the weight is a
parameter as any other, with a gradient of its own. Memory: 1.04 bytes a weight.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.core.errors import ConfigError
from sharpen.optim.apollo import Apollo
from sharpen.optim.engine.philox import philox
from sharpen.optim.engine.rule import is_packed
from sharpen.optim.groups import roles

__all__ = ["Int8Linear", "Int8Weight", "QApollo", "dequantize_weights", "quantize_weights"]

_SMALLEST_RANGE = 1e-5

_logger = logging.getLogger(__name__)


def _noise(count: int, key: tuple[int, int], device: torch.device) -> Tensor:
    """Uniform float32 multiples of 2^-16 in [0, 1): [count]; eight of each counter."""
    words = philox(key, (torch.arange(-(-count // 8), device=device), 0, 2, 0))
    halves = torch.stack([part for w in words for part in (w & 0xFFFF, w >> 16)], -1)
    return halves.view(-1)[:count].to(torch.float32) * 2.0**-16


def _encode(
    w: Tensor, group_size: int, key: tuple[int, int] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [numel], scales and zeros [groups] of a tensor; rounded at random with a key."""
    flat = w.detach().to(torch.float32).reshape(-1)
    x = F.pad(flat, (0, -len(flat) % group_size)).view(-1, group_size)
    low, high = x.amin(1).clamp(max=0.0), x.amax(1).clamp(min=0.0)
    scale = (high - low).clamp(min=_SMALLEST_RANGE) / 255
    zero = (-low / scale).round().clamp(0, 255)
    u: Tensor | float = 0.5
    if key is not None:
        noise = _noise(len(flat), key, w.device)
        u = F.pad(noise, (0, -len(flat) % group_size)).view_as(x)
    codes = ((x / scale.unsqueeze(1) + u).floor() + zero.unsqueeze(1)).clamp(0, 255)
    return codes.to(torch.uint8).view(-1)[: len(flat)], scale, zero.to(torch.uint8)


class Int8Weight(Tensor):
    """A weight in 8 bits that autograd, hooks and ``parameters()`` see as one of its type.

    Reading operations see :meth:`dequantize`; writing to it other than by ``copy_`` is an error.

    Made of:
        codes: uint8 [numel].
        scales: float32 [groups].
        zeros: uint8 [groups].
        group_size: weights of a group.
        shape: of the weight.
        dtype: that it seems to have.

    Examples:
        >>> w = Int8Weight.quantize(torch.tensor([[0.0, 1.0], [-1.0, 0.5]]))
        >>> w.dequantize().round(decimals=2).tolist(), w.packed_bytes
        ([[0.0, 1.0], [-1.0, 0.5]], 9)
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    group_size: int

    @staticmethod
    def __new__(
        cls,
        codes: Tensor,
        scales: Tensor,
        zeros: Tensor,
        group_size: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> Int8Weight:
        """A tensor without values of its own."""
        found: Int8Weight = Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype, device=codes.device
        )
        found.codes, found.scales, found.zeros = codes, scales, zeros
        found.group_size = group_size
        return found

    @classmethod
    def quantize(cls, w: Tensor, group_size: int = 128) -> Int8Weight:
        """Of a tensor's values, to the nearest."""
        return cls(*_encode(w, group_size, None), group_size, tuple(w.shape), w.dtype)

    def dequantize(self) -> Tensor:
        """The values."""
        size = self.group_size
        codes = F.pad(self.codes, (0, -len(self.codes) % size)).view(-1, size)
        values = (codes.to(torch.float32) - self.zeros.unsqueeze(1)) * self.scales.unsqueeze(1)
        return values.view(-1)[: len(self.codes)].view(self.shape).to(self.dtype)

    def requantize_(self, w: Tensor, key: tuple[int, int] | None = None) -> None:
        """Take over values; rounded at random with a key. Groups that are the same stay so."""
        size = self.group_size
        changed = F.pad((w != self.dequantize()).view(-1), (0, -w.numel() % size))
        groups = changed.view(-1, size).any(1)
        codes, scales, zeros = _encode(w, size, key)
        each = groups.repeat_interleave(size)[: len(codes)]
        self.codes.copy_(torch.where(each, codes, self.codes))
        self.scales.copy_(torch.where(groups, scales, self.scales))
        self.zeros.copy_(torch.where(groups, zeros, self.zeros))

    @property
    def packed_bytes(self) -> int:
        """Bytes of codes, scales and zeros."""
        return self.codes.nbytes + self.scales.nbytes + self.zeros.nbytes

    def _with(self, codes: Tensor, scales: Tensor, zeros: Tensor, dtype: torch.dtype) -> Int8Weight:
        return Int8Weight(codes, scales, zeros, self.group_size, tuple(self.shape), dtype)

    def __tensor_flatten__(self) -> tuple[list[str], tuple[int, tuple[int, ...], torch.dtype]]:
        """Its parts, for torch's tools."""
        return ["codes", "scales", "zeros"], (self.group_size, tuple(self.shape), self.dtype)

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], meta: Any, size: Any, stride: Any
    ) -> Int8Weight:
        """From its parts."""
        return Int8Weight(inner["codes"], inner["scales"], inner["zeros"], *meta)

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        """Values and group size."""
        return f"Int8Weight({self.dequantize()}, group_size={self.group_size})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Torch's operations on it."""
        kwargs = kwargs or {}
        aten, x = torch.ops.aten, args[0]
        if func in (aten.detach.default, aten.alias.default):
            return x._with(x.codes, x.scales, x.zeros, x.dtype)
        if func is aten.clone.default:
            return x._with(x.codes.clone(), x.scales.clone(), x.zeros.clone(), x.dtype)
        if func is aten._to_copy.default:
            device = kwargs.get("device") or x.device
            parts = (part.to(device, copy=True) for part in (x.codes, x.scales, x.zeros))
            return x._with(*parts, kwargs.get("dtype") or x.dtype)
        if func is aten.copy_.default and isinstance(x, Int8Weight):
            source = args[1]
            if isinstance(source, Int8Weight) and source.group_size == x.group_size:
                x.codes.copy_(source.codes)
                x.scales.copy_(source.scales)
                x.zeros.copy_(source.zeros)
            else:
                x.requantize_(source.dequantize() if isinstance(source, Int8Weight) else source)
            return x
        if func._schema.is_mutable and isinstance(x, Int8Weight):
            raise ConfigError(
                f"{func} would write to a weight in 8 bits. Write with copy_, or train it with an "
                "optimizer of sharpen.optim."
            )
        return func(
            *torch.utils._pytree.tree_map_only(Int8Weight, Int8Weight.dequantize, args), **kwargs
        )


torch.serialization.add_safe_globals([Int8Weight])


class _Product(torch.autograd.Function):
    """x w^T, which keeps codes for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Int8Weight) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.dequantize().to(x.dtype).T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, w = ctx.saved_tensors
        grad_x = grad_w = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ w.dequantize().to(grad.dtype)
        if ctx.needs_input_grad[1]:
            flat = grad.reshape(-1, grad.shape[-1])
            grad_w = (flat.T @ x.reshape(-1, x.shape[-1]).to(flat.dtype)).to(w.dtype)
        return grad_x, grad_w


class Int8Linear(nn.Module):
    """A linear layer whose weight is an :class:`Int8Weight`.

    Args:
        linear: the layer that it stands for; its bias is taken over.
        group_size: weights of a group.
    """

    def __init__(self, linear: nn.Linear, group_size: int = 128) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        trained = linear.weight.requires_grad
        self.weight = nn.Parameter(Int8Weight.quantize(linear.weight, group_size), trained)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """X [..., in] to [..., out]."""
        out: Tensor = _Product.apply(x, self.weight)  # type: ignore[no-untyped-call]
        bias: Tensor | None = self.bias
        return out if bias is None else out + bias

    def extra_repr(self) -> str:
        """As of ``nn.Linear``."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def quantize_weights(
    model: nn.Module, *, group_size: int = 128, targets: str | None = None
) -> list[str]:
    """Keep the weights of a model's linear layers in 8 bits, in place.

    Args:
        model: its embedding and head stay as they are.
        group_size: weights that share a scale.
        targets: regular expression of the names of layers; default all but the head.

    Returns:
        The names of the layers.

    Raises:
        ConfigError: none is found.

    Examples:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
        >>> quantize_weights(model, targets="0")
        ['0']
    """
    if group_size < 1:
        raise ConfigError(f"group_size={group_size} must be at least 1.")
    matrices = {name for name, role in roles(model).items() if role == "matrix"}
    chosen = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name
        and f"{name}.weight" in matrices
        and (targets is None or re.search(targets, name))
    ]
    if not chosen:
        raise ConfigError(
            f"no linear layer inside of {type(model).__name__} matches targets={targets!r}."
        )
    for name in chosen:
        _replace(model, name, Int8Linear(model.get_submodule(name), group_size))  # type: ignore[arg-type]
    return chosen


def dequantize_weights(model: nn.Module) -> list[str]:
    """The reverse, for saving a model as others read it; returns the names of the layers."""
    chosen = [name for name, module in model.named_modules() if isinstance(module, Int8Linear)]
    for name in chosen:
        layer: Any = model.get_submodule(name)
        with torch.device("meta"):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
        plain.weight = nn.Parameter(layer.weight.dequantize(), layer.weight.requires_grad)
        plain.bias = layer.bias
        _replace(model, name, plain)
    return chosen


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


class QApollo(Apollo):
    """Q-APOLLO: :class:`Apollo` for a model after :func:`quantize_weights`.

    Arguments are those of :class:`Apollo`. Other weights of the model are trained as by that.
    """

    def check(self, group: dict[str, Any]) -> None:
        """See :meth:`Optimizer.check`."""
        super().check(group)
        if group["rule"] == "apollo" and not any(is_packed(p) for p in group["params"]):
            _logger.warning(
                "QApollo got no weights in 8 bits; call sharpen.optim.quantize_weights(model) "
                "before it is made."
            )
