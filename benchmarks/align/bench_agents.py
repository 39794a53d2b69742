"""What raises an agent's success: rejection sampling, pairs of steps, reflection, turn by turn.

The world has four rooms, a key and a locked door; success is entering the goal room within 24
turns. The agent is a table of preferences that draws evenly at first, so that what is measured is
the data each method makes of the same 200 tasks, and not a language model. Each is judged on the
same 200 tasks that nothing was learnt from, against the start by McNemar's test.

    python -m benchmarks.align.bench_agents [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

from typing import Any

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
from sharpen.align.agents.worlds import Rooms

FIRST = 1000


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

    results = {
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

    save(args, results, config={"tasks": tasks, "judged": judged}, plot=plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
