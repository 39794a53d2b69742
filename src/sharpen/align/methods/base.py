"""What a method is: which rows it learns from, what it adds to a model, and its loss.

A method is data and functions; the loop is the same for all. An offline method makes batches of
rows that are there. An online one has completions generated and rewarded, and turns rewards into
advantages (:attr:`Method.estimate`) before its loss is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sharpen.align.advantages import Moments
from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.base import Counts, LossOut
from sharpen.align.losses.kto import Divergence
from sharpen.align.options.methods import Description, describe
from sharpen.align.rows.tokens import TokenRow
from sharpen.align.scoring import States, policy_logp, states_of
from sharpen.align.sequences import Sequences
from sharpen.models.decoder import DecoderLM

__all__ = ["Estimation", "Method", "Policy", "Scale", "described"]


@dataclass(frozen=True, slots=True)
class Policy:
    """A model and how it is asked."""

    model: DecoderLM
    dtype: torch.dtype = torch.float32
    temperature: float = 1.0

    def states(self, batch: Sequences) -> States:
        """One pass over a batch."""
        return states_of(self.model, batch, self.dtype)

    def logp(
        self, batch: Sequences, states: States | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """[N, T] of the actions, or of the masked tokens."""
        found, _ = policy_logp(
            self.model,
            states or self.states(batch),
            batch,
            mask=mask,
            temperature=self.temperature,
            dtype=self.dtype,
        )
        return found

    def logp_and_entropy(
        self, batch: Sequences, *, gradient: bool = False, expected: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """[N, T] both, of the actions; with ``gradient`` it flows through the entropies too.

        ``expected`` is what the loss will send back to the log-probabilities, where that is known.
        """
        logp, entropy = policy_logp(
            self.model,
            self.states(batch),
            batch,
            temperature=self.temperature,
            dtype=self.dtype,
            entropy="gradient" if gradient else True,
            expected=expected,
        )
        assert entropy is not None
        return logp, entropy


@dataclass(frozen=True, slots=True)
class Scale:
    """What the parts of a step must know of the whole."""

    counts: Counts
    divergence: Divergence | None = None
    """KTO's, of the mismatched pairs."""
    on_policy: bool = False
    """The policy is the one that generated: its log-probabilities are the old ones."""
    is_moving: bool = False
    """The policy may have changed since it generated."""


@dataclass(slots=True)
class Estimation:
    """What turning rewards into advantages needs besides, and may change."""

    total: Callable[[Moments], Moments]
    """Moments over all ranks from those of this one."""

    state: dict[str, float]
    """Kept from batch to batch and in checkpoints: running means, adapted weights."""

    metrics: dict[str, tuple[float, float]]
    """Sums and weights, to be logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Description):
    """See the module."""

    loss: Callable[[Policy, Any, Any, Scale], LossOut]
    """``loss(policy, batch, options, scale)``."""

    build: Callable[[Sequence[TokenRow], int], Sequences] | None = None
    """Offline: rows and the padding's id to a batch."""

    estimate: Callable[[RolloutBatch, Any, Estimation], RolloutBatch] | None = None
    """Online: rewards to advantages."""

    add_heads: Callable[[DecoderLM], None] | None = None
    """Gives a model what it needs beside its language-model head."""


def described(name: str) -> dict[str, Any]:
    """What is known of a method before, as the first arguments of :class:`Method`."""
    found = describe(name)
    return {one.name: getattr(found, one.name) for one in fields(found)}
