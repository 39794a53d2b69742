"""How efficient a right program is, from its times on inputs of growing size.

Qiu et al., *How Efficient is LLM-Generated Code?*, ICLR 2025 (arXiv 2406.06647). With the slowest
test of each level, ``t`` of the program and ``t_ref`` of the expert's, and the limit ``T``, which
is ``alpha`` times the greatest ``t_ref`` of the levels that count::

    f_level = max(0, T - t) / (T - t_ref)            0 from the first level that ran out of time on
    e       = sum of h_level f_level / sum of h_level

Times are right-censored at T: a program that was stopped is only known to take longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError

__all__ = ["HARDNESS", "hodges_lehmann", "level_efficiency", "time_limit"]

HARDNESS = (0.0, 3.0, 3.0, 4.0)
"""Weights of the levels in the paper; the first only tells whether a program is right."""


def hodges_lehmann(times: npt.ArrayLike) -> float:
    """The median of the means of all pairs, each value with itself included.

    Raises:
        DataError: there are none, or one is NaN.
    """
    x = np.asarray(times, np.float64).ravel()
    if not len(x) or np.isnan(x).any():
        raise DataError("the times must be numbers, at least one.")
    i, j = np.triu_indices(len(x))
    return float(np.median((x[i] + x[j]) / 2))


def time_limit(
    reference: Sequence[float], hardness: Sequence[float] = HARDNESS, alpha: float = 2.0
) -> float:
    """T: ``alpha`` times the reference's greatest time on a level that counts.

    Args:
        reference: [levels] its slowest test of each.
        hardness: [levels] weights.
        alpha: the factor.

    Raises:
        ConfigError: lengths differ, a weight is negative, none counts, or ``alpha`` is not above 1.
        DataError: a time is not a positive number.
    """
    t, h = np.asarray(reference, np.float64), np.asarray(hardness, np.float64)
    if t.shape != h.shape or not (h >= 0).all() or not (h > 0).any() or not alpha > 1:
        raise ConfigError(
            f"{len(t)} times of the reference, {len(h)} weights of levels, of which one must be"
            f" above 0 and none below, and alpha={alpha} above 1, do not fit."
        )
    if not (np.isfinite(t).all() and (t[h > 0] > 0).all()):
        raise DataError(f"times of the reference must be positive numbers, got {t.tolist()}.")
    return float(alpha * t[h > 0].max())


def level_efficiency(
    times: Sequence[float | None],
    reference: Sequence[float],
    *,
    hardness: Sequence[float] = HARDNESS,
    alpha: float = 2.0,
) -> float:
    """Efficiency of a program that is right; above 1 where it is faster than the reference.

    Args:
        times: [levels] its slowest test of each; None where it ran out of time or memory, and at
            all later levels.
        reference: [levels] the reference's.
        hardness: [levels] weights.
        alpha: T is so many times the reference's greatest time.

    Raises:
        ConfigError, DataError: as of :func:`time_limit`.
    """
    limit = time_limit(reference, hardness, alpha)
    if len(times) != len(reference):
        raise ConfigError(f"{len(times)} times do not fit {len(reference)} levels.")
    total = 0.0
    for t, t_ref, weight in zip(times, reference, hardness, strict=True):
        if t is None:
            break
        if not t >= 0:
            raise DataError(f"a time of {t} is no time.")
        if weight:
            total += weight * max(0.0, limit - t) / (limit - t_ref)
    return total / sum(hardness)
