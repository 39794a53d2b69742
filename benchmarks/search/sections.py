"""The numbers of the pages on search, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.search import arch_sections
from benchmarks.search.bo_sections import bayesian
from benchmarks.search.choice_sections import auto, overhead
from benchmarks.search.task_sections import families

__all__ = ["SECTIONS"]

_NAMES = {"tsallis_inf": "Tsallis-INF", "binned": "Tsallis-INF in bins", "chebcb": "ChebCB"}


def relax(document: dict[str, Any], where: str) -> str:
    """Costs of learnt omegas over the best fixed one."""
    r, config = document["results"], document["config"]
    lines = [
        f"Mean SOR iterations over those of the best fixed omega in hindsight, after so many "
        f"systems; {config['seeds']} seeds ({where}):",
        "",
        f"| variance | policy | {' | '.join(f'{m:,}' for m in r['high']['steps'])} | us a round |",
        f"| --- | --- |{' --- |' * len(r['high']['steps'])} --- |",
    ]
    for variance in ("high", "low"):
        rows = r[variance]
        for key, name in _NAMES.items():
            cells = " | ".join(f"{x:.2f}" for x in rows[key]["over_best_fixed"])
            lines.append(f"| {variance} | {name} | {cells} | {rows[key]['us_a_round']:.0f} |")
        best = rows["instance_best"] / min(rows["fixed"].values())
        empty = " |" * len(rows["steps"])
        lines.append(f"| {variance} | the best omega of each system |{empty[:-2]} {best:.2f} | |")
    lines += [
        "",
        "SSOR-CG on 2,000 steps of the heat equation, iterations in all (and seconds, the time of "
        "choosing included):",
        "",
        f"| points a side | {' | '.join(next(iter(r['heat'].values())))} |",
        f"| --- |{' --- |' * len(next(iter(r['heat'].values())))}",
    ]
    for side, rows in r["heat"].items():
        cells = " | ".join(f"{x['iterations']:,} ({x['seconds']:.2f} s)" for x in rows.values())
        lines.append(f"| {side} | {cells} |")
    return "\n".join(lines)


def store(document: dict[str, Any], where: str) -> str:
    """Trials a second of the store, and how long resuming takes."""
    r = document["results"]
    alone, resume = r["alone"], r["resume"]
    shared = [f"{row['processes']} processes {row['trials_a_second']:,.0f}" for row in r["sqlite"]]
    lines = [
        f"A study of 6 real numbers, random search, an objective that costs nothing, one process, "
        f"one SQLite file: {alone['sharpen']['median']:.0f} trials a second, Optuna's "
        f"{alone['optuna']['median']:.0f} ({where}). Leases and results of an empty study, trials "
        f"a second on one SQLite file: {', '.join(shared)}",
    ]
    if r["postgresql"]:
        row = r["postgresql"]
        lines[0] += f"; in PostgreSQL, {row['processes']} processes {row['trials_a_second']:,.0f}"
    lost = sum(row["lost_or_double"] for row in (*r["sqlite"], *filter(None, [r["postgresql"]])))
    lines[0] += (
        f"; {lost or 'no'} trial was lost or numbered twice. A study of 100,000 trials is opened "
        f"and asked for the next in {resume['resume_s']:.1f} s and {resume['bytes'] / 1e6:.0f} MB."
    )
    return "\n".join(lines)


_LEARNERS = {
    "ippo": "IPPO",
    "ippo-fast": "IPPO, rate 3e-3",
    "mappo": "MAPPO",
    "mappo-fast": "MAPPO, rate 3e-3",
    "sequential-marl": "agents in turn",
    "sequential-marl-fast": "agents in turn, rate 3e-3",
    "reinforce": "REINFORCE",
    "ppo": "PPO",
    "ppo-fast": "PPO, rate 3e-3",
    "sac": "SAC",
    "sb3-ppo": "PPO of stable-baselines3",
    "sb3-sac": "SAC of stable-baselines3",
    "ga": "genetic algorithm",
    "tpe": "TPE",
    "random": "random search",
}


def marl(document: dict[str, Any], where: str) -> str:
    """Rewards of agents and others on the design of a DRAM controller."""
    r, config = document["results"], document["config"]
    lines = [
        f"Four workloads, three targets (power, latency, both), {config['evaluations']} "
        f"evaluations a run, each method's defaults but for the rates shown; means over the tasks, "
        f"reward 1 is the target "
        f"({where}):",
        "",
        "| method | mean reward | of the last tenth | best reward | seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    overall = r["overall"]
    for method in sorted(overall, key=lambda m: -overall[m]["mean"]):
        row = overall[method]
        lines.append(
            f"| {_LEARNERS[method]} | {row['mean']:.4f} | {row['last_tenth']:.4f} | "
            f"{row['best']:.4f} | {row['seeds']} |"
        )
    every = ("ppo", "ppo-fast", "sac", "sb3-ppo", "sb3-sac", "reinforce", "ga", "tpe")
    others = [method for method in every if overall.get(method, {"seeds": 0})["seeds"] > 2]
    lines += [
        "",
        f"Tasks of {len(r['tasks'])} in which the agents' mean reward, then their best reward, is "
        "higher : lower by the Mann-Whitney test at 0.05 over the seeds; the rest are ties:",
        "",
        f"| agents | {' | '.join(_LEARNERS[m] for m in others)} |",
        f"| --- |{' --- |' * len(others)}",
    ]
    agents_of = ("ippo", "mappo", "sequential-marl")
    for agents in (*agents_of, *(f"{name}-fast" for name in agents_of)):
        if agents not in overall:
            continue
        cells = []
        for other in others:
            counts = r["wins_and_losses"][f"{agents} / {other}"]
            mean, best = (":".join(map(str, counts[what])) for what in ("mean", "best"))
            cells.append(f"{mean}, {best}")
        lines.append(f"| {_LEARNERS[agents]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rl(document: dict[str, Any], where: str) -> str:
    """Agents in environments beside those of stable-baselines3."""
    config = document["config"]
    lines = [
        f"{config['seeds']} seeds, mean return of {config['episodes']} new episodes; `alike` has "
        f"our copies, minibatches and layers; one thread ({where}):",
        "",
        "| environment | steps | agent | return (each seed) | steps a CPU second |",
        "| --- | ---: | --- | --- | ---: |",
    ]
    names = {
        "sharpen": "ours",
        "sb3": "stable-baselines3",
        "sb3 alike": "stable-baselines3, alike",
    }
    for env, rows in document["results"].items():
        algorithm, steps = config["tasks"][env]
        for name, row in rows.items():
            each = ", ".join(f"{value:.0f}" for value in row["returns"])
            lines.append(
                f"| {env}, {algorithm.upper()} | {steps:,} | {names[name]} | {row['return']:.1f} "
                f"({each}) | {row['steps_a_second']:,.0f} |"
            )
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "arch_lottery": ("search_arch", arch_sections.lottery),
    "arch_proxy": ("search_arch", arch_sections.proxy),
    "arch_speed": ("search_arch", arch_sections.speed),
    "auto": ("search_auto", auto),
    "bayesian": ("search_bo", bayesian),
    "families": ("search_tasks", families),
    "marl": ("search_marl", marl),
    "overhead": ("search_overhead", overhead),
    "relax": ("search_relax", relax),
    "rl": ("search_rl", rl),
    "store": ("search_store", store),
}
