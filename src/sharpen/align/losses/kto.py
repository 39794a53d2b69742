"""KTO: completions called good or bad, one by one.

Kawin Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization", ICML 2024, arXiv
2402.01306, equations 7 and 8. With s the sum of log pi over the actions of a completion::

    r   = b (s - s_ref)
    z_0 = max(0, mean of b (s - s_ref) over mismatched pairs)        no gradient
    l   = w_D (1 - sigmoid(r - z_0))    of a desirable completion
    l   = w_U (1 - sigmoid(z_0 - r))    of an undesirable one
    L   = mean of l over all completions

z_0 stands for the divergence from the reference. It is a mean over the *global* batch, taken before
the maximum: :func:`kto_divergence` of each part adds up to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharpen.align.batch import LabelBatch
from sharpen.align.losses.base import Counts, LossOut, measured, sequence_sum
from sharpen.align.options.losses import KTOConfig
from sharpen.core.errors import ConfigError

__all__ = ["Divergence", "KTOConfig", "kto_divergence", "kto_loss", "kto_weights"]

_MOST = 4 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """Sum and number of the log ratios of mismatched pairs; those of parts add up."""

    total: float
    count: int

    def __add__(self, other: Divergence) -> Divergence:
        """Of both together."""
        return Divergence(total=self.total + other.total, count=self.count + other.count)

    @property
    def mean(self) -> float:
        """Never negative; 0 of no pair. z_0 is b times this."""
        return max(0.0, self.total / self.count) if self.count else 0.0


def kto_weights(num_desirable: int, num_undesirable: int) -> tuple[float, float]:
    """w_D and w_U with w_D n_D / (w_U n_U) from 1 to 4/3 (section 4.2 of the paper).

    The larger weight is above 1 only as far as it must be; the other is 1. Both are 1 where one
    kind is absent.
    """
    if not num_desirable or not num_undesirable:
        return 1.0, 1.0
    share = num_desirable / num_undesirable
    if share < 1:
        return 1 / share, 1.0
    return (1.0, share / _MOST) if share > _MOST else (1.0, 1.0)


def kto_divergence(logp: Tensor, batch: LabelBatch) -> Divergence:
    """Of a batch's mismatched rows.

    Args:
        logp: [2B, T] log-probability of each token by the policy; only the second half counts.
        batch: with the reference's log-probabilities.

    Raises:
        ConfigError: the batch has none.
    """
    size = len(batch)
    mismatched = sequence_sum(logp.detach()[size:], batch.action_mask[size:])
    gaps = mismatched - _reference(batch)[size:]
    return Divergence(total=float(gaps.sum()), count=size)


def kto_loss(
    logp: Tensor,
    batch: LabelBatch,
    config: KTOConfig = KTOConfig(),
    counts: Counts | None = None,
    *,
    divergence: Divergence | None = None,
) -> LossOut:
    """The loss of a batch, or its share in that of a larger one.

    Args:
        logp: [2B, T] log-probability of each token by the policy; the second half needs no
            gradient.
        batch: with the reference's log-probabilities.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.
        divergence: of the global batch; None is the batch's own.

    Raises:
        ConfigError: the batch has no log-probabilities of the reference, or a single completion,
            whose mismatched twin would be itself.
    """
    counts = counts or Counts.of(batch)
    if counts.examples < 2:
        raise ConfigError(
            f"KTO pairs each prompt with another one's completion, but the batch has "
            f"{counts.examples}: take at least 2 completions a batch."
        )
    size = len(batch)
    divergence = divergence or kto_divergence(logp, batch)
    log_ratio = sequence_sum(logp[:size], batch.action_mask[:size]) - _reference(batch)[:size]
    above = config.beta * (log_ratio - divergence.mean)
    good = batch.desirable
    losses = torch.where(
        good,
        config.desirable_weight * torch.sigmoid(-above),
        config.undesirable_weight * torch.sigmoid(above),
    )
    rewards = config.beta * log_ratio.detach()
    return LossOut(
        loss=losses.sum() / counts.examples,
        metrics=measured(
            {
                "reward_desirable": (rewards.masked_fill(~good, 0.0).sum(), good.sum()),
                "reward_undesirable": (rewards.masked_fill(good, 0.0).sum(), (~good).sum()),
                "kl": (divergence.mean * size, size),
            }
        ),
    )


def _reference(batch: LabelBatch) -> Tensor:
    if batch.ref_logp is None:
        raise ConfigError(
            "KTO needs the reference's log-probabilities: set ref_logp of the labelled batch."
        )
    return batch.ref_logp
