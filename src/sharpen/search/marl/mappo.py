"""Multi-agent PPO with a centralized critic: each agent's baseline knows what the others chose.

Chao Yu et al., "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games", NeurIPS 2022
(a critic with the agent's own view of the global state); Cathy Wu et al., "Variance Reduction for
Policy Gradient with Action-Dependent Factorized Baselines", ICLR 2018, equation 6::

    A_k   = (r - V_k(a_{-k})) / sd over all agents and trials of the rollout
    L     = -sum_k mean min(rho_k A_k, clip(rho_k, 1 - e, 1 + e) A_k) - c sum H

A search space has no state, so what is global is the others' choices a_{-k}. Since V_k does not
depend on a_k the gradient stays that of independent learners in the mean; what the others did no
longer shakes it. In a sum of n equal terms the variance of A_k falls from n terms to one.

Differs from the papers: V_k also learns from the trials of earlier rollouts
(:mod:`sharpen.search.marl.critic`); without a clipped value loss; design problems are stateless
(discount 0).

Time O((epochs + passes memory / rollout) x agents x network) a trial; memory O(agents x network).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.marl.critic import Critics
from sharpen.search.marl.ippo import IPPO
from sharpen.search.observations import Floats
from sharpen.search.rl.checks import check_positive

__all__ = ["MAPPO"]


class MAPPO(IPPO):
    """MAPPO; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see :mod:`sharpen.search.rl.policy_gradient`.
        critic_rate: of Adam, for the critics.
        given: see :class:`~sharpen.search.marl.ippo.IPPO`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "mappo"
    hyperparameters: ClassVar[Space] = Space(
        rollout=Int(8, 128, log=True),
        learning_rate=Float(1e-4, 3e-2, log=True),
        critic_rate=Float(1e-4, 3e-2, log=True),
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
        critic_rate: float = 1e-3,
        **given: Any,
    ) -> None:
        check_positive(type(self).__name__, critic_rate=critic_rate)
        self.critic_rate = critic_rate
        super().__init__(space, objectives, constraints, **given)

    def build(self, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.build`."""
        super().build(rng)
        self.critics = Critics(self.critics_see(), self.hidden, rng, learning_rate=self.critic_rate)

    def critics_see(self) -> Tensor:
        """[A, F] which features each agent's critic sees: all but those of its own choices."""
        return 1 - self.choices.spread(self.policy.member.T)

    def advantages(self, features: Tensor, keys: Floats, active: Tensor) -> Tensor:
        """See :meth:`PPO.advantages`."""
        # V as it was before these trials: it must not know their rewards.
        with torch.no_grad():
            values = self.critics.values(features)
        rewards = torch.from_numpy(self.scale.rewards(keys))
        self.critics.remember(features, keys)
        return self.advantages_over(values, rewards, active)

    def advantages_over(self, values: Tensor, rewards: Tensor, active: Tensor) -> Tensor:
        """[B, A] from [B, A] values and [B] rewards."""
        found = rewards[:, None] - values
        # What the critics miss for all trials alike is no agent's merit.
        return found - _mean_where(found, active)

    def learn(self, x: Any, mask: Any, keys: Floats, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.learn`."""
        super().learn(x, mask, keys, rng)
        self.critics.learn(self.scale.rewards(self.critics.keys), rng)


def _mean_where(values: Tensor, active: Tensor) -> Tensor:
    """[1, A] mean of each column over the rows where it is active; 0 where none is."""
    return (values * active).sum(0, keepdim=True) / active.sum(0, keepdim=True).clamp(min=1)
