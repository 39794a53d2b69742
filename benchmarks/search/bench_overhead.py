"""What a suggestion takes: `gp` beside Optuna's GP sampler, Ax and a BoTorch loop; TPE by Optuna's.

Models: each method plays Hartmann 6 for 100 evaluations, with equal seeds and one thread; methods
alternate within a seed and begin with another one at each. The seconds are those of the processor
that passed between one evaluation and the next, so the model, the search for the next trial and
what the package writes down are in them, while waiting is not. A run's number is the mean over its
suggestions, and a ratio the median over seeds.

TPE: proposals of a method that knows 1,000 trials, ours and Optuna's in turn.

What is tested: `gp` takes at most half of the time of Optuna's GP sampler and a fifth of Ax's, and
`tpe` at most a quarter of that of Optuna's. Peers run in an interpreter of their own, named by
BENCH_PEERS_PYTHON; without it only `gp` and TPE are measured.

    BENCH_PEERS_PYTHON=/path/to/python python -m benchmarks.search.bench_overhead
        [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import os
import statistics
import sys
import warnings
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna
import torch
from benchmarks.common import arguments, draw_bars, ratio, save, summarize
from benchmarks.search.bench_tpe import cost
from benchmarks.search.players import Own, Peer, can_play

from sharpen.core.problem import TrialContext
from sharpen.problems import synthetic

TASK, EVALUATIONS, SEEDS, KNOWN = "hartmann6", 100, 3, 1000
PEERS = {"optuna-gp": 2.0, "ax": 5.0, "botorch-loop": 1.0}
"""Other packages' methods, and how many times the time of `gp` each should take at least."""

TPE_RATIO = 4.0
_STEP = 10  # evaluations a point of the plot stands for


def play(method: str, seed: int, evaluations: int) -> list[float]:
    """The processor's seconds for each suggestion of one run."""
    problem = synthetic(TASK)
    player = (Peer if method in PEERS else Own)(method, problem, seed, evaluations)
    seconds = []
    for number in range(evaluations):
        config, spent = player.ask()
        seconds.append(spent)
        player.tell(problem.evaluate(config, TrialContext(number=number, seed=seed)))
    return seconds


def measure(methods: list[str], seeds: int, evaluations: int) -> dict[str, Any]:
    """Seconds of all runs, and how many times the time of `gp` others take."""
    samples: dict[str, list[list[float]]] = {method: [] for method in methods}
    for seed in range(seeds):
        turn = seed % len(methods)
        for method in methods[turn:] + methods[:turn]:
            samples[method].append(play(method, seed, evaluations))
            print(f"{seed} {method:13} {1e3 * statistics.mean(samples[method][-1]):8.2f} ms")
    means = {method: [statistics.mean(run) for run in runs] for method, runs in samples.items()}
    return {
        "seconds": {method: summarize(values) for method, values in means.items()},
        "ratios": {m: ratio(values, means["gp"]) for m, values in means.items() if m != "gp"},
        "samples": samples,
    }


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Milliseconds a suggestion over the trials known, and TPE's beside them."""
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    for method, runs in results["models"]["samples"].items():
        by_trial = [1e3 * statistics.median(values) for values in zip(*runs, strict=True)]
        steps = range(0, len(by_trial), _STEP)
        means = [statistics.mean(by_trial[k : k + _STEP]) for k in steps]
        left.plot(steps, means, "-" if method == "gp" else "--", label=method)
    left.set_yscale("log")
    left.set_xlabel(f"trials known, {TASK}")
    left.set_ylabel("CPU milliseconds a suggestion")
    left.legend(frameon=False, fontsize=8)
    ratios = results["models"]["ratios"]
    left.set_title(", ".join(f"{m} / gp: {r:.1f}" for m, r in ratios.items()), fontsize=9)
    seconds = results["tpe"]["seconds"]
    series = {name: [1e3 * seconds[name]["median"]] for name in ("ours", "optuna")}
    draw_bars(right, y_label="CPU milliseconds a suggestion", groups=["TPE"], series=series)
    right.set_title(f"{KNOWN:,} trials known: {results['tpe']['ratio']:.1f} times", fontsize=9)


def main() -> int:
    """Measure, write, and say whether the bars are kept."""
    args = arguments(__doc__, "search_overhead")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")  # optuna's notes on experimental options
    torch.set_num_threads(1)
    methods = ["gp", *(m for m in PEERS if can_play(m))]
    if args.quick:
        methods = [m for m in methods if m in ("gp", "optuna-gp")]
    elif len(methods) == 1:
        print("BENCH_PEERS_PYTHON is not set: only our own methods run.", file=sys.stderr)
    seeds, evaluations = (1, 25) if args.quick else (SEEDS, EVALUATIONS)
    play("gp", seeds, 15)  # the first suggestions of a process load what the others use
    results = {
        "models": measure(methods, seeds, evaluations),
        "tpe": cost(KNOWN, 10 if args.quick else 200),
    }
    ratios = results["models"]["ratios"]
    for peer, times in ratios.items():
        print(f"{peer} / gp: {times:.1f}")
    save(
        args,
        results,
        config={"task": TASK, "evaluations": evaluations, "seeds": seeds, "known": KNOWN},
        plot=None if args.quick else lambda figure: draw(figure, results),
    )
    if args.quick:
        return 0 if results["tpe"]["ratio"] > 2 and all(r > 1 for r in ratios.values()) else 1
    is_kept = all(times >= PEERS[peer] for peer, times in ratios.items())
    is_kept &= results["tpe"]["ratio"] >= TPE_RATIO
    print("bars kept" if is_kept else "bars missed")
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
