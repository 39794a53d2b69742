"""The forward pass of a method as the trainer's root module, and the sums it divides by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.align.losses.base import Counts, Metrics, add_metrics
from sharpen.align.losses.kto import Divergence
from sharpen.align.methods import Method, Policy, Scale
from sharpen.models.decoder import DecoderLM

__all__ = ["Objective", "counts_of_sums", "sums_of_counts"]


class Objective(nn.Module):
    """``objective(batch, scale)`` is a micro-batch's share of the loss.

    Args:
        model: with the method's heads.
        method: the method.
        options: its options.
        dtype: in which products are computed.
        temperature: of the policy.
    """

    def __init__(
        self,
        model: DecoderLM,
        method: Method,
        options: Any,
        *,
        dtype: torch.dtype,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.options = options
        self.policy = Policy(model, dtype, temperature)
        self._metrics: list[Metrics] = []

    def forward(self, batch: Any, scale: Scale) -> Tensor:
        """A scalar with a gradient."""
        found = self.method.loss(self.policy, batch, self.options, scale)
        self._metrics.append(found.metrics)
        return found.loss

    def take_metrics(self) -> Metrics:
        """Of all passes since the last call."""
        found, self._metrics = add_metrics(self._metrics), []
        return found


def sums_of_counts(counts: Counts, divergence: Divergence | None = None) -> tuple[float, ...]:
    """Numbers that add up over ranks as the counts do."""
    generation = counts.generation_tokens
    return (
        float(counts.examples),
        float(counts.sequences),
        float(counts.tokens),
        float(counts.chosen_tokens),
        float(counts.chosen_text_tokens),
        float(counts.ground_truth),
        float(counts.tokens if generation is None else generation),
        0.0 if divergence is None else divergence.total,
        0.0 if divergence is None else float(divergence.count),
    )


def counts_of_sums(sums: Sequence[float], max_completion_length: int) -> Scale:
    """The reverse, of sums over all ranks."""
    examples, sequences, tokens, chosen, chosen_text, truth = (round(one) for one in sums[:6])
    return Scale(
        Counts(
            examples=examples,
            sequences=sequences,
            tokens=tokens,
            chosen_tokens=chosen,
            chosen_text_tokens=chosen_text,
            ground_truth=truth,
            max_completion_length=max_completion_length,
            generation_tokens=sums[6],
        ),
        Divergence(total=sums[7], count=round(sums[8])) if sums[8] else None,
    )
