"""Adam on SPSA's gradients, for circuits that are measured with noise.

Yash J. Patel et al., "Curriculum Reinforcement Learning for Quantum Architecture Search under
Hardware Errors", ICLR 2024, arXiv:2402.03500; Adam: Diederik P. Kingma and Jimmy Ba, ICLR 2015,
arXiv:1412.6980; SPSA: :mod:`sharpen.search.spsa`.

::

    a_k = a / (k + 1)^alpha     c_k = c / (k + 1)^gamma     b_k = beta1 / (k + 1)^lambda
    g_k   SPSA's gradient, of `resamplings` pairs
    m  <- b_k m + (1 - b_k) g_k
    v  <- beta2 v + (1 - beta2) g_k^2
    x  <- x - a_k (m / (1 - b_k^(k+1))) / (sqrt(v / (1 - beta2^(k+1))) + 1e-8)

Gains are in unit coordinates: for gains of angles in radians over a range of 2 pi, divide a and c
by 2 pi. Start, bounds, failed trials and trials side by side as in SPSA.

Differs from the paper: the number of shots, which it raises in three stages, is the problem's.
Time and memory O(d) a proposal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Bool, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.observations import Floats
from sharpen.search.spsa import SPSA

__all__ = ["AdamSPSA"]

_LARGEST = 1e150  # of a slope's parts: their squares stay finite


class AdamSPSA(SPSA):
    """Adam with gradients of simultaneous perturbations; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: none; it refuses them.
        a: first step, as a part of each range.
        c: first size of the perturbations, as a part of each range.
        alpha: decay of a_k.
        gamma: decay of c_k.
        beta1: b_0.
        beta2: decay of the mean square.
        decay: lambda, of b_k.
        resamplings: pairs a step.
        blocking: whether a step that makes the loss worse is taken back.
        noise: standard deviation of the loss, for blocking.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "adam-spsa"
    hyperparameters: ClassVar[Space | None] = Space(
        a=Float(0.01, 0.5, log=True),
        c=Float(1e-3, 0.2, log=True),
        alpha=Float(0.0, 1.0),
        gamma=Float(0.0, 0.3),
        beta1=Float(0.5, 0.99),
        beta2=Float(0.8, 0.9999),
        decay=Float(0.0, 1.0),
        resamplings=Int(1, 4),
        blocking=Bool(),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        a: float = 0.1,
        c: float = 0.05,
        alpha: float = 0.4,
        gamma: float = 0.101,
        beta1: float = 0.9,
        beta2: float = 0.99,
        decay: float = 0.01,
        resamplings: int = 1,
        blocking: bool = False,
        noise: float = 0.0,
        **given: Any,
    ) -> None:
        for option, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ConfigError(f"{option}={value} must be from 0 to less than 1 (AdamSPSA).")
        if decay < 0:
            raise ConfigError(f"decay={decay} must not be negative (AdamSPSA).")
        self.beta1, self.beta2, self.decay = beta1, beta2, decay
        super().__init__(
            space,
            objectives,
            constraints,
            a=a,
            c=c,
            alpha=alpha,
            gamma=gamma,
            stability=0.0,
            resamplings=resamplings,
            blocking=blocking,
            noise=noise,
            **given,
        )

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        super().begin()
        self._mean, self._square = np.zeros((2, len(self._free)))

    def _step_by(self, gradient: Floats) -> Floats:
        assert self.a is not None
        k, gradient = self._k, np.clip(gradient, -_LARGEST, _LARGEST)
        beta1 = self.beta1 / (k + 1) ** self.decay
        self._mean = beta1 * self._mean + (1 - beta1) * gradient
        self._square = self.beta2 * self._square + (1 - self.beta2) * gradient**2
        mean = self._mean / (1 - beta1 ** (k + 1))
        square = self._square / (1 - self.beta2 ** (k + 1))
        return np.asarray(self.a / (k + 1) ** self.alpha * mean / (np.sqrt(square) + 1e-8))
