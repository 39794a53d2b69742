"""ORPO: fine-tuning and preferences in one loss, without a reference model.

Jiwoo Hong, Noah Lee and James Thorne, "ORPO: Monolithic Preference Optimization without Reference
Model", EMNLP 2024, arXiv 2403.07691, equations 3 to 7. With s' the mean of log pi over the actions
of a completion, so that exp(s') is the geometric mean of its tokens' probabilities::

    lo(y) = s'(y) - log(1 - exp(s'(y)))                                log odds
    L     = NLL(chosen) - (c / B) sum_i log sigmoid(lo(y_w) - lo(y_l))

NLL is a mean over tokens of all chosen texts of the global batch.

Differs from the paper: none in the odds. The paper's NLL is over the completion, what is usual
takes the prompt's tokens too; ``nll_on`` has both, and they are different losses (a few percent in
value, and another direction of the gradient). A pair with an empty completion has no odds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.align.batch import PairBatch
from sharpen.align.losses.base import (
    Counts,
    LossOut,
    log1mexp,
    measured,
    sequence_sum,
    text_mask,
)
from sharpen.align.options.losses import ORPOConfig

__all__ = ["ORPOConfig", "orpo_loss"]


def orpo_loss(
    logp: Tensor,
    batch: PairBatch,
    config: ORPOConfig = ORPOConfig(),
    counts: Counts | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [2B, T] log-probability of each token by the policy; of the prompt's tokens too where
            ``nll_on`` is ``all``.
        batch: pairs.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.
    """
    counts = counts or Counts.of(batch)
    size, mask = len(batch), batch.action_mask
    lengths = batch.completion_lengths
    sums = sequence_sum(logp, mask)
    means = sums / lengths.clamp(min=1)
    # A certain completion has infinite odds: a tiny distance keeps the loss and its slope finite.
    means = means.clamp(max=-torch.finfo(means.dtype).tiny)
    full = ((lengths[:size] > 0) & (lengths[size:] > 0)).to(means.dtype)
    log_odds = means - log1mexp(means)
    difference = (log_odds[:size] - log_odds[size:]) * full
    odds_loss = -(F.logsigmoid(difference) * full).sum() / max(1, counts.examples)
    if config.nll_on == "all":
        nll_mask, tokens = text_mask(batch)[:size], counts.chosen_text_tokens
    else:
        nll_mask, tokens = mask[:size], counts.chosen_tokens
    nll = -sequence_sum(logp[:size], nll_mask).sum()
    return LossOut(
        loss=nll / max(1, tokens) + config.weight * odds_loss,
        metrics=measured(
            {
                "nll": (nll, nll_mask.sum()),
                "log_odds": (difference.sum(), full.sum()),
                "accuracy": ((difference > 0).sum(), full.sum()),
                "logp_chosen": (sums[:size].sum(), size),
                "logp_rejected": (sums[size:].sum(), size),
            }
        ),
    )
