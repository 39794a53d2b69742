"""Cross entropy over labelled positions that never holds all logits (tiled loss).

For hidden states h_i, head weight W and labels y_i, with a scale c (1 / number of valid labels)::

    loss   = c * sum_i (logsumexp(W h_i) - (W h_i)[y_i])
    dL/dh  = c * (softmax(W h_i) - onehot(y_i)) W
    dL/dW  = c * sum_i (softmax(W h_i) - onehot(y_i)) h_i^T

The gradients are formed tile by tile in the forward pass, while the tile's logits are at hand, so
logits exist for one tile only and are computed once. Every tile uses the same memory, in place: 4 V
bytes a row, and 2 V more in 16-bit types. No size depends on the number of labels, which differs
from step to step and would leave holes in the heap. Matrix products run in the hidden states' type;
softmax and sums in float32 (float64 for float64 input).
"""

from __future__ import annotations

from collections.abc import Iterator
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
    labelled = (flat != IGNORE).nonzero().squeeze(1)
    positions = labelled if labelled.numel() + _ROUND < flat.numel() else None
    rows = hidden.reshape(-1, hidden.shape[-1])
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        rows, weight, flat, positions, scale, tile or auto_tile(weight.shape[0])
    )
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """``positions`` are the labelled rows; None for all."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        positions: Tensor | None,
        scale: float,
        tile: int,
    ) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        exact = torch.promote_types(hidden.dtype, torch.float32)
        weight_c = weight.detach().to(hidden.dtype)
        grad_hidden = torch.zeros_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=exact) if wants_weight else None
        total = torch.zeros((), dtype=exact, device=hidden.device)
        narrow = hidden.new_empty((tile, weight.shape[0]))
        wide = narrow if exact == hidden.dtype else torch.empty_like(narrow, dtype=exact)
        gathered = hidden.new_empty((tile, hidden.shape[1]))
        for at, target in _tiles(labels, positions, tile):
            count = target.shape[0]
            product, logits = narrow[:count], wide[:count]
            rows = gathered[:count]
            torch.index_select(hidden, 0, at, out=rows)
            valid = target != IGNORE
            target = target.clamp(min=0)
            torch.mm(rows, weight_c.T, out=product)
            if wide is not narrow:
                logits.copy_(product)
            logits.sub_(logits.amax(1, keepdim=True))
            chosen = logits.gather(1, target)
            sums = logits.exp_().sum(1, keepdim=True)
            total += (sums.log() - chosen).mul_(valid).sum()
            share = valid * scale
            delta = logits.mul_(share / sums).scatter_add_(1, target, -share.to(exact))
            if wide is not narrow:
                delta = product.copy_(delta)
            if grad_weight is not None:
                grad_weight += delta.T @ rows
            if grad_hidden is not None:
                torch.mm(delta, weight_c, out=rows)
                grad_hidden.index_add_(0, at, rows)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _tiles(labels: Tensor, positions: Tensor | None, tile: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of each tile and their labels [rows, 1].

    oneDNN compiles and keeps a kernel for every row count it meets: the last tile is filled up to a
    multiple of 32 with row 0, without a label.
    """
    if positions is None:
        positions = torch.arange(labels.numel(), device=labels.device)
    for at in torch.split(positions, tile):
        spare = min(-at.numel() % _ROUND, tile - at.numel())
        target = F.pad(labels.index_select(0, at), (0, spare), value=IGNORE)
        yield F.pad(at, (0, spare)), target[:, None]
