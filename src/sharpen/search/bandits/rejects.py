"""Successive rejects: find the best arm within a budget; what is paid on the way does not matter.

Jean-Yves Audibert, Sebastien Bubeck and Remi Munos, "Best Arm Identification in Multi-Armed
Bandits", COLT 2010, figure 3.

::

    n_k = ceil((budget - d) / (log~(d) (d + 1 - k))),   log~(d) = 1/2 + sum_{i=2..d} 1 / i

In phase k = 1 .. d - 1 every arm that is left is played until it has n_k rounds; then the one with
the largest mean loss is dropped. What is left of the budget goes to the last arm.

Differs from the paper: None. Time O(d) a round.
"""

from __future__ import annotations

import math

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.search.bandits.policy import Floats, Policy

__all__ = ["SuccessiveRejects"]


class SuccessiveRejects(Policy):
    """See the module.

    Args:
        arms: how many.
        budget: rounds in all, at least as many as arms.
    """

    def __init__(self, arms: int, *, budget: int) -> None:
        super().__init__(arms)
        if budget < arms:
            raise ConfigError(f"budget={budget} must be at least the number of arms, {arms}.")
        self.budget = budget
        self.counts = np.zeros(arms)
        self.sums = np.zeros(arms)
        self.left = np.ones(arms, dtype=bool)

    def wanted(self, phase: int) -> int:
        """Rounds that each arm which is left has at the end of a phase, from 1."""
        harmonic = 0.5 + sum(1 / i for i in range(2, self.arms + 1))
        return math.ceil((self.budget - self.arms) / (harmonic * (self.arms + 1 - phase)))

    def probabilities(self, context: float = 0.0) -> Floats:
        """See :meth:`Policy.probabilities`: one arm is certain."""
        p = np.zeros(self.arms)
        left = np.flatnonzero(self.left)
        p[left[int(self.counts[left].argmin())]] = 1.0
        return p

    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """See :meth:`Policy.learn`."""
        self.counts[arm] += 1
        self.sums[arm] += loss
        self.rounds += 1
        left = np.flatnonzero(self.left)
        while len(left) > 1:
            phase = self.arms + 1 - len(left)
            if self.counts[left].min() < max(self.wanted(phase), 1):
                return
            worst = left[int((self.sums[left] / self.counts[left]).argmax())]
            self.left[worst] = False
            left = np.flatnonzero(self.left)
