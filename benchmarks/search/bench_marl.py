"""Several agents beside one on the design of a DRAM controller, at equal simulator calls.

The claim: one agent a parameter finds better controllers, with a higher mean reward on the way,
than one agent for all (PPO, SAC). Four workloads, three targets (power, latency, both), the ten
parameters of `sharpen.problems.arch`, reward 1 / (1 + relative distance to the target). Every
method gets the same problem, seed and number of evaluations and its own defaults; an episode is one
design. Beside the learners stand REINFORCE on a table of logits, a genetic algorithm, TPE and
random search, and (`-fast`) the learners by PPO with ten times their default learning rate, which
is for long runs.

What is printed for each task: the mean over the seeds of the best reward, and of the mean reward
over all evaluations (the mean episodic reward). A method beats another in a task when its mean is
higher and the two-sided Mann-Whitney test over the seeds says so at 0.05. Printed as found.

stable-baselines3 runs in an interpreter of its own, named by BENCH_PEERS_PYTHON; without it only
our own methods run. Its PPO chooses among levels (MultiDiscrete) and learns every 64 designs in
place of every 2,048, which would be never; its SAC acts in the unit cube (Box), of which each level
has an equal share; all else is its default. Finished runs are kept in a journal, and a run that is
in it is not repeated, so the benchmark can be stopped and resumed.

    BENCH_PEERS_PYTHON=/path/to/python python -m benchmarks.search.bench_marl [--seeds 10]
        [--evaluations 500] [--methods ippo ...] [--journal FILE] [--json OUT] [--plot OUT]
        [--summarize] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from benchmarks.common import RESULTS, save

from sharpen.core.optimizer import make_optimizer
from sharpen.problems import arch
from sharpen.search.rl.designs import Designs

WORKLOADS = ("stream", "random", "cloud-1", "cloud-2")
TARGETS = ("power", "latency", "joint")
REQUESTS = 1000
MARL = ("ippo", "mappo", "sequential-marl")
SINGLE = ("ppo", "sac")
# Ten times the learning rate: chosen on a sum of ten choices of six values, not on these tasks.
FAST = {f"{name}-fast": {"name": name, "learning_rate": 3e-3} for name in (*MARL, "ppo")}
OWN = (*MARL, "reinforce", *SINGLE, "ga", "random", "tpe", *FAST)
PEERS = ("sb3-ppo", "sb3-sac")
Key = tuple[str, str, str, int, int]


class Simulated:
    """A workload's problems, one a target; what was simulated once is not again."""

    def __init__(self, workload: str) -> None:
        self.problems = {
            target: arch.make("dram-v0", workload=workload, target=target, requests=REQUESTS)
            for target in TARGETS
        }
        self._known: dict[tuple[Any, ...], dict[str, float]] = {}

    def reward(self, target: str, config: dict[str, Any]) -> float:
        """The reward of a configuration."""
        problem, key = self.problems[target], tuple(config.values())
        if key not in self._known:
            measured = problem.evaluate(config)
            self._known[key] = {name: measured[name] for name in ("power", "latency")}
        return problem.score(self._known[key])["reward"]


def play_own(
    method: str, simulated: Simulated, target: str, seed: int, evaluations: int
) -> tuple[list[float], float]:
    """Rewards in order, and the method's own seconds."""
    problem = simulated.problems[target]
    begin = time.perf_counter()
    optimizer = make_optimizer(
        FAST.get(method, method), problem.space, problem.objectives, seed=seed, budget=evaluations
    )
    own = time.perf_counter() - begin
    rewards = []
    for _ in range(evaluations):
        begin = time.perf_counter()
        candidate = optimizer.ask()[0]
        own += time.perf_counter() - begin
        rewards.append(simulated.reward(target, candidate.config))
        begin = time.perf_counter()
        optimizer.tell([candidate.result({"reward": rewards[-1]})])
        own += time.perf_counter() - begin
    return rewards, own


def play_peer(
    method: str, simulated: Simulated, target: str, seed: int, evaluations: int
) -> tuple[list[float], float]:
    """The same of stable-baselines3, which asks for each reward over a pipe."""
    problem = simulated.problems[target]
    kind = "levels" if method == "sb3-ppo" else "reals"
    designs = Designs(problem, actions=kind)  # type: ignore[arg-type]
    process = subprocess.Popen(
        [os.environ["BENCH_PEERS_PYTHON"], str(Path(__file__).with_name("peers_rl.py"))],
        env={**os.environ, "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    levels = [len(axis.coordinates) for axis in designs.axes]
    start = {"method": method, "levels": levels, "seed": seed, "evaluations": evaluations}
    process.stdin.write(json.dumps(start) + "\n")
    process.stdin.flush()
    rewards: list[float] = []
    own = 0.0
    while True:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with code {process.wait()}")
        said = json.loads(line)
        if "seconds" in said:
            own = said["seconds"]
            break
        x = designs.start()
        for axis, part in zip(designs.axes, said["action"], strict=True):
            x[axis.column] = designs.coordinate(axis, part)
        rewards.append(simulated.reward(target, problem.space.decode(x[None])[0]))
        process.stdin.write(f"{rewards[-1]!r}\n")
        process.stdin.flush()
    process.stdin.close()
    process.wait(timeout=60)
    return rewards[:evaluations], own


def play(
    method: str, simulated: Simulated, workload: str, target: str, seed: int, evaluations: int
) -> dict[str, Any]:
    """One run, in few numbers: best and mean reward along the way."""
    player = play_own if method in OWN else play_peer
    rewards, own = player(method, simulated, target, seed, evaluations)
    tenths = np.array_split(np.array(rewards), 10)
    best = np.maximum.accumulate([part.max() for part in tenths])
    return {
        "method": method,
        "workload": workload,
        "target": target,
        "seed": seed,
        "evaluations": evaluations,
        "best": max(rewards),
        "mean": float(np.mean(rewards)),
        "best_by_tenth": [round(float(value), 6) for value in best],
        "mean_of_tenth": [round(float(part.mean()), 6) for part in tenths],
        "ms_a_trial": own / evaluations * 1e3,
    }


def key_of(run: dict[str, Any]) -> Key:
    """What a run is known by."""
    return (run["workload"], run["target"], run["method"], run["seed"], run["evaluations"])


def read(journal: Path) -> dict[Key, dict[str, Any]]:
    """Finished runs; a line cut short by a stop is left out."""
    found = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            run = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[key_of(run)] = run
    return found


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of each task and method, and who beats whom in how many tasks."""
    from scipy.stats import mannwhitneyu

    methods = list(dict.fromkeys(r["method"] for r in runs))
    tasks: dict[str, Any] = {}
    by: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        by.setdefault((f"{run['workload']}, {run['target']}", run["method"]), []).append(run)
    for (task, method), mine in by.items():
        tasks.setdefault(task, {})[method] = {
            "seeds": len(mine),
            "best": statistics.mean(r["best"] for r in mine),
            "mean": statistics.mean(r["mean"] for r in mine),
            "last_tenth": statistics.mean(r["mean_of_tenth"][-1] for r in mine),
        }
    overall = {}
    for method in methods:
        mine = [r for r in runs if r["method"] == method]
        done = [rows[method] for rows in tasks.values() if method in rows]
        if len(done) < len(tasks):
            continue  # a mean over some of the tasks compares with nothing
        overall[method] = {
            "seeds": min(row["seeds"] for row in done),
            "runs": len(mine),
            **{m: statistics.mean(row[m] for row in done) for m in ("best", "mean", "last_tenth")},
            "ms_a_trial": statistics.median(r["ms_a_trial"] for r in mine),
        }
    wins: dict[str, dict[str, Any]] = {}
    for a in methods:
        for b in methods:
            if a == b:
                continue
            counts = {}
            for what in ("best", "mean"):
                won = lost = 0
                for task in tasks:
                    ours, theirs = ([r[what] for r in by.get((task, m), [])] for m in (a, b))
                    if len(ours) < 3 or len(theirs) < 3:
                        continue
                    if max(ours + theirs) == min(ours + theirs):
                        continue
                    if mannwhitneyu(ours, theirs).pvalue < 0.05:
                        is_win = statistics.mean(ours) > statistics.mean(theirs)
                        won, lost = won + is_win, lost + (not is_win)
                counts[what] = [won, lost]
            wins[f"{a} / {b}"] = counts
    return {"overall": overall, "tasks": tasks, "wins_and_losses": wins}


def show(summary: dict[str, Any]) -> None:
    """Print the tables and the verdicts."""
    print(f"{'method':16s} {'best':>7s} {'mean':>7s} {'last tenth':>10s} {'ms':>7s}  runs")
    for method, row in sorted(summary["overall"].items(), key=lambda item: -item[1]["mean"]):
        print(
            f"{method:16s} {row['best']:7.4f} {row['mean']:7.4f} {row['last_tenth']:10.4f} "
            f"{row['ms_a_trial']:7.2f}  {row['runs']}"
        )
    for task, rows in summary["tasks"].items():
        for what in ("best", "mean"):
            first = sorted(rows, key=lambda m: -rows[m][what])
            cells = "  ".join(f"{m} {rows[m][what]:.4f}" for m in first)
            print(f"{task:16s} {what:5s} {cells}")
    overall = summary["overall"]
    for agents in (*MARL, *(f"{name}-fast" for name in MARL)):
        for single in (*SINGLE, "ppo-fast", *PEERS, "reinforce", "ga", "tpe"):
            if agents not in overall or single not in overall:
                continue
            pair = summary["wins_and_losses"][f"{agents} / {single}"]
            ours, theirs = overall[agents], overall[single]
            print(
                f"{agents} / {single}: mean reward x{ours['mean'] / theirs['mean']:.3f} "
                f"(won, lost {pair['mean']}), best x{ours['best'] / theirs['best']:.3f} "
                f"(won, lost {pair['best']})"
            )


def draw(figure: Any, runs: list[dict[str, Any]]) -> None:
    """Mean and best reward over the evaluations, over all tasks."""
    import matplotlib

    figure.set_size_inches(12, 5)
    axes, colours = figure.subplots(1, 2), matplotlib.colormaps["tab20"]
    for k, method in enumerate(summarize(runs)["overall"]):
        mine = [r for r in runs if r["method"] == method]
        x = [(part + 1) * mine[0]["evaluations"] / 10 for part in range(10)]
        is_agents = method.removesuffix("-fast") in MARL
        style = "-" if is_agents else "--" if method in PEERS else ":"
        for axis, what in zip(axes, ("mean_of_tenth", "best_by_tenth"), strict=True):
            y = np.mean([r[what] for r in mine], axis=0)
            axis.plot(x, y, style, label=method, color=colours(k), linewidth=1.5)
    axes[0].set(xlabel="evaluations", ylabel="mean reward of the last tenth")
    axes[1].set(xlabel="evaluations", ylabel="best reward so far")
    figure.subplots_adjust(right=0.84)
    axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))


def main() -> None:
    """Run what the journal lacks, then summarize."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*OWN, *PEERS]
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--evaluations", type=int, default=500)
    options.add_argument("--methods", nargs="+", default=every, choices=every)
    options.add_argument("--journal", type=Path, help="where finished runs are kept")
    options.add_argument("--summarize", action="store_true", help="only what the journal has")
    options.add_argument("--json", type=Path)
    options.add_argument("--plot", type=Path)
    options.add_argument("--quick", action="store_true", help="a check of under a minute")
    args = options.parse_args()
    args.name = "search_marl"
    workloads: tuple[str, ...] = WORKLOADS
    targets: tuple[str, ...] = TARGETS
    if args.quick:
        args.seeds, args.evaluations, workloads, targets = 2, 200, ("cloud-1",), ("joint",)
        args.methods = [m for m in args.methods if m != "tpe"]
    else:
        args.journal = args.journal or RESULTS / "search_marl_runs.jsonl"
        args.json = args.json or RESULTS / "search_marl.json"
        args.plot = args.plot or RESULTS / "search_marl.png"
    if "BENCH_PEERS_PYTHON" not in os.environ and not args.summarize:
        print("BENCH_PEERS_PYTHON is not set: only our own methods run.", file=sys.stderr)
        args.methods = [m for m in args.methods if m in OWN]
    torch.set_num_threads(1)
    known = read(args.journal) if args.journal else {}
    runs, worlds = [], dict[str, Simulated]()
    for seed in range(args.seeds):
        for workload in workloads:
            for target in targets:
                for method in args.methods:
                    key = (workload, target, method, seed, args.evaluations)
                    if key not in known:
                        if args.summarize:
                            continue
                        if workload not in worlds:
                            worlds[workload] = Simulated(workload)
                        given = (worlds[workload], workload, target, seed, args.evaluations)
                        known[key] = play(method, *given)
                        if args.journal:
                            with args.journal.open("a") as file:
                                file.write(json.dumps(known[key]) + "\n")
                    runs.append(known[key])
        print(f"seed {seed} is done", file=sys.stderr, flush=True)
    summary = summarize(runs)
    show(summary)
    config = {
        "evaluations": args.evaluations,
        "requests": REQUESTS,
        "methods": list(summary["overall"]),
        "targets": {
            w: arch.make("dram-v0", workload=w, target="joint", requests=REQUESTS).targets
            for w in workloads
        },
    }
    save(args, summary, config=config, plot=lambda figure: draw(figure, runs))


if __name__ == "__main__":
    main()
