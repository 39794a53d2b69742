"""Upper confidence bounds: play the arm that could still be the best.

Peter Auer, Nicolo Cesa-Bianchi and Paul Fischer, "Finite-time Analysis of the Multiarmed Bandit
Problem", Machine Learning 47, 2002: UCB1 (figure 1) and UCB1-tuned (section 4).

::

    UCB1         mean_i - sqrt(2 ln t / n_i)                                        is least
    UCB1-tuned   mean_i - sqrt(ln t / n_i min(1/4, var_i + sqrt(2 ln t / n_i)))     is least

Losses are scaled to [0, 1] by the largest seen. Every arm is played once first.

Differs from the paper: losses instead of rewards. Time O(d) a round.
"""

from __future__ import annotations

import math

import numpy as np

from sharpen.search.bandits.policy import Floats, ScaledPolicy

__all__ = ["UCB"]


class UCB(ScaledPolicy):
    """See the module.

    Args:
        arms: how many.
        tuned: whether the bound minds each arm's variance.
    """

    def __init__(self, arms: int, *, tuned: bool = False) -> None:
        super().__init__(arms)
        self.tuned = tuned
        self.counts = np.zeros(arms)
        self.sums = np.zeros(arms)
        self.squares = np.zeros(arms)
        self.largest = 0.0

    def probabilities(self, context: float = 0.0) -> Floats:
        """See :meth:`Policy.probabilities`: one arm is certain."""
        p = np.zeros(self.arms)
        fresh = np.flatnonzero(self.counts == 0)
        if len(fresh):
            p[fresh[0]] = 1.0
            return p
        scale = self.largest or 1.0
        mean = self.sums / self.counts / scale
        share = math.log(self.rounds) / self.counts
        reach = np.sqrt(2 * share)
        if self.tuned:
            variance = np.maximum(self.squares / self.counts / scale**2 - mean**2, 0.0)
            reach = np.sqrt(share * np.minimum(0.25, variance + reach))
        p[int((mean - reach).argmin())] = 1.0
        return p

    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """See :meth:`Policy.learn`."""
        loss = self.scaled(loss, sums=1, squares=2, largest=1)
        self.counts[arm] += 1
        self.sums[arm] += loss
        self.squares[arm] += loss**2
        self.largest = max(self.largest, loss)
        self.rounds += 1
