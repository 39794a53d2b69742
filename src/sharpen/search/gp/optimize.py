"""Many bounded minimizations at once: L-BFGS with all restarts in one array.

Method of limited-memory BFGS: Dong C. Liu and Jorge Nocedal, "On the limited memory BFGS method for
large scale optimization", Mathematical Programming 45, 1989; bounds by projection: Dimitri P.
Bertsekas, "Projected Newton methods for optimization problems with simple constraints", SIAM
Journal on Control and Optimization 20(2), 1982::

    free   = coordinates not at a bound that the gradient pushes them against
    d      = -H g on the free coordinates, H from the last m pairs s = x' - x, y = g' - g
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


def minimize_all(
    function: Function,
    starts: Floats,
    lower: Floats,
    upper: Floats,
    *,
    evaluations: int = 100,
    memory: int = 8,
    tolerance: float = 1e-8,
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
            when no coordinate of the projected gradient is longer.

    Returns:
        [r, d] points and [r] values, none worse than its start.
    """
    count, width = starts.shape
    lower = np.broadcast_to(lower, starts.shape)
    upper = np.broadcast_to(upper, starts.shape)
    x = np.clip(starts, lower, upper)
    rows = np.arange(count)
    f, g = function(x, rows)
    f, g = np.where(np.isfinite(f), f, np.inf), np.nan_to_num(g)
    s = np.zeros((count, memory, width))
    y = np.zeros((count, memory, width))
    curvature = np.zeros((count, memory))  # s y, 0 where there is no pair
    step = np.ones(count)
    direction = np.zeros_like(x)
    fresh = np.ones(count, dtype=bool)  # whether a new direction is due
    active = np.ones(count, dtype=bool)
    reach = np.maximum((upper - lower).max(axis=1), 1e-300) / 10
    for _ in range(evaluations - 1):
        due = active & fresh
        if due.any():
            free = ~(((x <= lower) & (g > 0)) | ((x >= upper) & (g < 0)))
            steepest = np.where(free, -g, 0.0)
            at = np.flatnonzero(due)
            found = _direction(steepest[at], s[at] * free[at, None], y[at] * free[at, None])
            downhill = (found * g[at]).sum(axis=1) < 0
            direction[at] = np.where(downhill[:, None], found, steepest[at])
            first = ~(curvature[at] > 0).any(axis=1) | ~downhill
            longest = np.abs(direction[at]).max(axis=1)
            limit = reach[at] / np.maximum(longest, 1e-300)
            step[at] = np.where(first, np.minimum(limit, 1.0), np.minimum(5 * limit, 1.0))
            moved = np.clip(x - g, lower, upper) - x
            active &= np.abs(moved).max(axis=1) > tolerance
            fresh[at] = False
        rows = np.flatnonzero(active)
        if not len(rows):
            break
        trial = np.clip(x[rows] + step[rows, None] * direction[rows], lower[rows], upper[rows])
        value, gradient = function(trial, rows)
        change = trial - x[rows]
        promised = (g[rows] * change).sum(axis=1)
        ok = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        ok &= value <= f[rows] + _ARMIJO * np.minimum(promised, 0.0)
        kept, refused = rows[ok], rows[~ok]
        if len(kept):
            grown = gradient[ok] - g[kept]
            product = (change[ok] * grown).sum(axis=1)
            good = product > 1e-12 * np.abs(change[ok]).max(axis=1) * np.abs(grown).max(axis=1)
            pair = kept[good]
            for array, new in ((s, change[ok]), (y, grown)):
                array[pair, :-1] = array[pair, 1:]
                array[pair, -1] = new[good]
            curvature[pair, :-1] = curvature[pair, 1:]
            curvature[pair, -1] = product[good]
            gain = f[kept] - value[ok]
            x[kept], f[kept], g[kept] = trial[ok], value[ok], gradient[ok]
            fresh[kept] = True
            active[kept[gain <= tolerance * np.maximum(1.0, np.abs(f[kept]))]] = False
        if len(refused):
            # The minimum of the parabola through f, its slope and the refused value.
            slope, rise = promised[~ok], value[~ok] - f[refused]
            with np.errstate(divide="ignore", invalid="ignore"):
                factor = -slope / (2 * (rise - slope))
            factor = np.clip(np.nan_to_num(factor, nan=0.1), 0.1, 0.5)
            step[refused] *= factor
            moves = step[refused] * np.abs(direction[refused]).max(axis=1)
            active[refused[moves < _SHORTEST]] = False
    return x, f


def _direction(q: Floats, s: Floats, y: Floats) -> Floats:
    """[r, d] H q by the two-loop recursion (Liu and Nocedal 1989), pairs oldest first.

    A pair that has no positive curvature on the free coordinates is passed over.
    """
    r = q.copy()
    products = (s * y).sum(axis=2)
    sizes = (y * y).sum(axis=2)
    used = products > 1e-14 * sizes
    inverse = np.where(used, 1 / np.where(used, products, 1.0), 0.0)
    alphas = np.zeros_like(inverse)
    for k in range(s.shape[1] - 1, -1, -1):
        alphas[:, k] = inverse[:, k] * (s[:, k] * r).sum(axis=1)
        r -= alphas[:, k, None] * y[:, k]
    last = s.shape[1] - 1 - np.argmax(used[:, ::-1], axis=1)
    at = np.arange(len(q))
    some = used[at, last]
    ratio = products[at, last] / np.where(some, sizes[at, last], 1.0)
    r *= np.where(some, ratio, 1.0)[:, None]
    for k in range(s.shape[1]):
        beta = inverse[:, k] * (y[:, k] * r).sum(axis=1)
        r += (alphas[:, k] - beta)[:, None] * s[:, k]
    return r
