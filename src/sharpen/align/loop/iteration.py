"""How many completions an iteration has, and the optimizer steps that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.loop.objective import sums_of_counts
from sharpen.align.losses.base import Counts
from sharpen.core.config import digest
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepWork

__all__ = ["Rollouts", "steps_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """How many completions, and how they are used."""

    prompts: int
    """P: prompts of an iteration, over all ranks."""

    generations: int
    """K: completions of each."""

    epochs: int = 1
    """E: passes over them."""

    minibatches: int = 1
    """M: optimizer steps of a pass. Each rank shuffles its own prompts and cuts their completions
    into equal parts, so that on several ranks the mini-batches are others than in one process, of
    the same sizes."""

    staleness: int = 0
    """Iterations that the weights which generate are behind those which learn: rewards have as many
    to be computed in."""

    sampling: SamplingParams
    """How they are generated; its seed and number are not used."""

    @property
    def steps(self) -> int:
        """Optimizer steps of an iteration."""
        return self.epochs * self.minibatches


def steps_of(
    batch: RolloutBatch,
    idle: RolloutBatch,
    rollouts: Rollouts,
    *,
    name: Mapping[str, Any],
    micro_batch: int,
    longest: int,
) -> list[StepWork]:
    """The optimizer steps of an iteration, in their order.

    Prompts are shuffled, and the completions of each stay together: a forward pass computes a
    prompt once for all that it has of it. Only where a mini-batch or a forward pass must end within
    a prompt's completions, they are divided.

    Args:
        batch: a rank's completions with advantages; there may be none.
        idle: a row without actions, for steps on which the rank has none while others have; it
            counts nothing.
        rollouts: passes and mini-batches.
        name: plain data that the order of the prompts is drawn from.
        micro_batch: completions of a forward pass.
        longest: tokens that a completion may have.
    """
    steps: list[StepWork] = []
    share = float(batch.action_mask.sum()) / max(1, min(rollouts.minibatches, len(batch)))
    for epoch in range(rollouts.epochs):
        order = torch.arange(len(batch))
        if rollouts.steps > 1:
            order = _shuffled(batch.group_id.cpu(), digest({**name, "epoch": epoch}))
        for rows in order.tensor_split(rollouts.minibatches):
            part = batch.select(rows)
            counts = Counts.of(part, max_completion_length=longest)
            counts = replace(counts, generation_tokens=share)
            part = part if len(part) else idle
            steps.append(
                StepWork(
                    part.split(-(-len(part) // micro_batch)),
                    labels=counts.tokens,
                    tokens=int(part.attention_mask.sum()),
                    counts=sums_of_counts(counts),
                )
            )
    return steps


def _shuffled(group_id: Tensor, name: str) -> Tensor:
    """int64 [N]: rows, group by group in a random order; within a group as they are."""
    groups, group = torch.unique(group_id, return_inverse=True)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(int(name[:15], 16)))
    return order.argsort()[group].argsort(stable=True)
