"""Regret of Bayesian optimization beside other packages, on functions of known minima.

Every method gets the same function, seed and number of evaluations, one thread, and no more than
what its package chooses by itself. Methods of one call alternate within a seed. After n evaluations
the regret is that of the best feasible configuration evaluated; with noise, of the one the method
recommends (or, where a package recommends none, of the one with the best value observed), measured
without noise. A regret below 1e-8 counts as that: the minima are known to about as much.

What is tested, after 50 and 100 evaluations: the median of log10 regret within 0.1 of the best
peer's or below; over all tasks, by the two-sided Mann-Whitney test, a win or a tie against it (no
significant loss at 0.05) on 80 % of them. They are printed as found, reproduced or not. Methods may
have run on other numbers of seeds: a verdict compares the seeds both have, and no peer is judged by
fewer than 10. What a suggestion takes: ``bench_overhead.py``.

Peers run in an interpreter of their own, named by BENCH_PEERS_PYTHON, with botorch, ax-platform,
optuna, cma and nevergrad installed; without it only our own methods run. Finished runs are kept in
a journal, and a run that is in it is not repeated, so the benchmark can be stopped and resumed;
``--summary`` measures nothing and writes what the journal holds.

    BENCH_PEERS_PYTHON=/path/to/python python -m benchmarks.search.bench_bo
        [--seeds 20] [--tasks branin ackley10 ...] [--methods gp optuna-gp ...]
        [--journal FILE] [--json OUT] [--plot OUT] [--summary] [--quick]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from benchmarks.common import OURS, PEER, RESULTS, save
from benchmarks.search.journal import alternating, play_missing
from benchmarks.search.players import Own, Peer, can_play

from sharpen.core.problem import TrialContext
from sharpen.problems import Synthetic, synthetic

FLOOR = 1e-8
CHECKPOINTS = (25, 50, 100)
PLOTTED = tuple(range(5, 101, 5))
OWN = ("gp", "tpe", "cmaes", "sobol")
OTHERS = ("optuna-gp", "optuna-tpe", "ax", "botorch-loop", "cma", "nevergrad", "random")
EVALUATIONS = 100
ENOUGH = 10  # seeds from which a peer is judged; with fewer its regrets are shown alone


def make_tasks(seed: int) -> dict[str, Synthetic]:
    """The functions by name; shifts are drawn by the seed, the same for every method."""
    return {
        "branin": synthetic("branin"),
        "hartmann6": synthetic("hartmann6"),
        "ackley10": synthetic("ackley", dimensions=10, shifted=True, seed=seed),
        "levy10": synthetic("levy", dimensions=10, shifted=True, seed=seed),
        "noisy-branin": synthetic("branin", noise=10.0),
        "noisy-hartmann6": synthetic("hartmann6", noise=0.25),
        "gramacy": synthetic("gramacy"),
        "gardner": synthetic("gardner"),
        "mixed-ackley": synthetic("mixed_ackley"),
    }


def play(task: str, method: str, seed: int, evaluations: int) -> dict[str, Any]:
    """One run: regrets at some evaluations, and the mean seconds a suggestion."""
    problem = make_tasks(seed)[task]
    run = {"method": method, "task": task, "seed": seed, "evaluations": evaluations}
    try:
        player = (Own if method in OWN else Peer)(method, problem, seed, evaluations)
    except ValueError as error:
        return {**run, "refused": str(error)}
    regrets: list[float] = []
    seconds: list[float] = []
    recommended: dict[str, float] = {}
    best, best_seen, best_config = math.inf, math.inf, None
    for number in range(evaluations):
        config, spent = player.ask()
        seconds.append(spent)
        values = problem.evaluate(config, TrialContext(number=number, seed=seed))
        player.tell(values)
        regret = problem.regret(config)
        if math.isfinite(regret) and values["value"] < best_seen:
            best_seen, best_config = values["value"], config
        best = min(best, regret)
        if problem.noise:
            best = math.inf if best_config is None else problem.regret(best_config)
        regrets.append(best)
        if number + 1 in CHECKPOINTS:
            chosen = player.recommend() if problem.noise else None
            recommended[str(number + 1)] = best if chosen is None else problem.regret(chosen)
    return {
        **run,
        "regrets": {str(n): _rounded(regrets[n - 1]) for n in PLOTTED if n <= evaluations},
        "recommended": {n: _rounded(regret) for n, regret in recommended.items()},
        "seconds": _rounded(statistics.mean(seconds)),
    }


def _rounded(value: float) -> float:
    """Four digits, which is more than a regret of one run tells; infinity as JSON can hold it."""
    return float(f"{min(value, 1e9):.4g}")


def log_regrets(runs: list[dict[str, Any]], n: int) -> list[float]:
    """Log10 regret of each run after n evaluations; nothing feasible counts as 10^3."""
    return [math.log10(min(max(r["recommended"][str(n)], FLOOR), 1e3)) for r in runs]


def summarize(runs: list[dict[str, Any]], evaluations: int) -> dict[str, Any]:
    """Medians by task, method and checkpoint, and the verdicts."""
    from scipy.stats import mannwhitneyu

    tasks: dict[str, Any] = {}
    for task in dict.fromkeys(r["task"] for r in runs):
        methods: dict[str, Any] = {}
        for method in dict.fromkeys(r["method"] for r in runs):
            mine = [r for r in runs if (r["task"], r["method"]) == (task, method)]
            mine = [r for r in mine if "refused" not in r]
            if not mine:
                continue
            methods[method] = {
                "seeds": len(mine),
                "seconds_a_suggestion": statistics.median(r["seconds"] for r in mine),
                **{
                    f"log10_regret_{n}": statistics.median(log_regrets(mine, n))
                    for n in CHECKPOINTS
                    if n <= evaluations
                },
            }
        verdicts = {}
        peers = [m for m in methods if m in OTHERS and methods[m]["seeds"] >= ENOUGH]
        for n in CHECKPOINTS:
            key = f"log10_regret_{n}"
            if n > evaluations or "gp" not in methods or not peers:
                continue
            best = min(peers, key=lambda m: methods[m][key])
            played = {
                m: {r["seed"]: r for r in runs if (r["task"], r["method"]) == (task, m)}
                for m in ("gp", best)
            }
            shared = sorted(set(played["gp"]) & set(played[best]))
            if not shared:
                continue
            ours, theirs = (
                log_regrets([played[m][seed] for seed in shared], n) for m in ("gp", best)
            )
            p = float(mannwhitneyu(ours, theirs).pvalue)
            gap = statistics.median(ours) - statistics.median(theirs)
            verdicts[str(n)] = {
                "best_peer": best,
                "seeds": len(shared),
                "gap": gap,
                "within_0.1": gap <= 0.1,
                "p_value": p,
                "win_or_tie": gap <= 0 or p >= 0.05,
            }
        tasks[task] = {"methods": methods, "verdicts": verdicts}
    return {"tasks": tasks}


def show(summary: dict[str, Any]) -> None:
    """Print the tables."""
    for task, found in summary["tasks"].items():
        print(f"\n{task}")
        for method, row in sorted(
            found["methods"].items(), key=lambda item: item[1].get("log10_regret_50", 0)
        ):
            cells = [
                f"@{n} {row[f'log10_regret_{n}']:6.2f}"
                for n in CHECKPOINTS
                if f"log10_regret_{n}" in row
            ]
            seconds = row["seconds_a_suggestion"] * 1e3
            print(f"  {method:13s} {'  '.join(cells)}  {seconds:8.1f} ms  n={row['seeds']}")
        for n, v in found["verdicts"].items():
            word = "holds" if v["within_0.1"] else "does NOT hold"
            print(f"  @{n}: {v['gap']:+.2f} to {v['best_peer']}, p={v['p_value']:.3f}: {word}")


def draw(figure: Any, runs: list[dict[str, Any]], evaluations: int) -> None:
    """Median regret of each task over the evaluations, quartiles shaded for ours."""
    tasks = list(dict.fromkeys(r["task"] for r in runs))
    columns = 3
    figure.set_size_inches(11, 3 * math.ceil(len(tasks) / columns))
    axes = figure.subplots(math.ceil(len(tasks) / columns), columns, squeeze=False)
    for i, task in enumerate(tasks):
        axis = axes[i // columns][i % columns]
        for method in dict.fromkeys(r["method"] for r in runs):
            mine = [r for r in runs if (r["task"], r["method"]) == (task, method)]
            mine = [r["regrets"] for r in mine if "refused" not in r]
            if not mine:
                continue
            by_n = [[run[n] for run in mine] for n in mine[0]]
            clipped = [sorted(min(max(v, FLOOR), 1e3) for v in row) for row in by_n]
            colour = {"gp": OURS, "optuna-gp": PEER}.get(method)
            style = "-" if method in OWN else "--"
            x = [int(n) for n in mine[0]]
            axis.plot(
                x,
                [statistics.median(row) for row in clipped],
                style,
                color=colour,
                label=method,
                linewidth=2 if method == "gp" else 1,
            )
            if method == "gp":
                low = [row[len(row) // 4] for row in clipped]
                high = [row[(3 * len(row)) // 4] for row in clipped]
                axis.fill_between(x, low, high, color=colour, alpha=0.2)
        axis.set_yscale("log")
        axis.set_title(task)
        axis.set_xlabel("evaluations")
        axis.set_ylabel("median regret")
    axes[0][0].legend(fontsize=6)


def main() -> None:
    """Run what the journal lacks, then summarize."""
    every = list(make_tasks(0))
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--tasks", nargs="+", default=every, choices=every)
    options.add_argument("--methods", nargs="+", default=[*OWN, *OTHERS], choices=[*OWN, *OTHERS])
    options.add_argument("--evaluations", type=int, default=EVALUATIONS)
    options.add_argument("--journal", type=Path, help="where finished runs are kept")
    options.add_argument("--json", type=Path)
    options.add_argument("--plot", type=Path)
    options.add_argument("--summary", action="store_true", help="only what the journal holds")
    options.add_argument("--quick", action="store_true", help="a check of under a minute")
    args = options.parse_args()
    args.name = "search_bo"
    if args.quick:
        args.seeds, args.tasks, args.evaluations = 1, ["branin"], 25
        args.methods = [
            "gp",
            "sobol",
            *(["optuna-gp"] if can_play("optuna-gp") else []),
        ]
    else:
        args.journal = args.journal or RESULTS / "search_bo_runs.jsonl"
        args.json = args.json or RESULTS / "search_bo.json"
        args.plot = args.plot or RESULTS / "search_bo.png"
    if not can_play("optuna-gp") and not args.summary:
        print("BENCH_PEERS_PYTHON is not set: only our own methods run.", file=sys.stderr)
        args.methods = [m for m in args.methods if m in OWN]
    torch.set_num_threads(1)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    keys = alternating(args.tasks, args.methods, seeds, args.evaluations)
    runs = play_missing(args.journal, keys, None if args.summary else play)
    summary = summarize(runs, args.evaluations)
    show(summary)
    if args.quick:
        medians = summary["tasks"]["branin"]["methods"]
        assert medians["gp"]["log10_regret_25"] < medians["sobol"]["log10_regret_25"]
    config = {
        k: getattr(args, k) for k in ("seeds", "first_seed", "tasks", "methods", "evaluations")
    }
    save(
        args,
        summary,
        config=config,
        plot=lambda figure: draw(figure, runs, args.evaluations),
    )


if __name__ == "__main__":
    main()
