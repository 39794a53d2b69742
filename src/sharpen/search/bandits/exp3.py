"""Exp3 and Exp3-IX: exponential weights, against losses that an adversary chooses.

Peter Auer et al., "The Nonstochastic Multiarmed Bandit Problem", SIAM Journal on Computing 32(1),
2002; implicit exploration: Gergely Neu, "Explore no more: Improved high-probability regret bounds
for non-stochastic bandits", NIPS 2015, theorem 1 with its rates for an unknown horizon.

::

    p_i  ~ exp(-eta_t k_i),   k_i += loss / (p_i + gamma_t) of the arm that was played
    eta_t = sqrt(ln d / (d t));   gamma_t = 0 for Exp3, eta_t / 2 for Exp3-IX

Losses are scaled to [0, 1] by the largest seen.

Differs from the papers: Exp3 in its form for losses, without mixing in of the uniform distribution.
Time O(d) a round.
"""

from __future__ import annotations

import math

import numpy as np

from sharpen.search.bandits.policy import Floats, Policy

__all__ = ["Exp3"]


class Exp3(Policy):
    """See the module.

    Args:
        arms: how many.
        implicit: whether to explore implicitly (Exp3-IX).
    """

    def __init__(self, arms: int, *, implicit: bool = False) -> None:
        super().__init__(arms)
        self.implicit = implicit
        self.losses = np.zeros(arms)
        self.largest = 0.0

    def _rate(self, t: int) -> float:
        return math.sqrt(math.log(self.arms) / (self.arms * t))

    def probabilities(self, context: float = 0.0) -> Floats:
        """See :meth:`Policy.probabilities`."""
        scaled = (self.losses - self.losses.min()) / (self.largest or 1.0)
        weights = np.exp(-self._rate(self.rounds + 1) * scaled)
        p: Floats = weights / weights.sum()
        return p

    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """See :meth:`Policy.learn`."""
        self.rounds += 1
        gamma = self._rate(self.rounds) / 2 if self.implicit else 0.0
        self.losses[arm] += loss / (probability + gamma)
        self.largest = max(self.largest, loss)
