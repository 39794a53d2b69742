"""Time and memory of a run, from samples of its memory: ET, MU, TMU, and both ways to compare.

Huang et al., *EffiBench*, 2024 (arXiv 2402.02037), and *Effi-Code*, 2024 (arXiv 2410.10209). With
samples ``(t_i, M_i)``::

    ET  = t_last - t_first                                   seconds
    MU  = max M_i                                            MiB
    TMU = sum of (M_i + M_(i-1)) / 2 * (t_i - t_(i-1))       MiB s

NET, NMU and NTMU compare with the canonical solutions. The two papers' scripts do it differently:
``mean_of_ratios`` over the tasks (Effi-Code), ``ratio_of_sums`` (EffiBench).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError

__all__ = ["Normalize", "Overhead", "normalized", "overhead"]

Normalize = Literal["mean_of_ratios", "ratio_of_sums"]


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a run took."""

    et: float
    """Seconds."""

    mu: float
    """MiB at most."""

    tmu: float
    """MiB times seconds."""


def overhead(samples: npt.ArrayLike, *, peak: float | None = None) -> Overhead:
    """ET, MU and TMU of a run.

    Args:
        samples: [n, 2] seconds, in order, and MiB.
        peak: MiB that the kernel saw; samples miss what comes and goes between them.

    Raises:
        DataError: fewer than two samples, times that go backwards, or numbers that are not finite.
    """
    x = np.asarray(samples, np.float64)
    if x.ndim != 2 or x.shape[1] != 2 or len(x) < 2:
        raise DataError(f"samples must be [n, 2] of at least two, got {list(x.shape)}.")
    t, m = x.T
    if not np.isfinite(x).all() or (np.diff(t) < 0).any() or (m < 0).any():
        raise DataError("samples must be finite, in order of time, and of memory from 0.")
    mu = float(m.max()) if peak is None else max(float(m.max()), peak)
    return Overhead(float(t[-1] - t[0]), mu, float(((m[1:] + m[:-1]) / 2) @ np.diff(t)))


def normalized(
    runs: Sequence[Overhead],
    canonical: Sequence[Overhead],
    normalize: Normalize = "mean_of_ratios",
) -> Overhead:
    """NET, NMU and NTMU: 1 is as the canonical solutions, less is better.

    Args:
        runs: of tasks that were solved.
        canonical: of the same tasks.
        normalize: how tasks are joined.

    Raises:
        ConfigError: another way.
        DataError: lengths differ, there are none, or a canonical value is 0.
    """
    if normalize not in ("mean_of_ratios", "ratio_of_sums"):
        raise ConfigError(f"normalize='{normalize}' must be 'mean_of_ratios' or 'ratio_of_sums'.")
    ours, theirs = (
        np.array([[one.et, one.mu, one.tmu] for one in some]) for some in (runs, canonical)
    )
    if ours.shape != theirs.shape or not len(ours):
        raise DataError(f"{len(runs)} runs do not fit {len(canonical)} canonical ones.")
    if normalize == "ratio_of_sums":
        ours, theirs = ours.sum(axis=0, keepdims=True), theirs.sum(axis=0, keepdims=True)
    if not (theirs > 0).all():
        raise DataError("a canonical time or memory is 0: make its inputs larger.")
    return Overhead(*(ours / theirs).mean(axis=0).tolist())
