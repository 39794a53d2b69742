"""REINFORCE with a factored policy: one softmax a parameter, without a network.

Ronald J. Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist
Reinforcement Learning", Machine Learning 8, 1992; the baseline: Wouter Kool, Herke van Hoof and Max
Welling, "Buy 4 REINFORCE Samples, Get a Baseline for Free!", ICLR 2019 workshop::

    pi(a)  = prod_choices softmax(theta_choice)_{a_choice}
    A_i    = r_i - mean_{j != i} r_j                leave one out: unbiased
    g      = mean_i A_i grad log pi(a_i) + c grad H
    theta <- Adam(g)

Design problems are stateless (discount 0), so a table of numbers is all that a policy needs; what
networks add must show beside this. Longer ranges are cut into cells; see
:mod:`sharpen.search.rl.choices`.

Differs from the papers: the entropy, whose c falls to 0 over the budget.

Time O(L) a trial for L levels in all; memory O(L).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.observations import Bools, Floats
from sharpen.search.rl.checks import check_at_least, check_positive
from sharpen.search.rl.choices import Ranges
from sharpen.search.rl.networks import descend
from sharpen.search.rl.policy_gradient import PolicyGradient

__all__ = ["Reinforce"]


class Reinforce(PolicyGradient):
    """REINFORCE with a table of logits; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see :mod:`sharpen.search.rl.policy_gradient`.
        rollout: trials of a gradient step.
        learning_rate: of Adam.
        entropy: c at the start.
        resolution: most values of a softmax; cells of a longer range.
        ranges: what longer ranges are, ``"bins"`` or ``"beta"``.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "reinforce"
    hyperparameters: ClassVar[Space] = Space(
        rollout=Int(4, 64, log=True),
        learning_rate=Float(0.01, 0.5, log=True),
        entropy=Float(1e-4, 0.1, log=True),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        rollout: int = 8,
        learning_rate: float = 0.05,
        entropy: float = 0.01,
        resolution: int = 16,
        ranges: Ranges = "bins",
        **given: Any,
    ) -> None:
        check_positive("Reinforce", learning_rate=learning_rate)
        check_at_least("Reinforce", 0, entropy=entropy)
        self.learning_rate, self.entropy = learning_rate, entropy
        given |= {"rollout": rollout, "resolution": resolution, "ranges": ranges}
        super().__init__(space, objectives, constraints, **given)

    def build(self, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.build`."""
        shape = (1, self.choices.num_outputs)
        self.theta = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        self.adam = torch.optim.Adam([self.theta], lr=self.learning_rate, fused=True)

    def draw(self, numbers: npt.NDArray[np.int64]) -> Floats:
        """See :meth:`PolicyGradient.draw`."""
        theta, starts = self.theta.detach().numpy()[0], self.choices.starts
        x = np.full((len(numbers), self.space.dimensions), 0.5)
        for row, rng in zip(x, self.streams(numbers), strict=True):
            for i, choice in enumerate(self.choices.choices):
                part = theta[starts[i] : starts[i + 1]]
                row[choice.columns] = self.choices.draw(i, part, rng)
        return x

    def learn(self, x: Floats, mask: Bools, keys: Floats, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.learn`."""
        if len(x) < 2:
            return
        chosen = self.choices.active(mask)
        log_p = self.choices.log_prob(self.theta, self.choices.actions(x)) * chosen
        entropy = self.choices.entropy(self.theta) * chosen
        rewards = self.scale.rewards(keys)
        # r_i less the mean of the others is n / (n - 1) times r_i less the mean of all.
        advantage = (rewards - rewards.mean()) * len(x) / (len(x) - 1)
        gain = (torch.from_numpy(advantage)[:, None] * log_p).sum()
        gain = gain + self.entropy * self.annealed * entropy.sum()
        descend(self.adam, -gain / len(x))
