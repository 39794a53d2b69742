"""What a comparison of training algorithms says: scores, times, profiles."""

from __future__ import annotations

import math
from typing import Any

from sharpen.core.report import Chart, Section, Series, Table
from sharpen.optim.bench.scoring import Times, geometric_speedup, performance_profile, score

__all__ = ["document", "markdown", "sections"]

_POINTS = [1 + i / 20 for i in range(61)]


def document(times: Times, *, clock: str, reference: str | None = None) -> dict[str, Any]:
    """Plain data: ``scores``, ``trapezoid100``, ``times`` (null for a miss), ``profile``.

    Args:
        times: by submission and workload.
        clock: what they count.
        reference: submission that ``speedup`` is to.
    """
    out: dict[str, Any] = {
        "format": 1,
        "clock": clock,
        "scores": score(times),
        "trapezoid100": score(times, integral="trapezoid100"),
        "times": {
            name: {w: None if t == math.inf else t for w, t in found.items()}
            for name, found in times.items()
        },
        "profile": {"tau": _POINTS, **performance_profile(times, _POINTS)},
    }
    if reference is not None:
        out["speedup"] = {"reference": reference, **geometric_speedup(times, reference)}
    return out


def markdown(found: dict[str, Any]) -> str:
    """A table, best first."""
    workloads = list(next(iter(found["times"].values())))
    lines = [
        "| | score | " + " | ".join(workloads) + " |",
        "| --- | ---: |" + " ---: |" * len(workloads),
    ]
    for name in _best_first(found):
        times = [_cell(found["times"][name][w]) for w in workloads]
        lines.append(f"| {name} | {found['scores'][name]:.4f} | " + " | ".join(times) + " |")
    return "\n".join(lines)


def _best_first(found: dict[str, Any]) -> list[str]:
    scores: dict[str, float] = found["scores"]
    return sorted(scores, key=lambda name: -scores[name])


def _cell(time: float | None) -> str:
    return "-" if time is None else f"{time:.4g}"


def sections(found: dict[str, Any]) -> list[Section]:
    """The same as a report's sections, with the profiles drawn."""
    names = _best_first(found)
    workloads = list(next(iter(found["times"].values())))
    rows = [
        [name, found["scores"][name], *(_cell(found["times"][name][w]) for w in workloads)]
        for name in names
    ]
    profile = Chart(
        title="Share of workloads reached within tau times the best time",
        series=[Series(name, found["profile"]["tau"], found["profile"][name]) for name in names],
        x_label="tau",
        y_label="share of workloads",
    )
    return [
        Section("Scores", [Table(["", "score", *workloads], rows)]),
        Section("Performance profiles", [profile]),
    ]
