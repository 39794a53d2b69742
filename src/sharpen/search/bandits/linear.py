"""LinUCB, LinTS and SquareCB: contextual bandits on ridge regressions of polynomials.

LinUCB: Lihong Li et al., "A Contextual-Bandit Approach to Personalized News Article
Recommendation", WWW 2010, algorithm 1 (disjoint models). LinTS: Shipra Agrawal and Navin Goyal,
"Thompson Sampling for Contextual Bandits with Linear Payoffs", ICML 2013, algorithm 1. SquareCB:
Dylan J. Foster and Alexander Rakhlin, "Beyond UCB", ICML 2020, algorithm 1.

::

    f(c)   = (T_0 .. T_{m-1})(2 c - 1)                       Chebyshev polynomials of the context
    V_i    = lambda I + sum f f',  theta_i = V_i^-1 sum loss f      over the rounds of arm i
    LinUCB    theta_i' f - width sqrt(f' V_i^-1 f)                  is least
    LinTS     theta_i' f + width sqrt(f' V_i^-1 f) N(0, 1)          is least, by 256 draws
    SquareCB  p_i = 1 / (d + gamma (y_i - min y)), the rest to the best;  gamma = sqrt(d t)

Losses are scaled to [0, 1] by the largest seen.

Differs from the papers: one number of context instead of a vector; SquareCB's oracle is the same
ridge regression. Time O(d m^2) a round.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.search.bandits.policy import Floats, Policy

__all__ = ["LinearBandit"]

Rule = Literal["ucb", "ts", "square"]
_DRAWS = 256


class LinearBandit(Policy):
    """See the module.

    Args:
        arms: how many.
        rule: ``"ucb"``, ``"ts"`` or ``"square"``.
        terms: m, polynomials of the context.
        width: of the confidence interval.
        ridge: lambda.
    """

    def __init__(
        self,
        arms: int,
        *,
        rule: Rule = "ucb",
        terms: int = 4,
        width: float = 0.5,
        ridge: float = 1.0,
    ) -> None:
        super().__init__(arms)
        if rule not in ("ucb", "ts", "square"):
            raise ConfigError(f"rule={rule!r} must be ucb, ts or square.")
        if terms < 1 or not width > 0 or not ridge > 0:
            raise ConfigError(
                f"terms={terms} must be at least 1, width={width} and ridge={ridge} positive."
            )
        self.rule = rule
        self.terms = terms
        self.width = width
        self.ridge = ridge
        self.inverse = np.tile(np.eye(terms) / ridge, (arms, 1, 1))
        self.moment = np.zeros((arms, terms))
        self.largest = 0.0

    def _features(self, context: float) -> Floats:
        angle = math.acos(min(max(2.0 * context - 1.0, -1.0), 1.0))
        features: Floats = np.cos(angle * np.arange(self.terms))
        return features

    def probabilities(self, context: float = 0.0) -> Floats:
        """See :meth:`Policy.probabilities`."""
        features = self._features(context)
        solved = self.inverse @ features
        predicted = (solved * self.moment).sum(axis=1) / (self.largest or 1.0)
        p = np.zeros(self.arms)
        if self.rule == "square":
            best = int(predicted.argmin())
            gamma = math.sqrt(self.arms * max(self.rounds, 1))
            p[:] = 1.0 / (self.arms + gamma * (predicted - predicted[best]))
            p[best] = 0.0
            p[best] = 1.0 - p.sum()
            return p
        reach = self.width * np.sqrt(np.maximum(solved @ features, 0.0))
        if self.rule == "ucb":
            p[int((predicted - reach).argmin())] = 1.0
            return p
        rng = np.random.default_rng(self.rounds)
        draws = predicted + reach * rng.standard_normal((_DRAWS, self.arms))
        wins: Floats = np.bincount(draws.argmin(axis=1), minlength=self.arms) / _DRAWS
        return wins

    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """See :meth:`Policy.learn`: the inverse by the formula of Sherman and Morrison."""
        features = self._features(context)
        solved = self.inverse[arm] @ features
        self.inverse[arm] -= np.outer(solved, solved) / (1.0 + features @ solved)
        self.moment[arm] += loss * features
        self.largest = max(self.largest, loss)
        self.rounds += 1
