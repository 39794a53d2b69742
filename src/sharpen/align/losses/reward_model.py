"""Reward model: the better completion should have the higher score (Bradley and Terry, 1952).

Stiennon et al., "Learning to summarize from human feedback", 2020, equation 1; margins from Touvron
et al., "Llama 2", 2023, equation 2; centering from Eisenstein et al., "Helping or Herding?", 2023::

    L = -(1/B) sum_i log sigmoid(r(x_i, y_w) - r(x_i, y_l) - margin_i)
        + c (1/B) sum_i (r(x_i, y_w) + r(x_i, y_l))^2

The score is that of the head on the last token of the text; the sum of two scores is otherwise
free, and centering keeps it near 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.align.batch import PairBatch
from sharpen.align.losses.base import Counts, LossOut, measured
from sharpen.align.options.losses import RewardModelConfig
from sharpen.core.errors import ConfigError

__all__ = ["RewardModelConfig", "calibration_error", "reward_model_loss"]


def reward_model_loss(
    scores: Tensor,
    batch: PairBatch,
    config: RewardModelConfig = RewardModelConfig(),
    counts: Counts | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        scores: [2B] r of each row.
        batch: with or without margins.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.
    """
    counts = counts or Counts.of(batch)
    chosen, rejected = scores.chunk(2)
    difference = chosen - rejected
    above = difference if batch.margin is None else difference - batch.margin
    losses = -F.logsigmoid(above)
    if config.centering:
        losses = losses + config.centering * (chosen + rejected).square()
    size = len(batch)
    return LossOut(
        loss=losses.sum() / max(1, counts.examples),
        metrics=measured(
            {
                "accuracy": ((difference > 0).sum(), size),
                "margin": (difference.sum(), size),
                "reward_chosen": (chosen.sum(), size),
                "reward_rejected": (rejected.sum(), size),
            }
        ),
    )


def calibration_error(scores: Tensor, bins: int = 10) -> float:
    """Expected calibration error of a reward model's preferences (Guo et al., 2017, equation 3).

    The model says that a pair's higher score wins with probability sigmoid(|difference|), between
    1/2 and 1. Pairs are put into bins of equal width by it; the error is the mean distance between
    what it says and how often it is right, weighted by the bins' sizes. A tie is half right.

    Args:
        scores: [2B] of pairs, chosen first, as in :class:`PairBatch`.
        bins: how many.

    Raises:
        ConfigError: there is no bin.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins} must be at least 1.")
    chosen, rejected = scores.double().chunk(2)
    difference = chosen - rejected
    if not len(difference):
        return 0.0
    said = torch.sigmoid(difference.abs())
    right = torch.where(difference == 0, 0.5, (difference > 0).double())
    index = ((said - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64, device=scores.device)
    gaps.index_add_(0, index, said - right)
    return float(gaps.abs().sum() / len(difference))
