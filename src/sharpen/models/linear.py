"""Linear layers whose float32 products run at the processor's speed (``matmul.py``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sharpen.models.matmul import goes_to_onednn, mm

__all__ = ["Linear", "linear"]


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
    if not goes_to_onednn(rows, weight.T):
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
