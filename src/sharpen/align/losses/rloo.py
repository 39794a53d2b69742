"""RLOO: a clipped policy gradient on whole completions, against the others of the prompt.

Arash Ahmadian et al., "Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from
Human Feedback in LLMs", ACL 2024, arXiv 2402.14740, section 3.3::

    rho_i = exp(sum_t log pi(a_it) - log pi_old(a_it))
    L     = -(1/N) sum_i min(rho_i A_i, clip(rho_i, 1 - e, 1 + e) A_i)

A completion is one action: the ratio is of the whole (the sum over tokens, not the mean), and A_i
that of :func:`sharpen.align.advantages.rloo`, into whose rewards the KL penalty goes.

Differs from the paper: it takes one step on each rollout, where the ratio is 1 and the clip idle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.base import (
    Counts,
    LossOut,
    advantage_of,
    clip_metrics,
    measured,
    sequence_sum,
)
from sharpen.align.options.losses import RLOOConfig

__all__ = ["RLOOConfig", "rloo_loss"]


def rloo_loss(
    logp: Tensor,
    batch: RolloutBatch,
    config: RLOOConfig = RLOOConfig(),
    counts: Counts | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [N, T] log-probability of each token by the policy.
        batch: with advantages, equal at all actions of a row.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.

    Raises:
        ConfigError: the batch has no advantages.
    """
    counts = counts or Counts.of(batch)
    mask = batch.action_mask
    lengths = batch.completion_lengths
    advantage = sequence_sum(advantage_of(batch), mask) / lengths.clamp(min=1)
    low = 1 - config.clip
    high = 1 + (config.clip if config.clip_high is None else config.clip_high)
    log_ratio = sequence_sum(logp - batch.logp_old, mask)
    ratio = log_ratio.exp()
    losses = -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
    present = lengths > 0
    return LossOut(
        loss=losses.sum() / max(1, counts.sequences),
        metrics=measured(
            {
                "old_kl": (-log_ratio.detach().sum(), batch.num_rows),
                **clip_metrics(ratio, advantage, present, low, high),
            }
        ),
    )
