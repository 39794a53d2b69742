"""A critic for each agent, which sees part of the joint configuration.

::

    V_k(s_k) ~ E[r | s_k]        s_k: the features of a configuration that agent k's critic sees

Rewards of a search space never change their meaning, so the critics learn from the last `memory`
trials, not from the last rollout alone; older ones were drawn from older policies, which shifts V
but, since an agent's V never depends on what the agent itself chose, adds no bias to its gradient.

Time O(passes x agents x memory x network) a rollout; memory O(memory x F).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sharpen.search.observations import Floats
from sharpen.search.rl.networks import Networks, descend, minibatches

__all__ = ["Critics"]


class Critics:
    """One network an agent; see the module.

    Args:
        sees: [A, F] 1 where an agent's critic sees a feature.
        hidden: widths of each network's layers.
        rng: what the first weights are drawn from.
        learning_rate: of Adam.
        memory: most trials that are learnt from.
        passes: over them, a rollout.
        minibatch: most trials of a gradient step.
    """

    def __init__(
        self,
        sees: Tensor,
        hidden: Sequence[int],
        rng: np.random.Generator,
        *,
        learning_rate: float,
        memory: int = 512,
        passes: int = 2,
        minibatch: int = 64,
    ) -> None:
        self.sees, self.memory, self.passes, self.minibatch = sees, memory, passes, minibatch
        self.networks = Networks(len(sees), 1 + sees.shape[1], 1, hidden, rng)
        self.adam = torch.optim.Adam(self.networks.parameters(), lr=learning_rate, fused=True)
        self.features = torch.zeros(0, sees.shape[1], dtype=torch.float64)
        self.keys = np.empty((0, 2))

    def values(self, features: Tensor) -> Tensor:
        """[B, A] V_k of each agent for [B, F] features."""
        seen = features[None] * self.sees[:, None]
        one = torch.ones(len(self.sees), len(features), 1, dtype=torch.float64)
        found: Tensor = self.networks(torch.cat([one, seen], dim=2))[:, :, 0].T
        return found

    def remember(self, features: Tensor, keys: Floats) -> None:
        """Add a rollout's trials: [B, F] features and [B, 2] merit keys."""
        self.features = torch.cat([self.features, features])[-self.memory :]
        self.keys = np.concatenate([self.keys, keys])[-self.memory :]

    def learn(self, rewards: Floats, rng: np.random.Generator) -> None:
        """Fit to the [n] rewards of all trials that are remembered."""
        targets = torch.from_numpy(rewards)[:, None]
        for _ in range(self.passes):
            for rows in minibatches(rng, len(targets), self.minibatch):
                error = self.values(self.features[rows]) - targets[rows]
                descend(self.adam, (error**2).mean(dim=0).sum())
