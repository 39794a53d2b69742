"""The expected maximum of lines over a standard normal, exactly.

Peter I. Frazier, Warren B. Powell and Savas Dayanik, "The Knowledge-Gradient Policy for Correlated
Normal Beliefs", INFORMS Journal on Computing 21(4), 2009, equation 14 and algorithm 1; with h of
:mod:`sharpen.search.gp.normal`, phi and Phi of the standard normal::

    c_ij            = (a_i - a_j) / (b_j - b_i)            where the lines i and j cross
    (lo_i, hi_i)    = (max of c_ij over b_j < b_i, min of c_ij over b_j > b_i): where i is highest
    E[max a_i + b_i Z] - max a_i = sum over neighbours i, j on top of (b_j - b_i) h(-|hi_i|)
    d/da_i = Phi(hi_i) - Phi(lo_i),  d/db_i = phi(lo_i) - phi(hi_i)   (the envelope theorem)

Differs from the paper: all pairs of lines are compared at once instead of one pass over sorted
lines, which suits arrays; of lines with equal slopes the highest counts. Every term of the sum is
positive, so its logarithm keeps its precision however small it is. Time and memory O(q n^2) for q
sets of n lines.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from sharpen.search.gp.normal import LOG_SQRT_2PI, log_h_values

__all__ = ["log_expected_rise"]

Floats = npt.NDArray[np.float64]


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def log_expected_rise(a: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """log(E[max_i (a_i + b_i Z)] - max_i a_i) for Z ~ N(0, 1), and its derivatives.

    Args:
        a: [q, n] heights of the lines at 0.
        b: [q, n] their slopes.

    Returns:
        [q] values, minus infinity where one line stays highest; [q, n] derivatives by the heights
        and by the slopes.
    """
    high = a[:, :, None] - a[:, None, :]  # a_i - a_j
    steep = b[:, None, :] - b[:, :, None]  # b_j - b_i
    cross = high / steep
    is_later = steep > 0
    after = np.where(is_later, cross, math.inf)
    hi = after.min(axis=2)
    lo = np.where(steep < 0, cross, -math.inf).max(axis=2)
    top = lo < hi
    parallel = steep == 0
    if parallel.sum() > a.size:
        # Of parallel lines the first of the highest stands for all.
        order = np.arange(a.shape[1])
        earlier = order[None, :] < order[:, None]
        hidden = parallel & ((high < 0) | ((high == 0) & earlier))
        top &= ~hidden.any(axis=2)
    # Two lines that cross the same one at one place: the steeper comes after.
    step = np.where(is_later & (after == hi[:, :, None]), steep, -math.inf).max(axis=2)
    term = np.where(top & np.isfinite(hi), np.log(step) + log_h_values(-np.abs(hi)), -math.inf)
    most = term.max(axis=1)
    most = np.where(np.isfinite(most), most, 0.0)
    value = most + np.log(np.exp(term - most[:, None]).sum(axis=1))
    # Lines that are highest on one side of 0 have shares and tilts as small as the value; what is
    # left belongs to the line that is highest at 0, so that no small difference is taken.
    right = lo >= 0
    near, beyond = np.where(right, lo, -hi), np.where(right, hi, -lo)
    share = _log_difference(log_ndtr(-near), log_ndtr(-beyond))
    tilt = _log_difference(-near * near / 2 - LOG_SQRT_2PI, -beyond * beyond / 2 - LOG_SQRT_2PI)
    rows, first = np.arange(len(a)), (top & (lo <= 0) & (hi >= 0)).argmax(axis=1)
    side = top & np.isfinite(value)[:, None]
    side[rows, first] = False
    share = np.where(side, np.exp(share - value[:, None]), 0.0)
    tilt = np.where(side, np.exp(tilt - value[:, None]), 0.0)
    tilt = np.where(right, tilt, -tilt)
    share[rows, first] = -share.sum(axis=1)
    tilt[rows, first] = -tilt.sum(axis=1)
    return value, share, tilt


def _log_difference(larger: Floats, smaller: Floats) -> Floats:
    """log(e^larger - e^smaller)."""
    found: Floats = larger + np.log(-np.expm1(smaller - larger))
    return found
