"""The block's element-wise operations with hand-written backward passes that keep little.

Torch composes these from many small operations on CPU, and each keeps its own inputs. Written as
one operation they keep only what the formula needs:

    rms_norm      y = x / sqrt(mean(x^2) + eps) * w                       keeps x and 1/rms
                  dx = (g w - x^ mean(g w x^)) / rms,  x^ = x / rms
    rotate        (y1, y2) = (x1 cos - x2 sin, x2 cos + x1 sin)           keeps cos and sin
                  backward turns the other way
    swiglu        y = silu(a) b                                           keeps a and b
                  da = g b silu'(a),  db = g silu(a)
    lora_linear   y = x W^T + c + s (x A^T) B^T                           keeps x and s x A^T
                  dx = g W + s (g B) A,  dA = s (g B)^T x,  dB = g^T (s x A^T)

Sums run in float32 at least. First derivatives only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharpen.models.matmul import mm
from sharpen.models.mkl import settle_kernels

__all__ = ["lora_linear", "rms_norm", "rotate", "swiglu"]

settle_kernels()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension (Zhang & Sennrich, 2019, arXiv 1910.07467, eq. 4).

    Args:
        x: [..., H], any float type.
        weight: [H].
        eps: added to the mean square.

    Returns:
        [..., H] in the type of ``x``.
    """
    y: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return x.to(exact).mul(scale).mul_(weight.detach()).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        normed = x.to(scale.dtype).mul(scale)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            product = grad.reshape(-1, x.shape[-1]) * normed.reshape(-1, x.shape[-1])
            grad_weight = product.sum(0).to(weight.dtype)
        weighted = grad.to(scale.dtype).mul(weight)
        mean = torch.linalg.vecdot(weighted, normed).div_(x.shape[-1]).unsqueeze(-1)
        grad_x = weighted.addcmul_(normed, mean, value=-1).mul_(scale).to(x.dtype)
        return grad_x, grad_weight, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn halves of the last dimension by angles.

    Args:
        x: [B, T, heads, D].
        cos: [B, T, 1, D/2], of the type of ``x``; no gradient flows to it.
        sin: the same.
    """
    y: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return y


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (x1, x2), (y1, y2) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    torch.mul(x1, cos, out=y1).addcmul_(x2, sin, value=-sign)
    torch.mul(x2, cos, out=y2).addcmul_(x1, sin, value=sign)
    return y


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1), None, None


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer, GLU variants, 2020, arXiv 2002.05202); all of one shape."""
    y: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return y


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_up = F.silu(gate).mul_(grad)
        return torch.ops.aten.silu_backward(grad * up, gate), grad_up


def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    """A frozen linear layer plus a scaled low-rank product (Hu et al., 2021, eq. 3).

    Args:
        x: [..., in]; under autocast the products run in its type, else in that of ``x``.
        weight: [out, in], frozen.
        bias: [out], frozen, or None.
        a: [r, in].
        b: [out, r].
        scale: s.

    Returns:
        [..., out].
    """
    y: Tensor = _LoraLinear.apply(x, weight, bias, a, b, scale)  # type: ignore[no-untyped-call]
    return y


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            rows = x.reshape(-1, x.shape[-1]).to(dtype)
            down = mm(rows, (a.detach() * scale).to(dtype).T)
            y = mm(rows, weight.to(dtype).T)
            if bias is not None:
                y += bias.to(dtype)
            y.addmm_(down, b.detach().to(dtype).T)
        ctx.save_for_backward(rows, weight, a, b, down)
        ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, x.dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, a, b, down = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        grad_down = mm(grad, b.to(grad.dtype))
        grad_a = mm(grad_down.T, rows).to(a.dtype).mul_(ctx.scale)
        grad_b = (grad.T @ down).to(b.dtype)  # oneDNN would lay all of grad.T out anew
        grad_x = None
        if ctx.needs_input_grad[0]:
            product = mm(grad, weight.to(grad.dtype))
            product.addmm_(grad_down, (a * ctx.scale).to(grad.dtype))
            grad_x = product.view(ctx.shape).to(ctx.dtype)
        return grad_x, None, None, grad_a, grad_b, None
