"""From what came of each program to pass@k, eff@k and speed-ups, with intervals over problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sharpen.code.metrics import best_at_k, bootstrap, eff_at_k, pass_at_k, summarize
from sharpen.core.errors import ConfigError

__all__ = ["label", "metrics_of"]


def label(name: str, k: int, clock: str) -> str:
    """How a metric is called; only times of the wall clock compare with published ones."""
    return f"{name}@{k}" if name == "pass" or clock == "wall" else f"{name}@{k}({clock})"


def metrics_of(found: Mapping[str, Any], ks: tuple[int, ...], clock: str) -> dict[str, Any]:
    """Metrics by name, each with ``value``, ``low`` and ``high`` (95 %).

    Args:
        found: by problem, ``passed`` of its programs and, where they were timed, ``efficiency``,
            ``times`` by level and ``slow``, the slow solution's by level.
        ks: those beyond the number of samples of a problem are left out.
        clock: of the times.

    Raises:
        ConfigError: none of them is left.
    """
    problems = list(found.values())
    fewest = min(len(one["passed"]) for one in problems)
    kept = [k for k in sorted(set(ks)) if k <= fewest]
    if not kept:
        raise ConfigError(
            f"k={', '.join(map(str, ks))} needs more samples than the {fewest} of a problem: give"
            f" --k up to {fewest}."
        )
    metrics: dict[str, Any] = {"solved": _estimate([float(any(p["passed"])) for p in problems])}
    for k in kept:
        metrics[label("pass", k, clock)] = _estimate(
            [pass_at_k(len(p["passed"]), sum(p["passed"]), k) for p in problems]
        )
    timed = [p for p in problems if "efficiency" in p]
    for k in kept if timed else ():
        values = [eff_at_k(p["efficiency"], k) for p in timed]
        metrics[label("eff", k, clock)] = _estimate(values)
    compared = [p for p in timed if p.get("slow")]
    for k in kept if compared else ():
        old = [p["slow"][-1] for p in compared]
        new = [best_at_k(_tops(p), k) for p in compared]
        metrics[label("speedup", k, clock)] = _speedups(old, new)
    return metrics


def _tops(problem: Mapping[str, Any]) -> list[float | None]:
    """[programs] times on the largest inputs; None of those that did not get there."""
    levels = len(problem["slow"])
    return [
        times[-1] if passed and len(times) == levels else None
        for passed, times in zip(problem["passed"], problem["times"], strict=True)
    ]


def _estimate(values: list[float]) -> dict[str, float]:
    found = bootstrap(values)
    return {"value": found.value, "low": found.low, "high": found.high}


def _speedups(old: list[float], new: list[float]) -> dict[str, Any]:
    """PIE's summary; a program that was stopped or is wrong changes nothing."""
    summary = summarize(old, new)
    gain = np.log(np.maximum(1.0, np.array(old) / np.array(new)))
    found = bootstrap(gain, lambda x: float(np.exp(x.mean())))
    return {
        "value": summary.geometric_mean,
        "low": found.low,
        "high": found.high,
        "mean": summary.mean,
        "median": summary.median,
        "optimized": summary.optimized,
        "shares": {str(k): v for k, v in summary.shares.items()},
        "programs": summary.programs,
    }
