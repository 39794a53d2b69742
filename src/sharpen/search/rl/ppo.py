"""Proximal policy optimization over configurations: one agent that chooses all parameters.

John Schulman, Filip Wolski, Prafulla Dhariwal, Alec Radford and Oleg Klimov, "Proximal Policy
Optimization Algorithms", 2017, equation 7::

    rho   = pi(a) / pi_old(a)                       of one agent's choices together
    A     = (r - mean r) / sd r                     over the rollout
    L     = -mean min(rho A, clip(rho, 1 - e, 1 + e) A) - c sum H
    theta <- Adam(grad L), `epochs` times over the rollout in minibatches

Design problems are stateless: the discount is 0, nothing is observed, and the value of the one
state is the mean reward, which the normalized advantage takes off. So there is no critic and no
GAE here; :func:`sharpen.search.rl.train_agent` has them, for environments with states.

Differs from the paper: that, and c falls to 0 over the budget. Few values are drawn by softmax and
longer ranges from Beta distributions: :mod:`sharpen.search.rl.choices`.

Time O(epochs x network) a trial; memory O(network).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.observations import Bools, Floats
from sharpen.search.rl.checks import check_at_least, check_positive, check_widths
from sharpen.search.rl.choices import Ranges
from sharpen.search.rl.losses import clipped_loss
from sharpen.search.rl.networks import descend, minibatches
from sharpen.search.rl.policy_gradient import DesignPolicy, PolicyGradient, agent_groups

__all__ = ["PPO"]


class PPO(PolicyGradient):
    """PPO with one agent for the whole configuration; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see :mod:`sharpen.search.rl.policy_gradient`.
        rollout: trials between two rounds of learning.
        learning_rate: of Adam.
        clip: e, by how much a probability may change in a round.
        epochs: passes over a rollout.
        minibatch: most trials of a gradient step.
        entropy: c at the start.
        hidden: widths of the network's layers.
        resolution: most values of a softmax; cells of a longer range.
        ranges: what longer ranges are, ``"beta"`` or ``"bins"``.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "ppo"
    hyperparameters: ClassVar[Space] = Space(
        rollout=Int(8, 128, log=True),
        learning_rate=Float(1e-4, 3e-2, log=True),
        clip=Float(0.1, 0.4),
        epochs=Int(1, 16, log=True),
        entropy=Float(1e-4, 0.1, log=True),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        rollout: int = 16,
        learning_rate: float = 3e-4,
        clip: float = 0.2,
        epochs: int = 4,
        minibatch: int = 64,
        entropy: float = 0.01,
        hidden: Sequence[int] = (64, 64),
        resolution: int = 16,
        ranges: Ranges = "beta",
        **given: Any,
    ) -> None:
        kind = type(self).__name__
        check_positive(kind, learning_rate=learning_rate, clip=clip)
        check_at_least(kind, 1, epochs=epochs, minibatch=minibatch)
        check_at_least(kind, 0, entropy=entropy)
        check_widths(kind, hidden)
        self.learning_rate, self.clip, self.epochs = learning_rate, clip, epochs
        self.minibatch, self.entropy, self.hidden = minibatch, entropy, tuple(hidden)
        given |= {"rollout": rollout, "resolution": resolution, "ranges": ranges}
        super().__init__(space, objectives, constraints, **given)

    @property
    def agents(self) -> str | Mapping[str, Sequence[str]]:
        """Who chooses what; see :func:`~sharpen.search.rl.policy_gradient.agent_groups`."""
        return "one"

    def build(self, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.build`."""
        self.groups = list(agent_groups(self.choices, self.agents).values())
        self.policy = DesignPolicy(self.choices, self.groups, self.hidden, rng, self.sees())
        self.adam = torch.optim.Adam(
            self.policy.networks.parameters(), lr=self.learning_rate, fused=True
        )

    def sees(self) -> Tensor | None:
        """[A, F] which features each agent reads; None is none."""
        return None

    def draw(self, numbers: npt.NDArray[np.int64]) -> Floats:
        """See :meth:`PolicyGradient.draw`."""
        return self.policy.draw(self.streams(numbers))

    def advantages(self, features: Tensor, keys: Floats, active: Tensor) -> Tensor:
        """[B, A] advantage of each agent's choices, before they are normalized.

        Args:
            features: [B, F] of the trials; 0 where inactive.
            keys: [B, 2] merit keys of them.
            active: [B, A] 1 where the agent chose.
        """
        rewards = torch.from_numpy(self.scale.rewards(keys))
        return (rewards - rewards.mean())[:, None].expand(-1, len(self.groups))

    def learn(self, x: Floats, mask: Bools, keys: Floats, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.learn`."""
        policy, actions = self.policy, self.choices.actions(x)
        chosen = self.choices.active(mask)
        features = actions.features * self.choices.spread(chosen)
        active = ((chosen @ policy.member) > 0).double()
        with torch.no_grad():
            before = self.choices.log_prob(policy.outputs(features), actions) * chosen
            old = before @ policy.member
        raw = self.advantages(features, keys, active)
        # One scale for all agents: whose choice matters little learns little from it.
        known = raw[active > 0]
        advantage = raw / (known.std(correction=0) + 1e-8) if len(known) else raw
        weight = self.entropy * self.annealed
        for _ in range(self.epochs):
            for rows in minibatches(rng, len(x), self.minibatch):
                outputs = policy.outputs(features[rows])
                log_p = self.choices.log_prob(outputs, actions.at(rows)) * chosen[rows]
                loss = clipped_loss(log_p @ policy.member, old[rows], advantage[rows], self.clip)
                entropy = self.choices.entropy(outputs) * chosen[rows]
                total = (loss * active[rows]).sum() - weight * entropy.sum()
                descend(self.adam, total / len(rows))
