"""What a suggestion takes and what ``auto`` follows, from ``benchmarks/results``."""

from __future__ import annotations

from typing import Any

from benchmarks.search.bench_auto import BEYOND, CONTEXTS, FRONTS, SEVERAL, UNDER

__all__ = ["auto", "overhead"]


def overhead(document: dict[str, Any], where: str) -> str:
    """CPU milliseconds a suggestion, and the ratios to ours."""
    r, config = document["results"], document["config"]
    seconds, ratios = r["models"]["seconds"], r["models"]["ratios"]
    tpe = r["tpe"]["seconds"]
    lines = [
        f"CPU time a suggestion, {config['task']} ({config['evaluations']} trials, the mean over "
        f"them; median of {config['seeds']} seeds), methods in turn, one thread ({where}):",
        "",
        "| method | ms a suggestion | times that of ours |",
        "| --- | ---: | ---: |",
        f"| gp | {_ms(seconds['gp'])} | |",
        *(f"| {peer} | {_ms(seconds[peer])} | {times:.1f} |" for peer, times in ratios.items()),
        f"| tpe, {config['known']:,} trials known | {_ms(tpe['ours'])} | |",
        f"| optuna-tpe, {config['known']:,} trials known | {_ms(tpe['optuna'])} | "
        f"{r['tpe']['ratio']:.1f} |",
    ]
    return "\n".join(lines)


def _ms(found: dict[str, float]) -> str:
    return f"{1e3 * found['median']:.3g}"


def auto(document: dict[str, Any], where: str) -> str:
    """Medians of the methods that ``auto`` chooses between."""
    r = document["results"]
    missing = "Share of the true front's volume that is left out after some trials"
    lines = []
    for names, tasks, methods, what in (
        (FRONTS, r["tasks"], SEVERAL, missing),
        (FRONTS, r["beyond"], BEYOND, "The same where more trials are planned"),
        (UNDER, r["tasks"], CONTEXTS, "Mean regret of some rounds under random contexts"),
    ):
        shown = [name for name in names if name in tasks]
        if not shown:
            continue
        seeds = min(tasks[name]["seeds"] for name in shown)
        keys = list(next(iter(tasks[shown[0]]["medians"].values())))
        lines += [
            f"{what}, medians of {seeds} seeds, less is better; bold where it is ahead of all "
            f"others by the Mann-Whitney test at 0.05 ({where}):",
            "",
            f"| problem | method | {' | '.join(keys)} | ms a trial |",
            f"| --- | --- |{' ---: |' * (len(keys) + 1)}",
        ]
        for name in shown:
            for method in methods:
                cells = " | ".join(_median(tasks[name], method, key) for key in keys)
                spent = 1e3 * tasks[name]["seconds"][method]
                lines.append(f"| {name} | {method} | {cells} | {spent:.3g} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _median(task: dict[str, Any], method: str, key: str) -> str:
    value = f"{task['medians'][method][key]:.3g}"
    is_ahead = task["best"][key] == method and max(task["p_values"][key].values()) < 0.05
    return f"**{value}**" if is_ahead else value
