"""Times of which some are only known to be longer than a limit.

Kaplan and Meier, *Nonparametric Estimation from Incomplete Observations*, 1958. A run that was
stopped is not left out: the restricted mean counts it as the limit, and the median comes from the
estimated chance of still running.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import DataError

__all__ = ["kaplan_meier_median", "restricted_mean", "survival"]


def _pair(
    times: Sequence[float], stopped: Sequence[bool]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    t, late = np.asarray(times, np.float64), np.asarray(stopped, bool)
    if t.shape != late.shape or not t.size or not (np.isfinite(t) & (t >= 0)).all():
        raise DataError("times must be finite numbers from 0, each with whether it was stopped.")
    return t, late


def restricted_mean(times: Sequence[float], stopped: Sequence[bool], limit: float) -> float:
    """Mean of ``min(t, limit)``.

    Args:
        times: of the runs; of those that were stopped, when.
        stopped: whether each was.
        limit: at most the least time at which one was stopped.

    Raises:
        DataError: times are no times, or one was stopped before the limit.
    """
    t, late = _pair(times, stopped)
    if (late & (t < limit)).any():
        raise DataError(f"a run was stopped before the limit of {limit}.")
    return float(np.minimum(t, limit).mean())


def survival(
    times: Sequence[float], stopped: Sequence[bool]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times at which a run ended, in order, and the chance of still running after each.

    Raises:
        DataError: times are no times.
    """
    t, late = _pair(times, stopped)
    ends = np.unique(t[~late])
    running = np.array([(t >= end).sum() for end in ends], np.float64)
    ended = np.array([((t == end) & ~late).sum() for end in ends], np.float64)
    chance = np.cumprod(1.0 - ended / np.maximum(running, 1.0), dtype=np.float64)
    return ends, chance


def kaplan_meier_median(times: Sequence[float], stopped: Sequence[bool]) -> float:
    """The first time by which at least half have ended; infinity where more were stopped.

    Raises:
        DataError: times are no times.
    """
    ends, chance = survival(times, stopped)
    reached = np.flatnonzero(chance <= 0.5 + 1e-12)
    return float(ends[reached[0]]) if len(reached) else float("inf")
