"""Logistic regression on sparse rows, by L-BFGS.

With y = +1 or -1, rows x_i of n, weights w and an intercept b that is not penalized::

    minimize  1/n sum_i log(1 + exp(-y_i (w x_i + b))) + |w|^2 / (2 C n)

which has one minimum. Dong Liu, Jorge Nocedal, "On the limited memory BFGS method for large scale
optimization", Mathematical Programming 45, 1989: the last m steps s and changes of the gradient y
give the direction (two-loop recursion, Nocedal and Wright, "Numerical Optimization", algorithm
7.4); its length is halved until the loss falls enough (Armijo).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.data.quality.features import Sparse

__all__ = ["Fitted", "fit", "minimize", "sigmoid"]

Floats = npt.NDArray[np.float64]

_MEMORY = 10
_ENOUGH = 1e-4  # of the fall that the slope promises
_LEAST = 1e-12  # curvature of a step that is kept


@dataclass(frozen=True, slots=True)
class Fitted:
    """A minimum."""

    weights: Floats
    """[dimensions]"""

    intercept: float

    iterations: int

    loss: float
    """With the penalty."""


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def fit(
    rows: Sparse,
    labels: npt.NDArray[np.bool_],
    *,
    strength: float,
    tolerance: float = 1e-5,
    most: int = 500,
) -> Fitted:
    """Weights that tell rows apart.

    Args:
        rows: [n, dimensions].
        labels: [n] which are positive.
        strength: C; less is more penalty.
        tolerance: largest entry of the gradient at the end.
        most: iterations.
    """
    n, sign = len(rows), np.where(labels, 1.0, -1.0)
    penalty = 1.0 / (strength * n)

    def loss(x: Floats) -> tuple[float, Floats]:
        weights, margin = x[:-1], sign * (rows.times(x[:-1]) + x[-1])
        factors = -sign * sigmoid(-margin) / n
        value = np.logaddexp(0.0, -margin).mean() + penalty / 2 * (weights @ weights)
        slope = np.append(rows.sum(factors) + penalty * weights, factors.sum())
        return float(value), slope

    x, value, iterations = minimize(
        loss, np.zeros(rows.dimensions + 1), tolerance=tolerance, most=most
    )
    return Fitted(x[:-1], float(x[-1]), iterations, value)


def minimize(
    loss: Callable[[Floats], tuple[float, Floats]], x: Floats, *, tolerance: float, most: int
) -> tuple[Floats, float, int]:
    """The minimum of a smooth function by L-BFGS, its value, and iterations.

    Args:
        loss: gives the value and the gradient.
        x: where to begin.
        tolerance: largest entry of the gradient at the end.
        most: iterations.
    """
    value, slope = loss(x)
    past: deque[tuple[Floats, Floats, float]] = deque(maxlen=_MEMORY)
    for iteration in range(most):
        if np.abs(slope).max() <= tolerance:
            return x, value, iteration
        direction = _direction(slope, past)
        fall = float(slope @ direction)
        length = 1.0 if past else min(1.0, 1.0 / float(np.abs(slope).sum()))
        while True:
            moved = x + length * direction
            value_there, slope_there = loss(moved)
            if value_there <= value + _ENOUGH * length * fall:
                break
            length /= 2
            if length < 1e-20:  # rounding: nothing better is near
                return x, value, iteration
        step, change = moved - x, slope_there - slope
        if (curvature := float(step @ change)) > _LEAST * float(step @ step):
            past.append((step, change, 1.0 / curvature))
        x, value, slope = moved, value_there, slope_there
    return x, value, most


def _direction(slope: Floats, past: deque[tuple[Floats, Floats, float]]) -> Floats:
    """Minus the approximate inverse Hessian times the gradient."""
    q, alphas = -slope, []
    for step, change, rho in reversed(past):
        alphas.append(rho * float(step @ q))
        q = q - alphas[-1] * change
    if past:
        step, change, rho = past[-1]
        q = q / (rho * float(change @ change))
    for (step, change, rho), alpha in zip(past, reversed(alphas), strict=True):
        q = q + (alpha - rho * float(change @ q)) * step
    return q
