"""DPO and its relatives: preferences learnt without a reward model or rollouts.

Rafael Rafailov et al., "Direct Preference Optimization", NeurIPS 2023, arXiv 2305.18290, equation
7. With s(y) the sum of log pi(a_t) over the actions of y, w the better and l the worse completion::

    z = [s(y_w) - s_ref(y_w)] - [s(y_l) - s_ref(y_l)]

    sigmoid  L = -(1 - e) log sigmoid(b z) - e log sigmoid(-b z)
    robust   L = (-(1 - e) log sigmoid(b z) + e log sigmoid(-b z)) / (1 - 2 e)
                                              (Chowdhury et al., 2024, equation 9)
    hinge    L = max(0, 1 - b z)              (Zhao et al., 2023, equation 9)
    ipo      L = (z' - 1 / (2 b))^2           (Azar et al., 2023, equation 17)

z' is the difference of the two log ratios, each divided by its own number of tokens. e is label
smoothing, the share of pairs that are thought to be the wrong way round (0 by default). The loss is
the mean over pairs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sharpen.align.batch import PairBatch
from sharpen.align.losses.base import Counts, LossOut, measured, sequence_sum
from sharpen.align.options.losses import DPOConfig
from sharpen.core.errors import ConfigError

__all__ = ["DPOConfig", "dpo_loss"]


def dpo_loss(
    logp: Tensor,
    batch: PairBatch,
    config: DPOConfig = DPOConfig(),
    counts: Counts | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [2B, T] log-probability of each token by the policy.
        batch: with the reference's log-probabilities.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.

    Raises:
        ConfigError: the batch has no log-probabilities of the reference.
    """
    counts = counts or Counts.of(batch)
    if batch.ref_logp is None:
        raise ConfigError("DPO needs the reference's log-probabilities: set ref_logp of the pairs.")
    sums = sequence_sum(logp, batch.action_mask)
    logp_chosen, logp_rejected = sums.chunk(2)
    log_ratio = sums - batch.ref_logp
    chosen, rejected = log_ratio.chunk(2)
    scaled = config.beta * (chosen - rejected)
    e = config.label_smoothing
    if config.kind == "ipo":
        lengths = batch.completion_lengths.clamp(min=1)
        chosen_mean, rejected_mean = (log_ratio / lengths).chunk(2)
        losses = (chosen_mean - rejected_mean - 1 / (2 * config.beta)).square()
    elif config.kind == "hinge":
        losses = F.relu(1 - scaled)
    elif config.kind == "robust":
        losses = (e * F.logsigmoid(-scaled) - (1 - e) * F.logsigmoid(scaled)) / (1 - 2 * e)
    else:
        losses = -(1 - e) * F.logsigmoid(scaled) - e * F.logsigmoid(-scaled)
    size = len(batch)
    return LossOut(
        loss=losses.sum() / max(1, counts.examples),
        metrics=measured(
            {
                "accuracy": ((scaled > 0).sum(), size),
                "margin": (scaled.sum(), size),
                "reward_chosen": (config.beta * chosen.sum(), size),
                "reward_rejected": (config.beta * rejected.sum(), size),
                "logp_chosen": (logp_chosen.sum(), size),
                "logp_rejected": (logp_rejected.sum(), size),
            }
        ),
    )
