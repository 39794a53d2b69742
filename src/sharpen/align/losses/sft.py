"""Supervised fine-tuning: the negative log-likelihood of completions.

::

    L = -(1/sum m) sum_i sum_t m_it log pi(a_it | x_i, a_i<t)

The denominator is the number of action tokens of the *global* batch, counted before any micro-batch
is divided by it: with accumulation a token then weighs the same wherever it stands.
"""

from __future__ import annotations

from torch import Tensor

from sharpen.align.losses.base import Counts, LossOut, aggregate, measured
from sharpen.align.options.losses import SFTLossConfig
from sharpen.align.sequences import Sequences

__all__ = ["SFTLossConfig", "sft_loss"]


def sft_loss(
    logp: Tensor,
    batch: Sequences,
    config: SFTLossConfig = SFTLossConfig(),
    counts: Counts | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [N, T] log-probability of each token; only those of actions count.
        batch: of any kind.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.
    """
    counts = counts or Counts.of(batch)
    loss = aggregate(-logp, batch.action_mask, config.reduce, counts)
    total = logp.detach().masked_fill(~batch.action_mask, 0.0).sum()
    return LossOut(loss=loss, metrics=measured({"nll": (-total, batch.action_mask.sum())}))
