"""Tsallis-INF: optimal both against an adversary and against chance, without knowing which.

Julian Zimmert and Yevgeny Seldin, "Tsallis-INF: An Optimal Algorithm for Stochastic and Adversarial
Bandits", JMLR 22, 2021, algorithm 1 with importance-weighted losses; its use for the parameters of
solvers: Mikhail Khodak et al., "Learning to Relax: Setting Solver Parameters Across a Sequence of
Linear System Instances", ICLR 2024.

::

    eta_t = c / sqrt(t)
    u_i   = eta_t (k_i - min k) / s,   s = the mean loss so far
    p_i   = 4 / (u_i - y)^2,           y such that the p_i sum to 1
    k_i  += loss / p_i                 of the arm that was played

For d arms the root y lies in [-2 sqrt(d), -2]. The sum is convex and increasing there, so Newton's
method from the left end overshoots once and then falls to the root.

Differs from the papers: losses are scaled by their mean, as in the second paper's code, but the
probabilities sum to 1 in every round, and the same ones weight the losses.
Time O(d) a round for a handful of Newton steps.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np

from sharpen.native.build import function, load
from sharpen.search.bandits.policy import Floats, Policy

__all__ = ["TsallisINF", "tsallis_probabilities"]

_STEPS = 100


def tsallis_probabilities(u: Floats) -> Floats:
    """The minimizer of ``<u, p> - 4 sum sqrt(p)`` over distributions.

    Args:
        u: [d] scaled cumulative losses, the least of them 0.

    Returns:
        [d] probabilities; their sum is 1 to rounding.
    """
    library = load("bandits")
    if library is not None:
        p = np.empty(len(u))
        given = np.ascontiguousarray(u, dtype=np.float64)
        _native(library)(len(u), given.ctypes.data, p.ctypes.data, _STEPS)
        return p
    low, high = -2.0 * math.sqrt(len(u)), -2.0
    y = low
    for _ in range(_STEPS):
        inverse = 2.0 / (u - y)
        squares = inverse * inverse
        excess = float(squares.sum()) - 1.0
        if abs(excess) < 1e-15:
            break
        if excess > 0:
            high = y
        else:
            low = y
        step = excess / float((squares * inverse).sum())  # d/dy 4 (u - y)^-2 = 8 (u - y)^-3
        moved = y - step
        if not low <= moved <= high:
            moved = (low + high) / 2.0
        if moved == y:
            break
        y = moved
    return squares


@functools.cache
def _native(library: ctypes.CDLL) -> Any:
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    return function(library, "tsallis", integer, pointer, pointer, integer)


class TsallisINF(Policy):
    """See the module.

    Args:
        arms: how many.
        rate: c of the learning rate.
    """

    def __init__(self, arms: int, *, rate: float = 2.0) -> None:
        super().__init__(arms)
        self.rate = rate
        self.losses = np.zeros(arms)
        self.total = 0.0

    def probabilities(self, context: float = 0.0) -> Floats:
        """See :meth:`Policy.probabilities`."""
        if self.total <= 0:
            return np.full(self.arms, 1.0 / self.arms)
        mean = self.total / self.rounds
        eta = self.rate / math.sqrt(self.rounds + 1)
        return tsallis_probabilities(eta / mean * (self.losses - self.losses.min()))

    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """See :meth:`Policy.learn`."""
        self.losses[arm] += loss / probability
        self.total += loss
        self.rounds += 1
