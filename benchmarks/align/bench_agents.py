"""What raises an agent's success: rejection sampling, pairs of steps, reflection, turn by turn.

The world has four rooms, a key and a locked door; success is entering the goal room within 24
turns. The agent is a table of preferences that draws evenly at first, so that what is measured is
the data each method makes of the same 200 tasks, and not a language model. Each is judged on the
same 200 tasks that nothing was learnt from, against the start by McNemar's test.

Then a language model learns in a world of two turns that asks for early letters, by the methods
of ``sharpen align agent`` that have no critic: ten rounds of at most 136 episodes each, the same
learning rate, from three seeds.

    python -m benchmarks.align.bench_agents [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from benchmarks.align.bench_learning import align
from benchmarks.common import OURS, arguments, save

from sharpen.align.agents import (
    AgentReport,
    ReflectionMemory,
    TablePolicy,
    collect,
    compare_agents,
    evaluate,
    filter_trajectories,
    step_pairs,
)
from sharpen.align.agents.filtering import best_of, succeeded, unique
from sharpen.align.agents.playing import play_world
from sharpen.align.agents.worlds import Rooms

FIRST = 1000
LETTERS = f"{Path(__file__).parents[2] / 'examples/align/worlds.py'}:Letters"
SHARED: dict[str, Any] = {
    "lr": 1e-3,
    "schedule": "constant",
    "sampling": {"max_tokens": 4},
}
STEPS: dict[str, Any] = {"batch": 8, "generations": 4, "branches": {"margin": 0.1}}  # 136 episodes
EPISODES: dict[str, Any] = {"batch": 17, "generations": 8}  # 136 as well
MODEL: dict[str, dict[str, Any]] = {
    "dpo": {**STEPS, "options": {"beta": 0.05}},
    "ipo": {**STEPS, "options": {"beta": 0.05}},
    "orpo": STEPS,
    "rft": EPISODES,
    "rloo": EPISODES,
    "grpo": EPISODES,
}


def with_model(rounds: int, seeds: int, judged: int) -> dict[str, Any]:
    """Success of our tiny model before and after each method, and what that took."""

    def success(model: str | Path) -> float:
        tasks = range(100_000, 100_000 + judged)
        return float(play_world(model, LETTERS, tasks=tasks, max_tokens=4)["success"]["value"])

    torch.set_num_threads(1)
    found: dict[str, Any] = {"start": success("tiny"), "methods": {}}
    for name, own in MODEL.items():
        ends, curves, took, episodes = [], [], [], []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                begin = time.process_time()
                model, told = align(
                    "tiny",
                    [],
                    seed,
                    Path(folder) / "run",
                    **{**SHARED, **own, "method": name, "world": LETTERS, "steps": rounds},
                )
                took.append(time.process_time() - begin)
                ends.append(success(model))
            curves.append(told["success"])
            episodes.append(int(sum(told.get("episodes", [136] * rounds))))
        found["methods"][name] = {
            "success": ends,
            "curves": curves,
            "episodes": episodes,
            "cpu_s": took,
        }
        print(name, ends, f"{fmean(took):.1f} s", flush=True)
    return found


def main() -> int:
    args = arguments(__doc__, "align_agents")
    tasks, judged = (20, 40) if args.quick else (200, 200)
    held_out = range(FIRST, FIRST + judged)
    start = evaluate(Rooms, TablePolicy(), held_out)
    found: dict[str, tuple[AgentReport, int]] = {}

    tried = collect(Rooms, TablePolicy(), 4, tasks=range(tasks))
    kept = filter_trajectories(tried, [succeeded(), unique(), best_of(2)]).kept
    policy = TablePolicy()
    policy.fit(kept)
    found["rejection sampling"] = evaluate(Rooms, policy, held_out), len(tried)

    again = collect(Rooms, policy, 4, tasks=range(tasks, 2 * tasks))
    policy.fit(filter_trajectories(again, [succeeded(), unique(), best_of(2)]).kept)
    found["the same, twice"] = evaluate(Rooms, policy, held_out), len(tried) + len(again)

    branches = collect(Rooms, TablePolicy(), 6, tasks=range(max(4, tasks // 7)), explore="branch")
    policy = TablePolicy()
    policy.prefer(step_pairs(branches, margin=0.5, min_visits=5))
    found["pairs of steps"] = evaluate(Rooms, policy, held_out), len(branches)

    memory = ReflectionMemory()
    memory.learn(tried)
    found["reflection"] = evaluate(Rooms, TablePolicy(), held_out, memory=memory), len(tried)

    def told(report: AgentReport) -> dict[str, Any]:
        one = report.success
        return {"value": one.value, "low": one.low, "high": one.high, "turns": report.steps}

    results: dict[str, Any] = {
        "start": told(start),
        "methods": {
            name: {
                **told(report),
                "p": compare_agents(report, start).p,
                "episodes": episodes,
            }
            for name, (report, episodes) in found.items()
        },
    }
    for name, one in results["methods"].items():
        print(name, {key: round(value, 4) for key, value in one.items()}, flush=True)

    rounds, seeds = (2, 1) if args.quick else (10, 3)
    results["model"] = with_model(rounds, seeds, 20 if args.quick else 200)

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        names = ["start", *found]
        reports = [start, *(report for report, _ in found.values())]
        values = [report.success.value for report in reports]
        bars = [
            [report.success.value - report.success.low for report in reports],
            [report.success.high - report.success.value for report in reports],
        ]
        axes.bar(names, values, yerr=bars, color=OURS, capsize=4)
        axes.set_ylabel("success, 95 %")

    config = {"tasks": tasks, "judged": judged, "rounds": rounds, "seeds": seeds}
    save(args, results, config={**config, "shared": SHARED, "model": MODEL}, plot=plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
