"""Thompson sampling: play each arm as often as it is likely to be the best.

William R. Thompson, "On the likelihood that one unknown probability exceeds another in view of the
evidence of two samples", Biometrika 25, 1933; with a normal loss of unknown mean and variance:
Junya Honda and Akimichi Takemura, "Optimality of Thompson Sampling for Gaussian Bandits Depends on
Priors", AISTATS 2014, whose prior with shape -1/2 is taken.

::

    mean_i ~ m_i + s_i / sqrt(n_i) Student-t(n_i - 1),   m_i, s_i of the n_i losses of arm i

The arm with the least draw is played, after two rounds of each. Probabilities are shares of 256
draws that are the same for the same history.

Differs from the papers: None. Time O(256 d) a round.
"""

from __future__ import annotations

import numpy as np

from sharpen.search.bandits.policy import Floats, ScaledPolicy

__all__ = ["Thompson"]

_FIRST = 2
_DRAWS = 256


class Thompson(ScaledPolicy):
    """See the module.

    Args:
        arms: how many.
    """

    def __init__(self, arms: int) -> None:
        super().__init__(arms)
        self.counts = np.zeros(arms)
        self.means = np.zeros(arms)
        self.squares = np.zeros(arms)  # sums of squared distances from the means

    def probabilities(self, context: float = 0.0) -> Floats:
        """See :meth:`Policy.probabilities`."""
        p = np.zeros(self.arms)
        fresh = np.flatnonzero(self.counts < _FIRST)
        if len(fresh):
            p[fresh[int(self.counts[fresh].argmin())]] = 1.0
            return p
        rng = np.random.default_rng(self.rounds)
        spread = np.sqrt(self.squares / (self.counts - 1) / self.counts)
        draws = self.means + spread * rng.standard_t(self.counts - 1, (_DRAWS, self.arms))
        wins: Floats = np.bincount(draws.argmin(axis=1), minlength=self.arms) / _DRAWS
        return wins

    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """See :meth:`Policy.learn`."""
        loss = self.scaled(loss, means=1, squares=2)
        self.counts[arm] += 1
        change = loss - self.means[arm]
        self.means[arm] += change / self.counts[arm]
        self.squares[arm] += change * (loss - self.means[arm])
        self.rounds += 1
