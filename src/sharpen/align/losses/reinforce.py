"""The policy gradient: actions weighted by their advantages (REINFORCE, ReMax).

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", 1992; Ziniu Li et al., "ReMax: A Simple, Effective, and Efficient Reinforcement Learning
Method for Aligning Large Language Models", 2023, arXiv 2310.10505, algorithm 1::

    L = -(1/N) sum_i sum_t A_it log pi(a_it | x_i, a_i<t)

With advantages whose baseline does not depend on the completion, the gradient of the default
(``reduce="sum"``) is that of the expected reward, without bias. The released ReMax code divides by
the number of tokens of the batch instead (``token``), which itself depends on what was drawn.

One step a rollout: there is no ratio, so the policy must be the one that generated. Where it has
moved since, expectations over what pi_old drew become those of pi by the weight of the completion
(importance sampling; y_i is what was drawn for x_i)::

    E_{y ~ pi} [f(y)] = E_{y ~ pi_old} [w f(y)],   w_i = pi(y_i | x_i) / pi_old(y_i | x_i)

so :func:`reweighted` advantages leave the gradient without bias; f has A and grad log pi, and w is
of the whole completion and has no gradient. It is not clipped: where a policy moves far, or
completions are long, the variance grows, and methods with a clipped ratio are steadier.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.base import (
    Counts,
    LossOut,
    advantage_of,
    aggregate,
    masked,
    measured,
    sequence_sum,
)
from sharpen.align.options.losses import ReinforceConfig

__all__ = ["ReinforceConfig", "reinforce_loss", "reweighted"]


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


def reweighted(logp: Tensor, batch: RolloutBatch) -> tuple[RolloutBatch, Tensor]:
    """A batch by an earlier policy, with advantages for the policy now; and the weights [N].

    Args:
        logp: [N, T] log-probability of each token by the policy now.
        batch: with advantages, and log-probabilities by the policy that generated it.
    """
    weight = sequence_sum(logp.detach() - batch.logp_old, batch.action_mask).exp()
    return replace(batch, advantage=advantage_of(batch) * weight[:, None]), weight
