"""B-Coder: values of programs that anyone wrote, then a policy that is its own value function.

Two trainings, one after the other (:mod:`sharpen.align.losses.bcoder` has the formulas)::

    phi    the model is frozen; a head learns the values of its states
    theta  the head is frozen, with what it says of each state of the rows and with the model's
           likeliest tokens there, both taken once before; the model learns, and a second head
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.heads import DuelingHead, add_dueling_head
from sharpen.align.losses.base import LossOut
from sharpen.align.losses.bcoder import bcoder_phi_loss, bcoder_theta_loss
from sharpen.align.methods.base import Method, Policy, Scale, described
from sharpen.align.options.methods import BCoderOptions
from sharpen.align.scoring import action_scores, values_of

__all__ = ["BCODER", "THETA", "BCoderOptions", "Programs"]


@dataclass(frozen=True, slots=True)
class Programs:
    """A micro-batch of programs."""

    rollouts: RolloutBatch
    """With rewards; ``values`` are the raw ones of the frozen head (stage theta)."""

    greedy: Tensor | None = None
    """int64 [N, T] the frozen model's likeliest tokens (stage theta)."""


def dueling_of(policy: Policy) -> DuelingHead:
    """The model's head for values."""
    head: Any = policy.model.dueling
    assert isinstance(head, DuelingHead)
    return head


def _phi(policy: Policy, batch: Programs, options: BCoderOptions, scale: Scale) -> LossOut:
    rollouts = batch.rollouts
    with torch.no_grad():
        states = policy.states(rollouts)
        found = action_scores(
            policy.model, states, rollouts, alpha=options.alpha, dtype=policy.dtype
        )
    raw = values_of(dueling_of(policy).phi, states, rollouts.action_mask)
    return bcoder_phi_loss(raw, rollouts, options, scale.counts, advantage=found.advantage)


def _theta(policy: Policy, batch: Programs, options: BCoderOptions, scale: Scale) -> LossOut:
    rollouts, mask = batch.rollouts, batch.rollouts.action_mask
    assert rollouts.values is not None
    assert batch.greedy is not None
    states = policy.states(rollouts)
    own, greedy = (
        action_scores(
            policy.model,
            states,
            rollouts,
            tokens=tokens,
            alpha=options.alpha,
            dtype=policy.dtype,
        ).advantage
        for tokens in (None, batch.greedy)
    )
    raw = rollouts.values + values_of(dueling_of(policy).gained, states, mask)
    return bcoder_theta_loss(
        policy.logp(rollouts, states),
        rollouts,
        options,
        scale.counts,
        advantage=own,
        raw_value=raw,
        greedy_advantage=greedy,
    )


BCODER = Method(**described("bcoder"), loss=_phi, add_heads=add_dueling_head)
"""Stage phi; :data:`THETA` has the loss of the other."""

THETA = _theta
