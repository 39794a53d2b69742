"""What every benchmark shares: alternating runs, the machine's description, JSON and plots.

A benchmark compares contenders in one process, alternating A B A B, so that whatever else the
machine does strikes both; it reports medians, spread and ratios, never bare seconds across runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "OURS",
    "PEER",
    "SCHEMA_VERSION",
    "arguments",
    "draw_bars",
    "interleave",
    "machine",
    "ratio",
    "save",
    "summarize",
]

SCHEMA_VERSION = 1
RESULTS = Path(__file__).resolve().parent / "results"
OURS, PEER = "#1f5fa8", "#e0a030"
_PACKAGES = ("torch", "transformers", "numpy", "peft", "optuna", "compressed-tensors", "scipy")


def arguments(
    description: str | None, name: str, *, only: Sequence[str] = ()
) -> argparse.Namespace:
    """The options every benchmark has: ``--json``, ``--plot`` and ``--quick``.

    ``only`` names parts that can be measured alone, by ``--only``.

    Results go to ``benchmarks/results/<name>.json`` and ``.png``; with ``--quick``, which is a
    check and no measurement, only where ``--json`` and ``--plot`` say.
    """
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--json", type=Path, help="where the result goes")
    options.add_argument("--plot", type=Path, help="where the plot goes")
    options.add_argument("--quick", action="store_true", help="a check of under a minute")
    if only:
        options.add_argument("--only", choices=only, help="measure this part alone")
    args = options.parse_args()
    args.name = name
    if not args.quick:
        args.json = args.json or RESULTS / f"{name}.json"
        args.plot = args.plot or RESULTS / f"{name}.png"
    return args


def machine() -> dict[str, Any]:
    """Processor, memory, load, threads and versions."""
    threads: int | None = None
    if "torch" in sys.modules:
        threads = sys.modules["torch"].get_num_threads()
    environment = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": os.getloadavg(),
        "torch_threads": threads,
        "environment": {name: os.environ[name] for name in environment if name in os.environ},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def interleave(
    contenders: Mapping[str, Callable[[], Any]], *, repeats: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each contender, run in turn.

    Args:
        contenders: by name, in the order in which they alternate.
        repeats: timed rounds.
        warmup: rounds before them that are not timed.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(warmup + repeats):
        for name, work in contenders.items():
            begin = time.perf_counter()
            work()
            if round_number >= warmup:
                samples[name].append(time.perf_counter() - begin)
    return samples


def summarize(samples: Sequence[float]) -> dict[str, float]:
    """Median, smallest, largest and the quartiles' distance."""
    quartiles = statistics.quantiles(samples, n=4) if len(samples) > 1 else [samples[0]] * 3
    return {
        "median": statistics.median(samples),
        "min": min(samples),
        "max": max(samples),
        "iqr": quartiles[2] - quartiles[0],
    }


def ratio(peer: Sequence[float], ours: Sequence[float]) -> float:
    """How many times faster ours is: the median over rounds of peer / ours."""
    return statistics.median(p / o for p, o in zip(peer, ours, strict=True))


def save(
    args: argparse.Namespace,
    results: Any,
    *,
    config: Mapping[str, Any] | None = None,
    plot: Callable[[Any], None] | None = None,
) -> None:
    """Write a result with all that is needed to judge it, and its plot.

    Args:
        args: from :func:`arguments`.
        results: plain data: raw samples, summary, ratios, quality check.
        config: the settings measured.
        plot: draws on an empty matplotlib figure.
    """
    document = {
        "schema_version": SCHEMA_VERSION,
        "benchmark": args.name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "config": dict(config or {}),
        "results": results,
    }
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        temporary = args.json.with_suffix(".tmp")
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        temporary.replace(args.json)
    if args.plot is not None and plot is not None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.8), layout="constrained")
        plot(figure)
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=150)


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent
    )
    return done.stdout.strip() or None


def draw_bars(
    axes: Any, *, y_label: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]
) -> None:
    """Grouped bars, ours first; readable in grey by hatching.

    Args:
        axes: of matplotlib.
        y_label: with its unit.
        groups: labels under the bars.
        series: one value a group for each contender, ours first.
    """
    colours = [OURS, PEER, "#888888", "#55a868"]
    hatches = ["", "//", "..", "xx"]
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        places = [g + (i - (len(series) - 1) / 2) * width for g in range(len(groups))]
        bars = axes.bar(
            places, values, width, label=name, color=colours[i], hatch=hatches[i], edgecolor="white"
        )
        axes.bar_label(bars, fmt="%.3g", fontsize=8)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
