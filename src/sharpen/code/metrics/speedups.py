"""How much faster: %Opt, speed-up and best@k of edits, as PIE judges them.

Shypula et al., *Learning Performance-Improving Code Edits*, ICLR 2024 (arXiv 2302.07867). A wrong
edit takes for ever, so it changes nothing: ``speed-up = max(1, old / new)``. ``%Opt`` is the share
with a speed-up of at least 1.1. The mean is what outliers make of it; the geometric mean and the
median stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError

__all__ = ["THRESHOLDS", "Speedups", "best_at_k", "speedup", "summarize"]

THRESHOLDS = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Speed-ups whose shares are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedups:
    """A summary over programs."""

    programs: int
    correct: float
    """Share of programs with a right edit."""

    optimized: float
    """%Opt: share of at least 1.1."""

    mean: float
    geometric_mean: float
    median: float
    shares: dict[float, float]
    """By threshold, the share that reaches it."""


def best_at_k(new: Sequence[float | None], k: int) -> float:
    """The least time among the first k edits; infinity where all of them are wrong.

    Args:
        new: times of the edits in the order of drawing, None of a wrong one.
        k: how many count; fewer are taken as they are.

    Raises:
        ConfigError: k is below 1.
        DataError: a time is not positive.
    """
    if k < 1:
        raise ConfigError(f"best@k needs k={k} of at least 1.")
    some = [t for t in new[:k] if t is not None]
    if any(not t > 0 for t in some):
        raise DataError(f"times must be positive numbers, got {some}.")
    return min(some, default=float("inf"))


def speedup(old: npt.ArrayLike, new: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """[programs] ``max(1, old / new)``.

    Args:
        old: [programs] times before; they are finite.
        new: [programs] times after; infinity of a wrong edit.

    Raises:
        DataError: shapes differ, or a time is not positive.
    """
    a, b = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if a.shape != b.shape:
        raise DataError(f"{a.size} times before and {b.size} after do not fit.")
    if not (np.isfinite(a) & (a > 0)).all() or not (b > 0).all():
        raise DataError("times must be positive numbers; only those of wrong edits are infinite.")
    return np.maximum(1.0, a / b)


def summarize(old: npt.ArrayLike, new: npt.ArrayLike) -> Speedups:
    """The summary of some edits; arguments as of :func:`speedup`.

    Raises:
        DataError: as there, or there are none.
    """
    found = speedup(old, new)
    if not found.size:
        raise DataError("there are no programs.")
    return Speedups(
        programs=found.size,
        correct=float(np.isfinite(np.asarray(new, np.float64)).mean()),
        optimized=float((found >= THRESHOLDS[0]).mean()),
        mean=float(found.mean()),
        geometric_mean=float(np.exp(np.log(found).mean())),
        median=float(np.median(found)),
        shares={threshold: float((found >= threshold).mean()) for threshold in THRESHOLDS},
    )
