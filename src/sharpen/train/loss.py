"""Cross entropy over labelled positions that never holds all logits (tiled loss).

For hidden states h_i, head weight W and labels y_i, with a scale c (1 / number of valid labels)::

    loss   = c * sum_i (logsumexp(W h_i) - (W h_i)[y_i])
    dL/dh  = c * (softmax(W h_i) - onehot(y_i)) W
    dL/dW  = c * sum_i (softmax(W h_i) - onehot(y_i)) h_i^T

The gradients are formed tile by tile in the forward pass, while the tile's logits are at hand, so
logits exist for one tile only and are computed once. Memory: tile * V * (4 + e) bytes beside the
gradients, e the bytes of the compute type. Matrix products run in the hidden states' type; softmax
and sums in float32 (float64 for float64 input).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["IGNORE", "auto_tile", "linear_cross_entropy"]

IGNORE = -100
_TILE_BYTES = 64 << 20
_ROUND = 32


def auto_tile(vocab_size: int) -> int:
    """Rows whose float32 logits take about 64 MiB."""
    return max(16, _TILE_BYTES // (4 * vocab_size))


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, scale: float = 1.0, tile: int | None = None
) -> Tensor:
    """Scaled sum of the cross entropy of ``hidden @ weight.T`` at labelled positions.

    Args:
        hidden: [..., H], the model's hidden states after the final norm.
        weight: [V, H], the head's weight, of any float type.
        labels: [...], int64; the token each position must predict, or -100 for none.
        scale: factor of the sum, usually 1 / number of valid labels of the whole batch.
        tile: rows of logits held at once; None holds about 64 MiB.

    Returns:
        A scalar, float32 (float64 for float64 input); 0 when nothing is labelled.
    """
    flat = labels.reshape(-1)
    positions = (flat != IGNORE).nonzero().squeeze(1)
    rows = hidden.reshape(-1, hidden.shape[-1])
    if positions.numel() != flat.numel():
        # oneDNN compiles and keeps a kernel for every row count it meets: few counts, few kernels.
        spare = -positions.numel() % _ROUND if positions.numel() + _ROUND < flat.numel() else 0
        padded = F.pad(positions, (0, spare))
        rows = rows.index_select(0, padded)
        flat = F.pad(flat.index_select(0, positions), (0, spare), value=IGNORE)
    tile = tile or auto_tile(weight.shape[0])
    loss: Tensor = _LinearCrossEntropy.apply(rows, weight, flat, scale, tile)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, scale: float, tile: int
    ) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        exact = torch.promote_types(hidden.dtype, torch.float32)
        weight_c = weight.detach().to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=exact) if wants_weight else None
        total = torch.zeros((), dtype=exact, device=hidden.device)
        for start in range(0, hidden.shape[0], tile):
            rows = hidden[start : start + tile]
            target = labels[start : start + tile, None]
            valid = target != IGNORE
            target = target.clamp(min=0)
            logits = (rows @ weight_c.T).to(exact)
            lse = torch.logsumexp(logits, dim=-1, keepdim=True)
            total += (lse - logits.gather(1, target)).mul_(valid).sum()
            if not (wants_hidden or wants_weight):
                continue
            delta = logits.sub_(lse).exp_()
            delta.scatter_add_(1, target, delta.new_full((), -1.0).expand(target.shape))
            delta_c = delta.mul_(valid * scale).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(delta_c, weight_c, out=grad_hidden[start : start + tile])
            if grad_weight is not None:
                grad_weight += delta_c.T @ rows
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None
