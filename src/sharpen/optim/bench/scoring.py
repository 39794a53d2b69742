"""Scores of training algorithms from their times to a target.

Dahl et al., Benchmarking Neural Network Training Algorithms (AlgoPerf), 2023 (arXiv 2306.07179).
With t(s, w) the time of submission s on workload w, infinite where it missed the target::

    r(s, w)  = t(s, w) / min over s of t(s, w)
    rho_s(x) = share of the workloads with r(s, w) <= x              the performance profile
    B_s      = 1 / (R - 1) integral from 1 to R of rho_s(x) dx       the score; R = 4

rho_s is a step function, so the integral is exactly the mean over w of max(0, (R - r) / (R - 1)).
Published scores are a trapezoid over 100 points, up to 1/99 away (``integral="trapezoid100"``).

A workload's time is the median over studies of the least time of a study's trials (external
tuning), or the median over runs (self-tuning). A workload that everybody missed counts 0 for all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from sharpen.core.errors import DataError

__all__ = [
    "Times",
    "geometric_speedup",
    "hold_out",
    "performance_profile",
    "ratios",
    "score",
    "workload_time",
]

Times = Mapping[str, Mapping[str, float]]
"""Seconds by submission and workload; infinite where the target was missed."""


def workload_time(studies: Sequence[Sequence[float]]) -> float:
    """A submission's time on a workload: the median over studies of the best trial.

    Args:
        studies: times of each study's trials, infinite for a miss; a study of one trial each for
            self-tuning submissions.

    Examples:
        >>> workload_time([[30.0, 20.0], [math.inf, 50.0], [math.inf, math.inf]])
        50.0
    """
    if not studies or not all(studies):
        raise DataError("a workload needs at least one study, and each study a trial.")
    return statistics.median(min(trials) for trials in studies)


def ratios(times: Times) -> dict[str, dict[str, float]]:
    """r(s, w): how many times as long as the fastest; infinite where missed.

    Raises:
        DataError: submissions have different workloads, or a time is NaN or below 0.
    """
    if not times:
        raise DataError("there is no submission to score.")
    workloads = list(next(iter(times.values())))
    for name, found in times.items():
        if set(found) != set(workloads):
            different = sorted(set(found) ^ set(workloads))
            raise DataError(f"the submission {name} has other workloads: {', '.join(different)}.")
        for workload, seconds in found.items():
            if math.isnan(seconds) or seconds <= 0:
                raise DataError(f"{name} on {workload}: {seconds} is no time; a miss is inf.")
    best = {w: min(found[w] for found in times.values()) for w in workloads}
    return {
        name: {w: found[w] / best[w] if best[w] < math.inf else math.inf for w in workloads}
        for name, found in times.items()
    }


def performance_profile(times: Times, points: Sequence[float]) -> dict[str, list[float]]:
    """rho_s at each of ``points``.

    Examples:
        >>> times = {"a": {"x": 1.0, "y": 4.0}, "b": {"x": 3.0, "y": 2.0}}
        >>> performance_profile(times, [1.0, 2.0, 3.0])
        {'a': [0.5, 1.0, 1.0], 'b': [0.5, 0.5, 1.0]}
    """
    return {
        name: [sum(r <= x for r in found.values()) / len(found) for x in points]
        for name, found in ratios(times).items()
    }


def score(
    times: Times,
    *,
    r_max: float = 4.0,
    integral: Literal["exact", "trapezoid100"] = "exact",
) -> dict[str, float]:
    """B_s of each submission, from 0 to 1.

    Args:
        times: of all submissions that are compared; a score depends on them all.
        r_max: R, above 1.
        integral: ``exact``, or as published scores have it.

    Examples:
        >>> score({"a": {"x": 1.0, "y": 4.0}, "b": {"x": 3.0, "y": 2.0}})
        {'a': 0.8333333333333333, 'b': 0.6666666666666666}
    """
    if not r_max > 1:
        raise DataError(f"r_max={r_max} must be above 1.")
    if integral == "trapezoid100":
        points = np.linspace(1, r_max, 100)
        profiles = performance_profile(times, points.tolist())
        return {
            name: float(np.trapezoid(values, points)) / (r_max - 1)
            for name, values in profiles.items()
        }
    return {
        name: sum(max(0.0, (r_max - r) / (r_max - 1)) for r in found.values()) / len(found)
        for name, found in ratios(times).items()
    }


def geometric_speedup(times: Times, reference: str) -> dict[str, float]:
    """How many times faster than a reference, as the geometric mean over workloads both reached.

    Raises:
        DataError: the reference is not among the submissions.
    """
    if reference not in times:
        raise DataError(f"there is no submission {reference!r}; have {', '.join(times)}.")
    base = times[reference]
    out = {}
    for name, found in times.items():
        both = [w for w in base if base[w] < math.inf and found[w] < math.inf]
        logs = [math.log(base[w] / found[w]) for w in both]
        out[name] = math.exp(sum(logs) / len(logs)) if logs else math.nan
    return out


def hold_out(
    times: Times, variants: Times, base_of: Mapping[str, str], *, slowest: float = 4.0
) -> dict[str, dict[str, float]]:
    """Times in which a workload counts as missed whose variant was missed.

    Args:
        times: on the base workloads.
        variants: on the variants that were drawn.
        base_of: the base workload of each variant.
        slowest: a variant also counts as missed at more than so many times its best time.
    """
    out = {name: dict(found) for name, found in times.items()}
    for name, found in ratios(variants).items():
        for variant, ratio in found.items():
            if ratio > slowest:
                out[name][base_of[variant]] = math.inf
    return out
