"""SPSA: the gradient from two evaluations, whatever the number of parameters; made for noise.

James C. Spall, "Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
Approximation", IEEE Transactions on Automatic Control 37(3), 1992; gains: Spall, "Implementation of
the Simultaneous Perturbation Algorithm for Stochastic Optimization", IEEE Transactions on Aerospace
and Electronic Systems 34(3), 1998; second order: Spall, "Adaptive Stochastic Approximation by the
Simultaneous Perturbation Method", IEEE Transactions on Automatic Control 45(10), 2000.

::

    a_k = a / (A + k + 1)^alpha          c_k = c / (k + 1)^gamma
    D   ~ {-1, 1}^d
    g_k = mean over `resamplings` of (f(x + c_k D) - f(x - c_k D)) / (2 c_k D)
    x  <- x - a_k g_k
    blocking      keep x unless f(x - a_k g_k) <= f(x) + 2 noise; one more trial a step
    second order  two more trials a pair, at x +- c_k D + c'_k D', D' ~ {-1, 1}^d, c' = 1.25 c:
                  dG = (f(x + c_k D + c'_k D') - f(x + c_k D)
                        - f(x - c_k D + c'_k D') + f(x - c_k D)) / (c'_k D')
                  H_k = (dG / (2 c_k D)^T + transpose) / 2,   H <- (k H + H_k) / (k + 1)
                  x  <- x - a_k (H^2 + r I)^(-1/2) g_k        r = 0.01 of the mean square of H

All in the unit cube, from the best trial from elsewhere or the space's default. With a = None, a is
such that the first step moves a coordinate by `step` on average. x stays c_k away from the bounds.
A pair with a failed trial is left out; without a pair x stays.

Differs from the papers: a pair that is asked while the step before is under way is around the
present x, with the c of the step it will be part of, and is taken as it was measured: g = d (f_1 -
f_2) (x_1 - x_2) / |x_1 - x_2|^2, which is the same for a pair of one centre. Time O(d) a proposal,
O(d^3) a step of second order; memory O(d), O(d^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Bool, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.search.generations import Generation, GenerationalOptimizer
from sharpen.search.moments import exponent
from sharpen.search.observations import Floats
from sharpen.search.variation import free_columns

__all__ = ["SPSA"]

_HORIZON = 200  # trials that are planned for where no budget is known
_LATER = 2**62  # streams of perturbations; trials have the numbers below
_SECOND = 1.25  # c' by c; not 1, so that no two points of a step are the same


class SPSA(GenerationalOptimizer):
    """Simultaneous perturbation stochastic approximation; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: none; it refuses them.
        a: gain of the steps, in unit coordinates; None calibrates it.
        c: first size of the perturbations, as a part of each range.
        alpha: decay of a_k.
        gamma: decay of c_k.
        step: where a is None, how far the first step moves a coordinate.
        stability: A; None is a tenth of the steps that are planned.
        resamplings: pairs a step.
        blocking: whether a step that makes the loss worse is taken back.
        noise: standard deviation of the loss, for blocking.
        second_order: whether the Hessian is estimated, too.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "spsa"
    hyperparameters: ClassVar[Space | None] = Space(
        c=Float(1e-3, 0.2, log=True),
        alpha=Float(0.4, 1.0),
        gamma=Float(0.0, 0.3),
        step=Float(0.01, 0.5, log=True),
        resamplings=Int(1, 4),
        blocking=Bool(),
        second_order=Bool(),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        a: float | None = None,
        c: float = 0.05,
        alpha: float = 0.602,
        gamma: float = 0.101,
        step: float = 0.1,
        stability: float | None = None,
        resamplings: int = 1,
        blocking: bool = False,
        noise: float = 0.0,
        second_order: bool = False,
        **given: Any,
    ) -> None:
        kind = type(self).__name__
        if (a is not None and a <= 0) or not 0 < step <= 1:
            raise ConfigError(f"a={a} must be positive, and step={step} also at most 1 ({kind}).")
        if not 0 < c <= 0.2:
            raise ConfigError(f"c={c} must be positive and at most 0.2 ({kind}).")
        if alpha < 0 or gamma < 0 or noise < 0:
            raise ConfigError(
                f"alpha={alpha}, gamma={gamma} and noise={noise} must not be negative ({kind})."
            )
        if resamplings < 1:
            raise ConfigError(f"resamplings={resamplings} must be at least 1 ({kind}).")
        self.a, self.c, self.alpha, self.gamma, self.step = a, c, alpha, gamma, step
        self.resamplings, self.blocking, self.noise = resamplings, blocking, noise
        self.second_order = second_order
        trials = (4 if second_order else 2) * resamplings + (1 if blocking else 0)
        planned = (given.get("budget") or _HORIZON) / trials
        self.stability = 0.1 * planned if stability is None else stability
        self._free = free_columns(space)
        super().__init__(space, objectives, constraints, **given)

    # -- state ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """See :meth:`GenerationalOptimizer.begin`."""
        start = self.best_elsewhere()
        if start is None:
            start = self.space.encode([self.space.default()]).x[0]
        self._x = start
        self._k = 0
        self._gain = self.a
        self._hessian = np.zeros((len(self._free), len(self._free)))
        self._loss = np.inf  # at x, with blocking
        self._tried: Floats | None = None  # a step that blocking has not judged
        if self.blocking:
            self._tried = self._x

    def _radius(self, ahead: int = 0) -> float:
        """c_k, or that of a later step."""
        return float(self.c / (self._k + ahead + 1) ** self.gamma)

    def _point(self, number: int, place: int, ahead: int = 0) -> Floats:
        """[d] the point of the trial ``number`` at ``place`` of a step."""
        point = self._x.copy()
        if not len(self._free):
            return point
        radius = self._radius(ahead)
        part = place % (4 if self.second_order else 2)
        rng = random_stream(self.seed, _LATER + number - part)
        first, second = rng.integers(0, 2, size=(2, len(self._free))) * 2.0 - 1.0
        room = radius * (1 + _SECOND if self.second_order else 1)
        move = -first if part % 2 else first
        if part >= 2:
            move = move + _SECOND * second
        point[self._free] = np.clip(point[self._free], room, 1 - room) + radius * move
        return point

    def _num_trials(self) -> int:
        return (4 if self.second_order else 2) * self.resamplings

    def plan(self, first: int) -> Floats:
        """See :meth:`GenerationalOptimizer.plan`."""
        self._first_number = first
        if self._tried is not None:
            return self._tried[None]
        return np.array([self._point(first + i, i) for i in range(self._num_trials())])

    def stray(self, number: int, rng: np.random.Generator) -> Floats:
        """See :meth:`GenerationalOptimizer.stray`."""
        after = self._first_number + (1 if self._tried is not None else 0)
        ahead, place = divmod(number - after, self._num_trials())
        return self._point(number, place, max(ahead, 0))

    def absorb(self, generation: Generation) -> None:
        """See :meth:`GenerationalOptimizer.absorb`."""
        if self._tried is not None:
            self._judge(generation)
            return
        gradient = self._estimate(generation)
        if gradient is None:
            return
        new = self._x.copy()
        new[self._free] = np.clip(new[self._free] - self._step_by(gradient), 0.0, 1.0)
        self._k += 1
        if self.blocking:
            self._tried = new
        else:
            self._x = new

    def _judge(self, generation: Generation) -> None:
        assert self._tried is not None
        loss = generation.loss
        if len(loss) and np.isfinite(loss[0]) and loss[0] <= self._loss + 2 * self.noise:
            self._x, self._loss = generation.x[0], float(loss[0])
        self._tried = None

    # -- the step -------------------------------------------------------------------------------

    def _estimate(self, generation: Generation) -> Floats | None:
        """[k] the mean gradient of the pairs that ended well; None without any."""
        count = self._num_trials()
        x, loss = np.full((count, len(self._free)), np.nan), np.full(count, np.nan)
        planned = np.zeros(count, dtype=bool)
        x[generation.places] = generation.x[:, self._free]
        loss[generation.places] = generation.loss
        planned[generation.places] = generation.planned
        gradients, hessians = [], []
        of_one = 4 if self.second_order else 2
        for i in range(0, count, of_one):
            apart = x[i] - x[i + 1]
            square = float(apart @ apart)
            if not np.isfinite(loss[i] - loss[i + 1]) or not square > 0:
                continue
            gradients.append(len(apart) * (loss[i] - loss[i + 1]) * apart / square)
            if (
                self.second_order
                and planned[i : i + 4].all()
                and np.isfinite(loss[i + 2 : i + 4]).all()
            ):
                c = self._radius()
                change = loss[i + 2] - loss[i] - loss[i + 3] + loss[i + 1]
                second = (x[i + 2] - x[i]) / (_SECOND * c)  # D'
                outer = change / (2 * _SECOND * c * c) * np.outer(second, 2 * c / apart)
                hessians.append((outer + outer.T) / 2)
        if hessians:
            self._hessian = (self._k * self._hessian + np.mean(hessians, axis=0)) / (self._k + 1)
        return np.mean(gradients, axis=0) if gradients else None

    def _step_by(self, gradient: Floats) -> Floats:
        """[k] a_k times the gradient, made steady by the Hessian if that is asked for."""
        if self.second_order and self._hessian.any():
            values, vectors = np.linalg.eigh(self._hessian)
            unit = exponent(values)
            squares = np.ldexp(values, -unit) ** 2
            scale = np.ldexp(np.sqrt(squares + 0.01 * np.mean(squares)), unit)
            gradient = vectors @ ((vectors.T @ gradient) / scale)
        if self._gain is None:
            size = float(np.abs(gradient).mean())
            if size == 0:
                return np.zeros_like(gradient)
            self._gain = self.step * (self.stability + 1) ** self.alpha / size
        return np.asarray(self._gain / (self.stability + self._k + 1) ** self.alpha * gradient)
