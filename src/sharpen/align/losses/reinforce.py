"""The policy gradient: actions weighted by their advantages (REINFORCE, ReMax).

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", 1992; Ziniu Li et al., "ReMax: A Simple, Effective, and Efficient Reinforcement Learning
Method for Aligning Large Language Models", 2023, arXiv 2310.10505, algorithm 1::

    L = -(1/N) sum_i sum_t A_it log pi(a_it | x_i, a_i<t)

With advantages whose baseline does not depend on the completion, the gradient of the default
(``reduce="sum"``) is that of the expected reward, without bias. The released ReMax code divides by
the number of tokens of the batch instead (``token``), which itself depends on what was drawn.

One step a rollout: there is no ratio, so the policy must be the one that generated.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.base import (
    Counts,
    LossOut,
    Reduce,
    advantage_of,
    aggregate,
    check_reduce,
    masked,
    measured,
)

__all__ = ["ReinforceConfig", "reinforce_loss"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReinforceConfig:
    """Options of the policy gradient."""

    reduce: Reduce = "sum"
    """See :mod:`losses.base`: ``sum`` is unbiased, ``token`` that of the released ReMax code."""

    def __post_init__(self) -> None:
        check_reduce(self.reduce, "ReinforceConfig")


def reinforce_loss(
    logp: Tensor,
    batch: RolloutBatch,
    config: ReinforceConfig = ReinforceConfig(),
    counts: Counts | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [N, T] log-probability of each token by the policy.
        batch: with advantages.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.

    Raises:
        ConfigError: the batch has no advantages.
    """
    counts = counts or Counts.of(batch)
    mask, advantage = batch.action_mask, advantage_of(batch)
    loss = aggregate(-advantage * logp, mask, config.reduce, counts)
    drift = masked(batch.logp_old - logp.detach(), mask)
    tokens = mask.sum()
    return LossOut(
        loss=loss,
        metrics=measured(
            {
                "advantage": (masked(advantage, mask).sum(), tokens),
                "logp": (masked(logp.detach(), mask).sum(), tokens),
                "logp_gap": (drift.abs().sum(), tokens),
            }
        ),
    )
