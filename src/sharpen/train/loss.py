"""Cross entropy over labelled positions that never holds all logits (tiled loss).

For hidden states h_i, head weight W and labels y_i, with a scale c (1 / number of valid labels)::

    l_i    = W h_i (+ bias)                                        with softcap t: t tanh(l_i / t)
    s_i    = logsumexp(l_i)
    loss   = c * sum_i (s_i - (1 - e) l_i[y_i] - e mean(l_i) + z s_i^2)
    d_i    = c * ((1 + 2 z s_i) softmax(l_i) - (1 - e) onehot(y_i) - e / V)
                                                     with softcap: d_i (1 - (l_i / t)^2)
    dL/dh  = d_i W,    dL/dW = sum_i d_i h_i^T

e is label smoothing (Szegedy et al., 2016), z the weight of the z-loss, which keeps s_i near 0
(Chowdhery et al., PaLM, 2022), t the cap of the logits (Gemma Team, 2024); all are off by default.

The gradients are formed tile by tile in the forward pass, while the tile's logits are at hand, so
logits exist for one tile only (:mod:`sharpen.models.head_tiles`) and are computed once. Matrix
products run in the hidden states' type; softmax and sums in float32 (float64 for float64 input).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.models.head_tiles import HeadGradients, HeadTiles, row_tiles
from sharpen.models.tile_sizes import logits_tile

__all__ = ["IGNORE", "linear_cross_entropy", "tiled_loss"]

IGNORE = -100
_SPARED = 32  # rows that must be saved, or all are taken


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    tile: int | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """Scaled sum of the cross entropy of ``hidden @ weight.T`` at labelled positions.

    Args:
        hidden: [..., H], the model's hidden states after the final norm.
        weight: [V, H], the head's weight, of any float type.
        labels: [...], int64; the token each position must predict, or -100 for none.
        bias: [V], added to the logits; None for none.
        scale: factor of the sum, usually 1 / number of valid labels of the whole batch.
        tile: rows of logits held at once; None holds about 64 MiB, on CUDA 256.
        z_loss: weight of the squared log-sum-exp; PaLM's is 1e-4.
        label_smoothing: share of the label's probability that all V tokens get alike, below 1.
        softcap: logits are squeezed into (-softcap, softcap); None for no cap.

    Returns:
        A scalar, float32 (float64 for float64 input); 0 when nothing is labelled. First derivatives
        only.

    Raises:
        ConfigError: an option is out of range.
    """
    if z_loss < 0 or not 0 <= label_smoothing < 1 or (softcap is not None and softcap <= 0):
        raise ConfigError(
            f"z_loss={z_loss} must be at least 0, label_smoothing={label_smoothing} from 0 to "
            f"below 1, and softcap={softcap} above 0, or None."
        )
    options = _Options(
        scale,
        tile or logits_tile(weight.shape[0], weight.device.type),
        z_loss,
        label_smoothing,
        softcap,
    )
    flat = labels.reshape(-1)
    labelled = (flat != IGNORE).nonzero().squeeze(1)
    positions = labelled if labelled.numel() + _SPARED < flat.numel() else None
    rows = hidden.reshape(-1, hidden.shape[-1])
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        rows, weight, bias, flat, positions, options
    )
    return loss


def tiled_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    shards: int | Literal["auto"] = "auto",
    *,
    ignore_index: int = IGNORE,
    reduction: Literal["sum", "mean"] = "sum",
    bias: Tensor | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """:func:`linear_cross_entropy` with the options of ``torch.nn.functional.cross_entropy``.

    Args:
        hidden: [..., H], as there.
        weight: [V, H], as there.
        labels: [...], int64, of the next token already.
        shards: tiles that the labelled rows are cut into; ``auto`` holds about 64 MiB of logits.
        ignore_index: marks positions without a label.
        reduction: ``mean`` is over the labels at hand. Ranks that share a batch hold different
            numbers of them: sum there, and divide by the number on all ranks.
        bias: as there, with ``z_loss``, ``label_smoothing`` and ``softcap``.
        z_loss: see there.
        label_smoothing: see there.
        softcap: see there.

    Returns:
        A scalar; the mean of no labels is 0.

    Raises:
        ConfigError: an option is out of range.
    """
    if (shards != "auto" and shards < 1) or reduction not in ("sum", "mean"):
        raise ConfigError(
            f"shards={shards!r} must be 'auto' or at least 1, and reduction={reduction!r} 'sum' or "
            "'mean'."
        )
    if ignore_index != IGNORE:
        labels = labels.masked_fill(labels == ignore_index, IGNORE)
    count = max(1, int((labels != IGNORE).sum()))
    return linear_cross_entropy(
        hidden,
        weight,
        labels,
        bias=bias,
        scale=1 / count if reduction == "mean" else 1.0,
        tile=None if shards == "auto" else -(-count // shards),
        z_loss=z_loss,
        label_smoothing=label_smoothing,
        softcap=softcap,
    )


@dataclass(frozen=True, slots=True)
class _Options:
    scale: float
    tile: int
    z_loss: float
    smoothing: float
    softcap: float | None


class _LinearCrossEntropy(torch.autograd.Function):
    """``positions`` are the labelled rows; None for all."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        positions: Tensor | None,
        options: _Options,
    ) -> Tensor:
        tile, z_loss, smoothing = options.tile, options.z_loss, options.smoothing
        gradients = HeadGradients.zeros(hidden, weight, bias, ctx.needs_input_grad[:3])
        tiles = HeadTiles(hidden, weight, bias, tile=tile, softcap=options.softcap)
        total = torch.zeros((), dtype=tiles.exact, device=hidden.device)
        for at, target in _tiles(labels, positions, tile):
            valid = target != IGNORE
            target = target.clamp(min=0)
            found = tiles.logits(at)
            logits = found.logits
            # From here on logits are relative to each row's largest.
            top = logits.amax(1, keepdim=True)
            logits.sub_(top)
            chosen = logits.gather(1, target).mul_(1 - smoothing)
            if smoothing:
                chosen.add_(logits.mean(1, keepdim=True), alpha=smoothing)
            sums = logits.exp_().sum(1, keepdim=True)
            losses = sums.log() - chosen
            share = (valid * options.scale).to(tiles.exact)
            weights = share
            if z_loss:
                log_sums = sums.log() + top
                losses.addcmul_(log_sums, log_sums, value=z_loss)
                weights = share * (1 + 2 * z_loss * log_sums)
            total += losses.mul_(valid).sum()
            delta = logits.mul_(weights / sums)
            delta.scatter_add_(1, target, share * (smoothing - 1))
            if smoothing:
                delta.sub_(share, alpha=smoothing / weight.shape[0])
            tiles.backward(delta, at, found.slope, gradients)
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        ctx.weight_dtype, ctx.bias_dtype = weight.dtype, None if bias is None else bias.dtype
        return total * options.scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad).to(ctx.weight_dtype)
        if grad_bias is not None:
            grad_bias = (grad_bias * grad).to(ctx.bias_dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _tiles(labels: Tensor, positions: Tensor | None, tile: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of each tile and their labels [rows, 1]; rows that only fill a tile up have none."""
    if positions is None:
        positions = torch.arange(labels.numel(), device=labels.device)
    for at, real in row_tiles(positions, tile):
        target = F.pad(labels.index_select(0, at[:real]), (0, len(at) - real), value=IGNORE)
        yield at, target[:, None]
