"""PPO: a policy and a critic, kept near those that generated (Schulman et al., 2017).

John Schulman, Filip Wolski, Prafulla Dhariwal, Alec Radford and Oleg Klimov, "Proximal Policy
Optimization Algorithms", 2017, arXiv 1707.06347, equations 7 and 9; on tokens with a clipped critic
as in Ziegler et al., "Fine-Tuning Language Models from Human Preferences", 2019::

    rho  = exp(log pi - log pi_old)
    L_pi = mean max(-A rho, -A clip(rho, 1 - e, 1 + e))
    L_v  = 1/2 mean max((V - R)^2, (clip(V, V_old - e_v, V_old + e_v) - R)^2)
    L    = L_pi + c_v L_v - c_H mean H

A and the returns R are those of :func:`sharpen.align.advantages.gae`, A whitened over the whole
batch before it is split; means are over action tokens of the global batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.kl import k3
from sharpen.align.losses.base import (
    Counts,
    LossOut,
    advantage_of,
    aggregate,
    clip_metrics,
    masked,
    measured,
)
from sharpen.align.options.losses import PPOLossConfig
from sharpen.core.errors import ConfigError

__all__ = ["PPOLossConfig", "ppo_loss"]


def ppo_loss(
    logp: Tensor,
    batch: RolloutBatch,
    config: PPOLossConfig = PPOLossConfig(),
    counts: Counts | None = None,
    *,
    values: Tensor,
    entropy: Tensor | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [N, T] log-probability of each token by the policy.
        batch: with advantages, returns, and the critic's old values.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.
        values: [N, T] of the state before each token, by the critic now.
        entropy: [N, T] of the policy at each token, with a gradient, where it has a weight.

    Raises:
        ConfigError: the batch has no advantages, returns or values, or entropies are missing.
    """
    counts = counts or Counts.of(batch)
    mask, advantage = batch.action_mask, advantage_of(batch)
    if batch.returns is None or batch.values is None:
        raise ConfigError("PPO needs the rollouts' values and returns (sharpen.align.advantages).")
    low, high = 1 - config.clip, 1 + config.clip
    ratio = masked(logp - batch.logp_old, mask).exp()
    policy = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(low, high))
    policy_loss = aggregate(policy, mask, "token", counts)
    error = values - batch.returns
    near = torch.clamp(values, batch.values - config.value_clip, batch.values + config.value_clip)
    clipped = near - batch.returns
    value_loss = aggregate(
        0.5 * torch.maximum(error.square(), clipped.square()), mask, "token", counts
    )
    loss = policy_loss + config.value_coef * value_loss
    if config.entropy_coef:
        if entropy is None:
            raise ConfigError(f"entropy_coef={config.entropy_coef} needs entropies.")
        loss = loss - config.entropy_coef * aggregate(entropy, mask, "token", counts)
    tokens = mask.sum()
    value_clipped = (clipped.square() > error.square()) & mask
    old_gap = masked(k3(batch.logp_old, logp.detach()), mask)
    return LossOut(
        loss=loss,
        metrics=measured(
            {
                "policy_loss": (masked(policy.detach(), mask).sum(), tokens),
                "value_error": (masked(error.detach(), mask).square().sum(), tokens),
                "value_clip": (value_clipped.sum(), tokens),
                "old_kl": (old_gap.sum(), tokens),
                **clip_metrics(ratio, advantage, mask, low, high),
            }
        ),
    )
