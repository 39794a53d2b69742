"""GRPO and its relatives: a clipped policy gradient on tokens, without a critic.

Zhihong Shao et al., "DeepSeekMath", 2024, arXiv 2402.03300, equations 3 and 4. With the ratio rho
of a token (or, in GSPO, of the completion), A the advantage of the completion and
d = log pi_ref - log pi::

    token     rho_it = exp(log pi(a_it) - log pi_old(a_it))
    sequence  rho_i  = exp((1/|y_i|) sum_t log pi(a_it) - log pi_old(a_it))    (GSPO, Zheng et al.,
                                                                                2025, equation 7)
    l_it = -min(min(rho, delta) A, clip(rho, 1 - e_low, 1 + e_high) A)
    l_it = -stopgrad(min(rho, e_high)) A log pi(a_it)                          cispo
    l_it = l_it + b w (exp(d) - d - 1),   w = rho or 1

Which mean over tokens is "GRPO's" is what people argue about; all are here by name::

    grpo     (1/N) sum_i (1/|y_i|) sum_t l_it      the paper: tokens of long answers weigh less
    bnpo     sum l / sum_i |y_i|                   of the batch that the optimizer step sees
    dapo     the same of the generation batch      (Yu et al., 2025, equation 8)
    cispo    as dapo, with its own l               (MiniMax-M1, 2025, equation 4)
    dr_grpo  sum l / (N L)                         a constant length L (Liu et al., 2025)

dapo and bnpo differ only where a generation batch serves several optimizer steps: then
``Counts.generation_tokens`` is the generation batch's tokens over the number of steps.

Differs from the paper: b is 0 by default, as in practice today, and ``kl_weight="ratio"`` corrects
the estimate of the KL divergence for actions drawn from an older policy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.kl import k3
from sharpen.align.losses.base import (
    Counts,
    LossOut,
    Reduce,
    advantage_of,
    aggregate,
    clip_metrics,
    masked,
    measured,
    sequence_sum,
)
from sharpen.align.options.losses import Aggregation, GRPOLossConfig, SmallCapWarning
from sharpen.core.errors import ConfigError

__all__ = ["Aggregation", "GRPOLossConfig", "SmallCapWarning", "grpo_loss"]

_REDUCE: dict[Aggregation, Reduce] = {
    "grpo": "seq",
    "bnpo": "token",
    "dr_grpo": "dr",
    "dapo": "token",
    "cispo": "token",
}


def grpo_loss(
    logp: Tensor,
    batch: RolloutBatch,
    config: GRPOLossConfig = GRPOLossConfig(),
    counts: Counts | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [N, T] log-probability of each token by the policy.
        batch: with advantages; truncated completions are left out by
            ``batch.without_truncated()`` before anything is counted.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.

    Raises:
        ConfigError: the batch has no advantages, or no log-probabilities of the reference where
            ``beta`` needs them.
    """
    counts = counts or Counts.of(batch)
    mask, advantage = batch.action_mask, advantage_of(batch)
    log_ratio = masked(logp - batch.logp_old, mask)
    if config.ratio == "sequence":
        lengths = batch.completion_lengths.clamp(min=1)
        log_ratio = (log_ratio.sum(1) / lengths)[:, None].expand_as(logp)
    ratio = log_ratio.exp()
    low = 1 - config.eps_low
    if config.aggregation == "cispo":
        low = 0.0
        losses = -ratio.detach().clamp(max=config.high) * advantage * logp
    else:
        bounded = ratio if config.delta is None else ratio.clamp(max=config.delta)
        losses = -torch.minimum(bounded * advantage, ratio.clamp(low, config.high) * advantage)
    numbers: dict[str, tuple[Tensor | float, Tensor | float]] = {}
    if config.beta:
        if batch.ref_logp is None:
            raise ConfigError(
                f"beta={config.beta} needs the reference's log-probabilities: set ref_logp of the "
                "rollouts, or beta=0."
            )
        divergence = k3(masked(logp, mask), masked(batch.ref_logp, mask))
        weight = ratio if config.kl_weight == "ratio" else 1.0
        losses = losses + config.beta * weight * divergence
        numbers["ref_kl"] = (masked(divergence.detach(), mask).sum(), mask.sum())
    loss = _aggregated(losses, batch, config, counts)
    numbers["old_kl"] = (-sequence_sum((logp - batch.logp_old).detach(), mask).sum(), mask.sum())
    numbers |= clip_metrics(ratio, advantage, mask, low, config.high)
    return LossOut(loss=loss, metrics=measured(numbers))


def _aggregated(
    losses: Tensor, batch: RolloutBatch, config: GRPOLossConfig, counts: Counts
) -> Tensor:
    mask = batch.action_mask
    if config.aggregation in ("dapo", "cispo") and counts.generation_tokens is not None:
        return sequence_sum(losses, mask).sum() / max(1.0, counts.generation_tokens)
    return aggregate(losses, mask, _REDUCE[config.aggregation], counts)
