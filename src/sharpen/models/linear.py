"""Linear layers whose float32 products run at the processor's speed.

On AMD's processors torch's float32 products, which are oneMKL's, stay with vectors of 256 bits even
where there are 512: oneDNN's take about half the time. oneDNN compiles code for each size that it
meets and keeps it, megabytes for an odd one: rows that are multiples of 32 go there, all others and
small products stay with torch.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sharpen.native.info import cpu_flags

__all__ = ["ROUND", "Linear", "linear", "mm", "prefers_onednn"]

ROUND = 32
"""Rows of which a multiple goes to oneDNN."""
_LEAST = 1 << 21  # products of two numbers; below, starting it costs more than it saves
_PLAIN = {Tensor, nn.Parameter}  # no DTensor


@lru_cache(maxsize=1)
def prefers_onednn() -> bool:
    """Whether this processor has AVX-512 that oneMKL does not use."""
    if platform.machine() not in ("x86_64", "AMD64") or "avx512f" not in cpu_flags():
        return False
    return torch._C._has_mkldnn and "AuthenticAMD" in Path("/proc/cpuinfo").read_text()


def mm(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """``left @ right`` by the faster library; no gradients.

    Args:
        left: [R, K], of any strides.
        right: [K, C].
        out: [R, C], where it goes; None for a new tensor.
    """
    if not _is_faster(left, right):
        return torch.mm(left, right) if out is None else torch.mm(left, right, out=out)
    multiply: Any = torch.ops.mkldnn._linear_pointwise.default
    found: Tensor = multiply(left, right.T, None, "none", [], "")
    return found if out is None else out.copy_(found)


def _is_faster(left: Tensor, right: Tensor) -> bool:
    rows, inner = left.shape
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == "cpu"
        and {type(left), type(right)} <= _PLAIN
        and rows % ROUND == 0 == inner % 16
        and rows * inner * right.shape[1] >= _LEAST
        and prefers_onednn()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x weight^T + bias`` as in torch, with gradients; first derivatives only.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out], or None.
    """
    rows = x.reshape(-1, x.shape[-1])
    if torch.is_autocast_enabled(x.device.type) or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    if not _is_faster(rows, weight.T):
        return F.linear(x, weight, bias)
    y: Tensor = _Linear.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """Torch's layer, but for the speed of its float32 products."""

    def forward(self, x: Tensor) -> Tensor:
        """See :func:`linear`."""
        return linear(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = mm(x, weight.T)
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants = ctx.needs_input_grad
        return (
            mm(grad, weight) if wants[0] else None,
            mm(grad.T, x) if wants[1] else None,
            grad.sum(0) if wants[2] else None,
        )
