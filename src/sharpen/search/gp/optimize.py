"""Many bounded minimizations at once: L-BFGS with all restarts in one array.

Method of limited-memory BFGS: Dong C. Liu and Jorge Nocedal, "On the limited memory BFGS method for
large scale optimization", Mathematical Programming 45, 1989; bounds by projection: Dimitri P.
Bertsekas, "Projected Newton methods for optimization problems with simple constraints", SIAM
Journal on Control and Optimization 20(2), 1982; H g without a loop over pairs: Richard H. Byrd,
Jorge Nocedal and Robert B. Schnabel, "Representations of quasi-Newton matrices and their use in
limited memory methods", Mathematical Programming 63, 1994, theorem 2.2::

    free   = coordinates not at a bound that the gradient pushes them against
    d      = -H g on the free coordinates, H from the last m pairs s = x' - x, y = g' - g, in
             columns of S and Y: with R the upper triangle of S'Y, D its diagonal, c = s'y / y'y
             of the newest pair, a = R^-1 S'g,
             H g = c g + S R^-T (D a + c Y'Y a - c Y'g) - c Y a
    x'     = clip(x + t d), t = 1, shortened until f(x') <= f(x) + 1e-4 g (x' - x)

Every evaluation takes one point of each restart that still moves, whether it begins a step or
shortens one, so one call of the function serves all restarts.

Differs from the papers: a restart ends when its step no longer lowers f, and the first step of each
is at most 1/10 of the range. Time O(m d) a restart and evaluation beside the function's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["minimize_all"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Function = Callable[[Floats, Ints], tuple[Floats, Floats]]

_ARMIJO = 1e-4
_SHORTEST = 1e-10
_CURVED = 1e-12  # least s y of a pair, in shares of the fall that its slope promised


def minimize_all(
    function: Function,
    starts: Floats,
    lower: Floats,
    upper: Floats,
    *,
    evaluations: int = 100,
    memory: int = 8,
    tolerance: float = 1e-8,
    race: int | None = None,
) -> tuple[Floats, Floats]:
    """Local minima of a function from each of several starts.

    Args:
        function: of points [k, d] and the restarts [k] they belong to; gives values [k] and
            gradients [k, d]. A value that is not finite counts as worse than any.
        starts: [r, d] first points.
        lower: [d] or [r, d] bounds.
        upper: likewise.
        evaluations: most calls of the function.
        memory: pairs that the curvature is made of.
        tolerance: a restart ends when a step lowers f by less than this times max(1, abs(f)), or
            when no free coordinate of the gradient is longer.
        race: after so many evaluations only the better half of the restarts go on, after as many
            more the best quarter, and so on down to one; None lets all of them end by themselves.

    Returns:
        [r, d] points and [r] values, none worse than its start.
    """
    count, width = starts.shape
    lower = np.broadcast_to(lower, starts.shape)
    upper = np.broadcast_to(upper, starts.shape)
    x, rows = np.clip(starts, lower, upper), np.arange(count)
    f, g = function(x, rows)
    f, g = np.where(np.isfinite(f), f, np.inf), np.nan_to_num(g)
    found, least = x.copy(), f.copy()
    # Of the restarts that still move, one row each.
    s = np.zeros((count, memory, width))  # s and y with s y = 1, 0 where there is no pair
    y = np.zeros((count, memory, width))
    num_pairs = 0  # most that any of them has
    step = np.ones(count)
    direction = np.zeros_like(x)
    fresh = np.ones(count, dtype=bool)  # whether a new direction is due
    ended = np.zeros(count, dtype=bool)
    reach = np.maximum((upper - lower).max(axis=1), 1e-300) / 10
    for number in range(1, evaluations):
        if race is not None and number % race == 0:
            found[rows], least[rows] = x, f
            ahead = np.argsort(least, kind="stable")[: max(1, count >> number // race)]
            ended |= ~np.isin(rows, ahead)
        every = fresh.all()
        if every or fresh.any():
            free = ((x > lower) | (g <= 0)) & ((x < upper) | (g >= 0))
            steepest = np.where(free, -g, 0.0)
            ended |= np.abs(steepest).max(axis=1) <= tolerance
            new, ratio = steepest, np.ones(len(x))
            if num_pairs:
                kept = free[:, None]
                new = _direction(steepest, s[:, -num_pairs:] * kept, y[:, -num_pairs:] * kept)
                downhill = (new * g).sum(axis=1) < 0
                new = np.where(downhill[:, None], new, steepest)
                ratio = np.where(downhill & y[:, -1].any(axis=1), 5.0, 1.0)
            longest = np.maximum(np.abs(new).max(axis=1), 1e-300)
            length = np.minimum(ratio * reach / longest, 1.0)
            direction = new if every else np.where(fresh[:, None], new, direction)
            step = length if every else np.where(fresh, length, step)
        if ended.any():
            found[rows], least[rows] = x, f
            keep = ~ended
            rows, x, f, g, s, y = rows[keep], x[keep], f[keep], g[keep], s[keep], y[keep]
            step, direction = step[keep], direction[keep]
            lower, upper, reach = lower[keep], upper[keep], reach[keep]
            if not len(rows):
                break
        trial = np.clip(x + step[:, None] * direction, lower, upper)
        value, gradient = function(trial, rows)
        finite = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        if not finite.all():
            value = np.where(finite, value, np.inf)
            gradient = np.where(finite[:, None], gradient, g)
        change, grown = trial - x, gradient - g
        promised = np.minimum((g * change).sum(axis=1), 0.0)
        fresh = finite & (value <= f + _ARMIJO * promised)
        product = (change * grown).sum(axis=1)
        good = fresh & (product > -_CURVED * promised)
        if good.any():
            root = (1 / np.sqrt(np.where(good, product, 1.0)))[:, None, None]
            longer = np.concatenate([s[:, 1:], change[:, None] * root], axis=1)
            s = np.where(good[:, None, None], longer, s)
            longer = np.concatenate([y[:, 1:], grown[:, None] * root], axis=1)
            y = np.where(good[:, None, None], longer, y)
            num_pairs = min(num_pairs + 1, memory)
        if fresh.all():
            ended = f - value <= tolerance * np.maximum(1.0, np.abs(value))
            x, f, g = trial, value, gradient
            continue
        # The minimum of the parabola through f, its slope and the refused value.
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = -promised / (2 * (value - f - promised))
        factor = np.clip(np.nan_to_num(factor, nan=0.1), 0.1, 0.5)
        step = np.where(fresh, step, step * factor)
        gain = np.where(fresh, f, 0.0) - np.where(fresh, value, 0.0)
        ended = fresh & (gain <= tolerance * np.maximum(1.0, np.abs(value)))
        ended |= ~fresh & (step * np.abs(direction).max(axis=1) < _SHORTEST)
        x, g = np.where(fresh[:, None], trial, x), np.where(fresh[:, None], gradient, g)
        f = np.where(fresh, value, f)
    found[rows], least[rows] = x, f
    return found, least


def _direction(q: Floats, s: Floats, y: Floats) -> Floats:
    """[r, d] H q for [r, d] q and [r, m, d] pairs, oldest first.

    A pair that has no positive curvature on the free coordinates is passed over.
    """
    products, sizes = s @ y.transpose(0, 2, 1), y @ y.transpose(0, 2, 1)
    curvature = products.diagonal(axis1=1, axis2=2)
    used = curvature > 1e-14 * sizes.diagonal(axis1=1, axis2=2)
    s, y = np.where(used[:, :, None], s, 0.0), np.where(used[:, :, None], y, 0.0)
    triangle = np.triu(np.where(used[:, :, None] & used[:, None], products, 0.0))
    own = np.arange(s.shape[1])
    triangle[:, own, own] = np.where(used, curvature, 1.0)
    at, newest = np.arange(len(q)), s.shape[1] - 1 - np.argmax(used[:, ::-1], axis=1)
    some = used[at, newest]
    scale = np.where(some, curvature[at, newest], 1.0)
    scale /= np.where(some, sizes[at, newest, newest], 1.0)
    scale = scale[:, None, None]
    column = q[:, :, None]
    a = np.linalg.solve(triangle, s @ column)
    by_y = y.transpose(0, 2, 1) @ a
    right = curvature[:, :, None] * a + scale * (y @ (by_y - column))
    b = np.linalg.solve(triangle.transpose(0, 2, 1), right)
    found: Floats = (scale * (column - by_y) + s.transpose(0, 2, 1) @ b)[:, :, 0]
    return found
