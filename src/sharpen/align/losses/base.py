"""What all losses share: what they return, what they divide by, and sums over actions.

A loss is a pure function ``loss(logp, batch, config, counts) -> LossOut``. Its denominators are
those of the *global* batch (all micro-batches of all ranks), so that the losses of the parts add up
to the loss of the global batch, exactly::

    L = sum_k L_k,    L_k = (sum over micro-batch k) / (count of the global batch)

Averaging the means of micro-batches would weight a token of a short micro-batch more. A metric is a
sum and its weight; both add, and their quotient is the mean over the global batch.

Four denominators are argued about. With m_it the action mask and l_it the loss of a token of the N
sequences::

    sum    (1/N) sum_i sum_t m_it l_it                       the gradient of an expected reward
    token  (1/sum m) sum_i sum_t m_it l_it                   long sequences weigh more
    seq    (1/N) sum_i (1/|m_i|) sum_t m_it l_it             tokens of long sequences weigh less
    dr     (1/(N L)) sum_i sum_t m_it l_it                   "sum" over a constant length L
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sharpen.align.batch import PairBatch, RolloutBatch, Sequences
from sharpen.align.options.losses import Reduce, check_reduce
from sharpen.core.errors import ConfigError

__all__ = [
    "Counts",
    "LossOut",
    "Metrics",
    "Reduce",
    "add_metrics",
    "advantage_of",
    "aggregate",
    "check_reduce",
    "clip_metrics",
    "log1mexp",
    "masked",
    "mean_metrics",
    "measured",
    "sequence_sum",
    "text_mask",
]

Metrics = dict[str, tuple[float, float]]
"""Sum and weight of each number by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOut:
    """What a loss returns."""

    loss: Tensor
    """A scalar with a gradient: the share of this batch in the loss of the global batch."""
    metrics: Metrics
    """Sums and weights, which add over micro-batches and ranks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Denominators of a global batch; those of its parts add up to them."""

    examples: int
    """Pairs, queries, labelled completions, or rows."""
    sequences: int
    """Rows; completions without a token count."""
    tokens: int
    """Actions."""
    chosen_tokens: int = 0
    """Actions of the chosen rows of pairs."""
    chosen_text_tokens: int = 0
    """Tokens of the chosen rows of pairs, all but the first of each: prompt and completion."""
    ground_truth: int = 0
    """Rollouts known to be right."""
    max_completion_length: int
    """The constant L of ``dr``: the most tokens that a completion may have."""
    generation_tokens: float | None = None
    """Actions of the whole generation batch over the optimizer steps that it serves; None where it
    serves one, and then ``tokens`` is meant."""

    @classmethod
    def of(cls, batch: Sequences, *, max_completion_length: int | None = None) -> Self:
        """The counts of one batch.

        Args:
            batch: any.
            max_completion_length: L; None is the longest completion of the batch, which differs
                from step to step.
        """
        lengths = batch.completion_lengths
        longest = int(lengths.max()) if len(lengths) else 0
        chosen = chosen_text = ground_truth = 0
        if isinstance(batch, PairBatch):
            chosen = int(lengths[: len(batch)].sum())
            chosen_text = int(text_mask(batch)[: len(batch)].sum())
        if isinstance(batch, RolloutBatch):
            ground_truth = int(batch.ground_truth.sum())
        return cls(
            examples=len(batch),
            sequences=batch.num_rows,
            tokens=int(lengths.sum()),
            chosen_tokens=chosen,
            chosen_text_tokens=chosen_text,
            ground_truth=ground_truth,
            max_completion_length=longest
            if max_completion_length is None
            else max_completion_length,
        )

    def __add__(self, other: Counts) -> Counts:
        """Counts of two parts together; L is the larger."""
        generation = None
        if self.generation_tokens is not None or other.generation_tokens is not None:
            parts = [
                one.tokens if one.generation_tokens is None else one.generation_tokens
                for one in (self, other)
            ]
            generation = sum(parts)
        return Counts(
            examples=self.examples + other.examples,
            sequences=self.sequences + other.sequences,
            tokens=self.tokens + other.tokens,
            chosen_tokens=self.chosen_tokens + other.chosen_tokens,
            chosen_text_tokens=self.chosen_text_tokens + other.chosen_text_tokens,
            ground_truth=self.ground_truth + other.ground_truth,
            max_completion_length=max(self.max_completion_length, other.max_completion_length),
            generation_tokens=generation,
        )


def log1mexp(values: Tensor) -> Tensor:
    """log(1 - exp(x)) of x < 0 without cancellation (Maechler, 2012)."""
    near = values > -math.log(2)
    small = torch.log(-torch.expm1(torch.where(near, values, -1.0)))
    return torch.where(near, small, torch.log1p(-torch.exp(torch.where(near, -1.0, values))))


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """``values`` with 0 where ``mask`` is false, whatever stood there."""
    return values.masked_fill(~mask, 0.0)


def sequence_sum(values: Tensor, mask: Tensor) -> Tensor:
    """[N]: sum of [N, T] values over the masked tokens of each row."""
    return masked(values, mask).sum(1)


def text_mask(batch: Sequences) -> Tensor:
    """Bool [N, T]: tokens that something predicts, prompt and completion: all but the first."""
    mask = batch.attention_mask.clone()
    mask[:, 0] = False
    return mask


def aggregate(values: Tensor, mask: Tensor, reduce: Reduce, counts: Counts) -> Tensor:
    """A scalar of [N, T] values; see the four denominators above."""
    sums = sequence_sum(values, mask)
    if reduce == "sum":
        return sums.sum() / max(1, counts.sequences)
    if reduce == "token":
        return sums.sum() / max(1, counts.tokens)
    if reduce == "seq":
        return (sums / mask.sum(1).clamp(min=1)).sum() / max(1, counts.sequences)
    return sums.sum() / max(1, counts.sequences * counts.max_completion_length)


def advantage_of(batch: RolloutBatch) -> Tensor:
    """[N, T] of the batch, without gradient.

    Raises:
        ConfigError: it has none.
    """
    if batch.advantage is None:
        raise ConfigError(
            "the rollouts have no advantages: compute them over the whole batch before it is split "
            "(sharpen.align.advantages)."
        )
    return batch.advantage.detach()


def clip_metrics(
    ratio: Tensor, advantage: Tensor, mask: Tensor, low: float, high: float
) -> dict[str, tuple[Tensor | float, Tensor | float]]:
    """How often the clip of a ratio cut a gradient off, and how large the ratio is.

    Args:
        ratio: of any shape.
        advantage: of the same.
        mask: of the same.
        low: where the ratio is clipped below, which stops gradients of bad actions.
        high: where it is clipped above, which stops gradients of good ones.
    """
    total = mask.sum()
    below = (ratio < low) & (advantage < 0) & mask
    above = (ratio > high) & (advantage > 0) & mask
    return {
        "ratio": (masked(ratio.detach(), mask).sum(), total),
        "clip_low": (below.sum(), total),
        "clip_high": (above.sum(), total),
    }


def measured(numbers: Mapping[str, tuple[Tensor | float, Tensor | float]]) -> Metrics:
    """Metrics from sums and weights on any device; fetches them all at once."""
    flat = [one for pair in numbers.values() for one in pair]
    first = next((one for one in flat if isinstance(one, Tensor)), torch.zeros(()))
    found = torch.stack(
        [
            one.detach().to(first.device, torch.float64).reshape(())
            if isinstance(one, Tensor)
            else torch.tensor(one, dtype=torch.float64, device=first.device)
            for one in flat
        ]
        or [torch.zeros(())]
    ).tolist()
    return {name: (found[2 * i], found[2 * i + 1]) for i, name in enumerate(numbers)}


def add_metrics(parts: Iterable[Metrics]) -> Metrics:
    """The metrics of several micro-batches or ranks together."""
    total: Metrics = {}
    for part in parts:
        for name, (value, weight) in part.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + value, before[1] + weight)
    return total


def mean_metrics(metrics: Metrics) -> dict[str, float]:
    """Each metric's mean; NaN where nothing was counted."""
    return {
        name: value / weight if weight else float("nan")
        for name, (value, weight) in metrics.items()
    }
