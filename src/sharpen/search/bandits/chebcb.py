"""ChebCB: a contextual bandit that fits each arm's loss by a Chebyshev series of the context.

Mikhail Khodak et al., "Learning to Relax: Setting Solver Parameters Across a Sequence of Linear
System Instances", ICLR 2024, section 4.2 and algorithm 2, on the inverse-gap weighting of Dylan J.
Foster and Alexander Rakhlin, "Beyond UCB: Optimal and Efficient Contextual Bandits with Regression
Oracles", ICML 2020.

::

    y_i(c)  = sum_{j < m} theta_ij T_j(2 c - 1)      least squares on the rounds of arm i, with
              |theta_i0| <= K,  |theta_ij| <= 2 L / j,  K = the largest loss, L = largest - least
    p_i     = 1 / (d + eta_t (y_i - min y) / s)      of all arms but the best, which has the rest
    eta_t   = 2 t sqrt(d t / (R + 2 alpha^2 t))
    R       = max(0, sum of squared errors of predictions - those of the fits), in units of s^2
    alpha   = (pi + 2/pi log(2 m + 1)) L / (2 (m + 1) s),   s = K (2 + 4 L / K (1 + log m))

The context is scaled to [0, 1], so the length of its interval is 1.

Differs from the paper: the bounded least squares are solved by cyclic coordinate descent from the
last solution; a fit is renewed when its arm was played or a bound moved. Time O(d m + m^2) a round.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.native.build import function, load
from sharpen.search.bandits.policy import Floats, ScaledPolicy

__all__ = ["ChebCB", "bounded_least_squares"]

_SWEEPS = 200


class ChebCB(ScaledPolicy):
    """See the module.

    Args:
        arms: how many.
        terms: m, terms of the series.
    """

    def __init__(self, arms: int, *, terms: int = 6) -> None:
        super().__init__(arms)
        if terms < 1:
            raise ConfigError(f"terms={terms} must be at least 1.")
        self.terms = terms
        self.gram = np.zeros((arms, terms, terms))
        self.moment = np.zeros((arms, terms))
        self.squares = np.zeros(arms)  # of the losses of each arm
        self.residuals = np.zeros(arms)  # squared errors of each fit on its own rounds
        self.fits = np.zeros((arms, terms))
        self.errors = 0.0  # squared, of predictions
        self.largest = 0.0
        self.least = math.inf

    def _features(self, context: float) -> Floats:
        angle = math.acos(min(max(2.0 * context - 1.0, -1.0), 1.0))
        features: Floats = np.cos(angle * np.arange(self.terms))
        return features

    @property
    def _spread(self) -> float:
        return self.largest - self.least

    def _bounds(self) -> Floats:
        """[terms] largest coefficients."""
        order = np.arange(1, self.terms)
        return np.concatenate([[self.largest], 2.0 * self._spread / order])

    def probabilities(self, context: float = 0.0) -> Floats:
        """See :meth:`Policy.probabilities`."""
        if not self.largest > 0:
            return np.full(self.arms, 1.0 / self.arms)
        d, t, m = self.arms, self.rounds, self.terms
        scale = self.largest * (2 + 4 * self._spread / self.largest * (1 + math.log(m)))
        predicted = self.fits @ self._features(context)
        alpha = (math.pi + 2 / math.pi * math.log(2 * m + 1)) * self._spread
        alpha /= 2 * (m + 1) * scale
        regret = max(0.0, self.errors - float(self.residuals.sum())) / scale**2
        below = regret + 2 * alpha**2 * t
        eta = 2 * t * math.sqrt(d * t / below) if below > 0 else 0.0
        best = int(predicted.argmin())
        p = np.asarray(1.0 / (d + eta * (predicted - predicted[best]) / scale))
        p[best] = 0.0
        p[best] = 1.0 - p.sum()
        return p

    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """See :meth:`Policy.learn`."""
        features = self._features(context)
        loss = self.scaled(
            loss, moment=1, fits=1, largest=1, least=1, squares=2, residuals=2, errors=2
        )
        self.errors += (float(self.fits[arm] @ features) - loss) ** 2
        self.gram[arm] += np.outer(features, features)
        self.moment[arm] += loss * features
        self.squares[arm] += loss**2
        self.rounds += 1
        moved = loss > self.largest or loss < self.least
        self.largest, self.least = max(self.largest, loss), min(self.least, loss)
        for each in range(self.arms) if moved else [arm]:
            self._fit(each)

    def _fit(self, arm: int) -> None:
        tiny = 1e-10 * self.largest
        bounded_least_squares(
            self.gram[arm], self.moment[arm], self._bounds(), self.fits[arm], tiny
        )
        fit = self.fits[arm]
        self.residuals[arm] = self.squares[arm] + fit @ (
            self.gram[arm] @ fit - 2 * self.moment[arm]
        )


def bounded_least_squares(
    gram: Floats, moment: Floats, bounds: Floats, theta: Floats, tiny: float
) -> None:
    """Minimize ``theta' G theta / 2 - theta' h`` within ``|theta_j| <= bounds_j``.

    Args:
        gram: [m, m] G, positive semidefinite.
        moment: [m] h.
        bounds: [m] at least 0.
        theta: [m] where to begin; the solution when this returns.
        tiny: a sweep in which no coordinate moves further is the last.
    """
    library = load("bandits")
    if library is not None:
        arrays = (gram, moment, bounds, theta)
        _native(library)(len(theta), *(a.ctypes.data for a in arrays), tiny, _SWEEPS)
        return
    np.clip(theta, -bounds, bounds, out=theta)
    diagonal = gram.diagonal()
    for _ in range(_SWEEPS):
        furthest = 0.0
        for j in np.flatnonzero(diagonal > 0):
            new = theta[j] - (gram[j] @ theta - moment[j]) / diagonal[j]
            new = min(max(new, -bounds[j]), bounds[j])
            furthest = max(furthest, abs(new - theta[j]))
            theta[j] = new
        if furthest <= tiny:
            break


@functools.cache
def _native(library: ctypes.CDLL) -> Any:
    integer, real, pointer = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
    return function(library, "bounded_least_squares", integer, *[pointer] * 4, real, integer)
