"""Regret on whole families of problems, beside the packages people use.

Conditional and mixed spaces, functions of BBOB in 5, 10 and 20 dimensions, and real tasks
(:mod:`benchmarks.search.tasks`); 100 evaluations a run, without noise, one thread, every method
with what its package chooses by itself. Every method begins with the space's default where it has a
way to be told so (``cma`` takes it as the mean of its first population, and SMAC evaluates it among
its first points). Conditions are told to Optuna's TPE and to SMAC; the other peers are given all
parameters each time, and those that are not active do nothing. What a package cannot take
(categories in CMA-ES) is left out for it.

After 50 and 100 evaluations the best loss so far is compared: as log10 of the regret where the
minimum is known, else as it is. On each task the peer of the best median is the one to meet: ours
wins, ties or loses against it by the two-sided Mann-Whitney test at 0.05, over the seeds both have.
The target is a win or a tie on 80 % of the tasks. No peer is judged by fewer than 10 seeds, and of
those that take a second or more for a suggestion only few have run: they are shown and not judged.
The win matrix counts the tasks on which one method beats another by the same test.

``players.py`` says which variables of the environment name the peers' interpreters; without them
only our own methods run. Finished runs are kept in a journal, and a run that is in it is not
repeated, so the benchmark can be stopped and resumed; ``--summary`` measures nothing and writes
what the journal holds.

    BENCH_PEERS_PYTHON=/path/to/python python -m benchmarks.search.bench_tasks
        [--seeds 20] [--tasks pipelines f8-5d ...] [--methods gp optuna-gp ...]
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
from benchmarks.search import tables
from benchmarks.search.journal import Run, alternating, play_missing
from benchmarks.search.players import Own, Peer, can_play
from benchmarks.search.tasks import TASKS, make_task

FLOOR = 1e-8
CHECKPOINTS = (50, 100)
PLOTTED = tuple(range(5, 101, 5))
OWN = ("gp", "tpe", "cmaes", "cobyla", "auto", "random")
OTHERS = (
    *("optuna-gp", "optuna-tpe", "optuna-cmaes", "smac", "cma", "nevergrad"),
    *("ax", "hebo", "botorch-loop"),
)
COLOURS = {
    method: {"gp": OURS, "optuna-gp": PEER}.get(method, f"C{i % 10}")
    for i, method in enumerate((*OWN, *OTHERS))
}
EVALUATIONS = 100
ENOUGH = 10  # seeds from which a method is judged; with fewer it is shown alone
LEVEL = 0.05


def play(name: str, method: str, seed: int, evaluations: int) -> Run:
    """One run: the best loss after some evaluations, and the mean seconds a suggestion."""
    task = make_task(name, seed)
    run = {"method": method, "task": name, "seed": seed, "evaluations": evaluations}
    best, seconds = [], []
    try:
        if method in OWN:
            player: Own | Peer = Own(method, task, seed, evaluations)
        else:
            player = Peer(method, task, seed, evaluations, is_told_default=True)
        for _ in range(evaluations):
            config, spent = player.ask()
            seconds.append(spent)
            loss = task.loss(config)
            player.tell({"value": loss})
            best.append(min(loss, best[-1]) if best else loss)
    except (ValueError, RuntimeError) as error:
        return {**run, "refused": str(error), "after": len(best)}
    return {
        **run,
        "best": {str(n): float(f"{best[n - 1]:.5g}") for n in PLOTTED if n <= evaluations},
        "seconds": float(f"{statistics.mean(seconds):.4g}"),
    }


def is_regret(task: str) -> bool:
    """Whether losses of a task are regrets: its minimum is known."""
    return make_task(task, 0).is_regret


def scores(runs: list[Run], n: int) -> list[float]:
    """What is compared of each run after n evaluations; less is better."""
    if runs and is_regret(runs[0]["task"]):
        return [math.log10(max(run["best"][str(n)], FLOOR)) for run in runs]
    return [run["best"][str(n)] for run in runs]


def compare(ours: list[Run], theirs: list[Run], n: int) -> dict[str, Any] | None:
    """Win, tie or loss over the seeds both have; None where they are too few."""
    from scipy.stats import mannwhitneyu

    a, b = ({run["seed"]: run for run in runs} for runs in (ours, theirs))
    shared = sorted(set(a) & set(b))
    if len(shared) < ENOUGH:
        return None
    x, y = scores([a[s] for s in shared], n), scores([b[s] for s in shared], n)
    p = float(mannwhitneyu(x, y).pvalue)
    gap = statistics.median(x) - statistics.median(y)
    outcome = "tie" if p >= LEVEL else "win" if statistics.mean(map(_ahead(y), x)) > 0 else "loss"
    return {"seeds": len(shared), "gap": gap, "p_value": p, "outcome": outcome}


def _ahead(others: list[float]) -> Any:
    """Of a value: by how much more of the others it beats than beat it."""
    return lambda value: sum((value < other) - (value > other) for other in others)


def summarize(runs: list[Run], evaluations: int) -> dict[str, Any]:
    """Medians by task and method, verdicts against the best peer, the win matrix."""
    checkpoints = [n for n in CHECKPOINTS if n <= evaluations] or [evaluations]
    played: dict[str, dict[str, list[Run]]] = {}
    refused: dict[str, dict[str, str]] = {}
    for run in runs:
        if "refused" in run:
            refused.setdefault(run["method"], {})[run["task"]] = run["refused"]
        else:
            played.setdefault(run["task"], {}).setdefault(run["method"], []).append(run)
    tasks = {}
    for task, by_method in played.items():
        rows = {}
        for method, mine in by_method.items():
            rows[method] = {
                "seeds": len(mine),
                "seconds_a_suggestion": statistics.median(r["seconds"] for r in mine),
                **{str(n): _quantiles(scores(mine, n)) for n in checkpoints},
            }
        tasks[task] = {
            "family": make_task(task, 0).family,
            "measure": "log10 regret" if is_regret(task) else "loss",
            "methods": rows,
            "verdicts": {str(n): _verdicts(by_method, rows, n) for n in checkpoints},
        }
    return {
        "tasks": tasks,
        "claims": {str(n): _claims(tasks, str(n)) for n in checkpoints},
        "wins": {str(n): _wins(played, n) for n in checkpoints},
        "refused": refused,
        "tables": {t: tables.quality(t) for t in played if t in tables.TABLES},
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {"q1": low, "median": median, "q3": high}


def _verdicts(by_method: dict[str, list[Run]], rows: dict[str, Any], n: int) -> dict[str, Any]:
    peers = [m for m in by_method if m in OTHERS and rows[m]["seeds"] >= ENOUGH]
    if not peers:
        return {}
    best = min(peers, key=lambda m: rows[m][str(n)]["median"])
    found = {}
    for method in (m for m in by_method if m in OWN):
        verdict = compare(by_method[method], by_method[best], n)
        if verdict is not None:
            found[method] = {"best_peer": best, **verdict}
    return found


def _claims(tasks: dict[str, Any], n: str) -> dict[str, Any]:
    """Of each of ours: wins, ties and losses against the best peer of each task."""
    claims: dict[str, Any] = {}
    for task, found in tasks.items():
        for method, verdict in found["verdicts"][n].items():
            counts = claims.setdefault(method, {"win": [], "tie": [], "loss": []})
            counts[verdict["outcome"]].append(task)
    for counts in claims.values():
        judged = sum(len(counts[outcome]) for outcome in ("win", "tie", "loss"))
        counts["win_or_tie"] = (judged - len(counts["loss"])) / judged
    return claims


def _wins(played: dict[str, dict[str, list[Run]]], n: int) -> dict[str, dict[str, list[int]]]:
    """Of each method against each other one: tasks it beats it on, and tasks both have played."""
    matrix: dict[str, dict[str, list[int]]] = {}
    for one in (*OWN, *OTHERS):
        for other in (*OWN, *OTHERS):
            found = [
                compare(by_method[one], by_method[other], n)
                for by_method in played.values()
                if one != other and one in by_method and other in by_method
            ]
            judged = [f for f in found if f is not None]
            if judged:
                won = sum(f["outcome"] == "win" for f in judged)
                matrix.setdefault(one, {})[other] = [won, len(judged)]
    return matrix


def show(summary: dict[str, Any]) -> None:
    """Print the tables."""
    for task, found in summary["tasks"].items():
        print(f"\n{task}, {found['measure']}")
        last = list(found["verdicts"])[-1]
        for method, row in sorted(
            found["methods"].items(), key=lambda item: item[1][last]["median"]
        ):
            cells = [
                f"@{n} {row[n]['median']:.4g} [{row[n]['q1']:.4g}, {row[n]['q3']:.4g}]"
                for n in found["verdicts"]
            ]
            seconds = row["seconds_a_suggestion"] * 1e3
            print(f"  {method:13s} {'  '.join(cells)}  {seconds:.1f} ms  n={row['seeds']}")
        for n, verdicts in found["verdicts"].items():
            words = [f"{m} {v['outcome']} (p={v['p_value']:.3f})" for m, v in verdicts.items()]
            if words:
                best = next(iter(verdicts.values()))["best_peer"]
                print(f"  @{n} beside {best}: {', '.join(words)}")
    for n, claims in summary["claims"].items():
        for method, counts in claims.items():
            each = ", ".join(f"{len(counts[o])} {o}" for o in ("win", "tie", "loss"))
            print(f"@{n} {method}: {each}; {counts['win_or_tie']:.0%} win or tie")


def draw(figure: Any, runs: list[Run], summary: dict[str, Any]) -> None:
    """Median curves of each task, quartiles shaded for gp and optuna-gp; the win matrix."""
    names = list(summary["tasks"])
    columns = 5
    rows = math.ceil(len(names) / columns) + 1
    figure.set_size_inches(3.2 * columns, 2.6 * rows)
    grid = figure.add_gridspec(rows, columns)
    labels: dict[str, Any] = {}
    for i, name in enumerate(names):
        axis = figure.add_subplot(grid[i // columns, i % columns])
        _curves(axis, name, [r for r in runs if r["task"] == name and "best" in r])
        handles, found = axis.get_legend_handles_labels()
        labels |= dict(zip(found, handles, strict=True))
    last = figure.add_subplot(grid[-1, 0])
    last.axis("off")
    last.legend(labels.values(), labels, loc="center", fontsize=8, frameon=False)
    wins = summary["wins"][list(summary["wins"])[-1]]
    if wins:
        _matrix(figure.add_subplot(grid[-1, 1:]), wins)


def _curves(axis: Any, task: str, runs: list[Run]) -> None:
    known = is_regret(task)
    least = 0.0 if known else min(min(run["best"].values()) for run in runs)
    for method in (m for m in (*OWN, *OTHERS) if any(r["method"] == m for r in runs)):
        mine = [run["best"] for run in runs if run["method"] == method]
        at = [int(n) for n in mine[0]]
        values = [[max(b[str(n)] - least, FLOOR if known else 0.0) for b in mine] for n in at]
        style = "-" if method in OWN else "--"
        colour, width = COLOURS[method], 2 if method in ("gp", "optuna-gp") else 0.8
        medians = [statistics.median(v) for v in values]
        axis.plot(at, medians, style, color=colour, linewidth=width, label=method)
        if width == 2 and len(mine) > 1:
            bands = [_quantiles(v) for v in values]
            low, high = ([b[q] for b in bands] for q in ("q1", "q3"))
            axis.fill_between(at, low, high, color=colour, alpha=0.2)
    axis.set_yscale("log" if known else "linear")
    axis.set_title(task, fontsize=9)
    axis.set_xlabel("evaluations", fontsize=7)
    axis.set_ylabel("regret" if known else "loss above the least found", fontsize=7)
    axis.tick_params(labelsize=6)


def _matrix(axis: Any, wins: dict[str, dict[str, list[int]]]) -> None:
    methods = list(wins)
    shares = [
        [wins[a][b][0] / wins[a][b][1] if b in wins[a] else math.nan for b in methods]
        for a in methods
    ]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, a in enumerate(methods):
        for j, b in enumerate(methods):
            if b in wins[a]:
                won, judged = wins[a][b]
                dark = shares[i][j] > 0.5
                text = f"{won}/{judged}"
                colour = "white" if dark else "black"
                axis.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(len(methods)), methods, rotation=45, fontsize=7)
    axis.set_yticks(range(len(methods)), methods, fontsize=7)
    axis.set_title("tasks on which the row beats the column", fontsize=9)


def main() -> None:
    """Run what the journal lacks, then summarize."""
    every = [*OWN, *OTHERS]
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    options.add_argument("--methods", nargs="+", default=every, choices=every)
    options.add_argument("--evaluations", type=int, default=EVALUATIONS)
    options.add_argument("--journal", type=Path, help="where finished runs are kept")
    options.add_argument("--json", type=Path)
    options.add_argument("--plot", type=Path)
    options.add_argument("--summary", action="store_true", help="only what the journal holds")
    options.add_argument("--quick", action="store_true", help="a check of under a minute")
    args = options.parse_args()
    args.name = "search_tasks"
    if args.quick:
        args.seeds, args.tasks, args.evaluations = 1, ["branches", "boosting-diabetes"], 30
        args.methods = ["gp", "tpe", "random", "optuna-tpe", "smac"]
    else:
        args.journal = args.journal or RESULTS / "search_tasks_runs.jsonl"
        args.json = args.json or RESULTS / "search_tasks.json"
        args.plot = args.plot or RESULTS / "search_tasks.png"
    cannot = [m for m in args.methods if m in OTHERS and not can_play(m)]
    if cannot and not args.summary:
        print(f"no interpreter is named for {', '.join(cannot)}: left out.", file=sys.stderr)
        args.methods = [m for m in args.methods if m not in cannot]
    torch.set_num_threads(1)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    keys = alternating(args.tasks, args.methods, seeds, args.evaluations)
    runs = play_missing(args.journal, keys, None if args.summary else play)
    summary = summarize(runs, args.evaluations)
    show(summary)
    if args.quick:
        rows = summary["tasks"]["boosting-diabetes"]["methods"]
        assert rows["gp"]["30"]["median"] < rows["random"]["30"]["median"]
    config = {
        k: getattr(args, k) for k in ("seeds", "first_seed", "tasks", "methods", "evaluations")
    }
    save(args, summary, config=config, plot=lambda figure: draw(figure, runs, summary))


if __name__ == "__main__":
    main()
