"""Whole tasks improved by search, without a language model.

    BENCH_TEXT_PYTHON=/path/to/python BENCH_CODE_PYTHON=/path/to/python \
        python -m benchmarks.text.bench_tasks

- ``numeric``: programs of numbers and choices with a known optimum, beside TPE and random search;
- ``scripted``: OptoPrime of trace-opt and ours with the same script in place of a language model:
  the losses must be the same, and the seconds of a step are compared;
- ``tuning``: hyper-parameters of a model on a real table, beside TPE, random search and Optuna;
- ``policies``: code with numbers that balances a pole, drives a car up a hill, sinks ships;
- ``repair``: programs of HumanEval with one change, mended from the examples in their text, checked
  on hidden tests; beside the same mutations in random order.

``BENCH_TASKS_KEEP=scripted,repair`` takes these parts from the results there are, and the results
say so: for a change that these do not depend on. What is not timed runs in a process a core.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from benchmarks.common import OURS, PEER, arguments, save
from benchmarks.text.beside import ask, has_peers
from benchmarks.text.scripted_search import PROGRAMS, run
from benchmarks.text.task_numeric import numeric
from benchmarks.text.task_policies import POLICIES, policies
from benchmarks.text.task_repair import repair
from benchmarks.text.task_tuning import tuning

import sharpen.text as st
from sharpen.code.problems.humaneval import find_humaneval

SEEDS = 20
REPAIR_SEEDS = 3
REPAIR_EVALUATIONS = 200
TUNING_EVALUATIONS = 60
SCRIPTED_STEPS = 100


def scripted(seeds: range, steps: int, *, with_peer: bool) -> dict[str, Any]:
    """Losses and seconds of a step, by program."""
    ours = SimpleNamespace(node=st.Parameter, optimizer=st.OptoPrime)
    found: dict[str, Any] = {}
    for program in PROGRAMS:
        constants = [
            [float(c) for c in np.random.default_rng([seed, 3]).uniform(0.5, 3, size=3)]
            for seed in seeds
        ]
        asked: list[Any] = [[program, constants[seed], seed, steps] for seed in seeds]
        theirs = ask("scripted_search.py", {"runs": asked}) if with_peer else []
        own = [run(ours, *one) for one in asked]
        row: dict[str, Any] = {
            "loss": [min(one["losses"]) for one in own],
            "seconds_a_step": statistics.median(one["seconds"] / steps for one in own),
        }
        if theirs:
            row["trace-opt"] = {
                "seconds_a_step": statistics.median(one["seconds"] / steps for one in theirs),
                "same_losses": sum(
                    a["losses"] == b["losses"] for a, b in zip(own, theirs, strict=True)
                ),
            }
            row["ratio"] = statistics.median(
                b["seconds"] / a["seconds"] for a, b in zip(own, theirs, strict=True)
            )
        found[program] = row
    return found


def main() -> int:
    args = arguments(__doc__, "text_tasks")
    seeds = range(1 if args.quick else SEEDS)
    share = 0.05 if args.quick else 1.0
    tuned = 6 if args.quick else TUNING_EVALUATIONS
    fresh = 3 if args.quick else 100
    keep = [part for part in os.environ.get("BENCH_TASKS_KEEP", "").split(",") if part]
    earlier = json.loads(args.json.read_text()) if keep else {}
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        played = [pool.submit(policies, seeds, share, fresh, [name]) for name in POLICIES]
        tuning_run = pool.submit(tuning, seeds, tuned)
        numeric_run = pool.submit(numeric, seeds, share)
        results: dict[str, Any] = {
            "numeric": numeric_run.result(),
            "tuning": tuning_run.result(),
            "policies": {name: row for one in played for name, row in one.result().items()},
        }
    results |= {part: earlier["results"][part] for part in keep}
    if "scripted" not in keep:
        steps = 10 if args.quick else SCRIPTED_STEPS
        results["scripted"] = scripted(seeds, steps, with_peer=has_peers() and not args.quick)
    if "repair" not in keep and find_humaneval() is not None:
        results["repair"] = (
            repair([0], 20, limit=2)
            if args.quick
            else repair(range(REPAIR_SEEDS), REPAIR_EVALUATIONS)
        )

    def plot(figure: Any) -> None:
        axes = figure.subplots(2, 2).ravel()
        _plot_numeric(axes[0], results["numeric"])
        _plot_tuning(axes[1], results["tuning"])
        _plot_policies(axes[2], results["policies"])
        if "repair" in results:
            _plot_repair(axes[3], results["repair"])

    config: dict[str, Any] = {
        "seeds": len(seeds),
        "repair_seeds": REPAIR_SEEDS,
        "repair_evaluations": REPAIR_EVALUATIONS,
    }
    if keep:
        config["kept"] = {part: {key: earlier[key] for key in ("date", "commit")} for part in keep}
    save(args, results, config=config, plot=plot)
    return 0


def _plot_numeric(axes: Any, numeric: dict[str, Any]) -> None:
    ways = list(next(iter(numeric.values()))["ways"])
    colours = dict(zip(ways, (OURS, "#7a7a7a", PEER), strict=True))
    for k, way in enumerate(ways):
        losses = [np.maximum(row["ways"][way]["loss"], 1e-16) for row in numeric.values()]
        places = np.arange(len(losses)) + 0.25 * (k - 1)
        axes.plot(places, [np.median(one) for one in losses], "o", color=colours[way], label=way)
        for place, one in zip(places, losses, strict=True):
            axes.plot([place] * 2, [min(one), max(one)], color=colours[way])
    axes.set(yscale="log", ylabel="loss left: median, range", xticks=range(len(numeric)))
    axes.set_xticklabels(list(numeric))
    axes.legend(frameon=False, fontsize=7)


def _plot_tuning(axes: Any, tuning: dict[str, Any]) -> None:
    styles = {
        "search": (OURS, "-"),
        "tpe": (OURS, "--"),
        "random": (OURS, ":"),
        "optuna tpe": (PEER, "--"),
        "optuna random": (PEER, ":"),
    }
    for way, curves in tuning["curves"].items():
        colour, line = styles[way]
        regret = tuning["best"] - np.mean(curves, axis=0)
        axes.plot(np.arange(1, len(regret) + 1), regret, line, color=colour, label=way)
    axes.set(yscale="log", xlabel="evaluations", ylabel="mean R² behind the best")
    axes.legend(frameon=False, fontsize=7)


def _plot_policies(axes: Any, policies: dict[str, Any]) -> None:
    for k, row in enumerate(policies.values()):
        span = row["mark"] - row["start"]
        values = [(run["best"] - row["start"]) / span for run in row["runs"]]
        axes.plot([k] * len(values), values, "o", color=OURS, alpha=0.4)
    axes.axhline(1.0, color=PEER, label="mark")
    axes.set(ylabel="of the way from start to mark", xticks=range(len(policies)))
    axes.set_xticklabels(list(policies))
    axes.legend(frameon=False, fontsize=7)


def _plot_repair(axes: Any, repair: dict[str, Any]) -> None:
    for way, colour in (("search", OURS), ("random order", PEER)):
        own = [run for run in repair["runs"] if run["way"] == way]
        spent = sorted(run["evaluations"] for run in own if run["outcome"] == "repaired")
        share = np.arange(1, len(spent) + 1) / len(own)
        axes.step(spent, share, where="post", color=colour, label=way)
    axes.set(xscale="log", xlabel="evaluations", ylabel="share repaired")
    axes.legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    sys.exit(main())
