"""The numbers of the page on search beside other packages, from ``benchmarks/results``."""

from __future__ import annotations

from typing import Any

__all__ = ["families"]

_OWN = ("gp", "tpe", "cmaes", "cobyla", "auto", "random")
_ORDER = (
    *_OWN,
    *("optuna-gp", "optuna-tpe", "optuna-cmaes", "smac", "cma", "nevergrad"),
    *("ax", "hebo", "botorch-loop"),
)


def families(document: dict[str, Any], where: str) -> str:
    """Medians by task and method, what holds of the claim, who beats whom."""
    r = document["results"]
    tasks, claims, wins = r["tasks"], r["claims"]["100"], r["wins"]["100"]
    shown = [m for m in _ORDER if any(m in found["methods"] for found in tasks.values())]
    seeds = {
        m: [t["methods"][m]["seeds"] for t in tasks.values() if m in t["methods"]] for m in shown
    }
    heads = [f"{m} ({'-'.join(map(str, sorted({min(seeds[m]), max(seeds[m])})))})" for m in shown]
    lines = [
        "Medians after 100 evaluations, less is better: log10 of the regret, or the loss itself "
        f"where the minimum is not known (in italics); in brackets the seeds that have run "
        f"({where}):",
        "",
        f"| task | {' | '.join(heads)} |",
        f"| --- |{' ---: |' * len(shown)}",
    ]
    for task, found in tasks.items():
        cells = [_cell(found, m) for m in shown]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    lines += [
        "",
        "Beside the best peer of each task, wins, ties and losses:",
        "",
        "| ours | after 50 evaluations | after 100 | behind after 100 on |",
        "| --- | ---: | ---: | --- |",
        *(_claim(r["claims"], method) for method in claims),
    ]
    few = [f"`{m}`" for m in shown if m not in claims and m not in wins]
    if few:
        lines += ["", f"Shown, but not judged, having too few seeds: {', '.join(few)}."]
    others = [m for m in shown if m not in _OWN and any(m in wins.get(own, {}) for own in _OWN)]
    if others:
        lines += [
            "",
            "Tasks on which ours is ahead : behind after 100 evaluations, of those that both have "
            "enough seeds for:",
            "",
            f"| ours | {' | '.join(others)} |",
            f"| --- |{' ---: |' * len(others)}",
        ]
        for own in (m for m in _OWN if m in wins):
            lines.append(f"| {own} | {' | '.join(_pair(wins, own, m) for m in others)} |")
    qualities = [
        f"{name} R² {q['r2']:.2f}, rank correlation {q['rank']:.2f}"
        for name, q in r["tables"].items()
    ]
    if qualities:
        lines += ["", f"The models of the tables, on rows left out: {'; '.join(qualities)}."]
    return "\n".join(lines)


def _cell(found: dict[str, Any], method: str) -> str:
    if method not in found["methods"]:
        return ""
    value = found["methods"][method]["100"]["median"]
    return f"{value:.2f}" if found["measure"] == "log10 regret" else f"*{value:.4g}*"


def _claim(claims: dict[str, Any], method: str) -> str:
    cells = []
    for n in ("50", "100"):
        counts = claims[n][method]
        cells.append(" : ".join(str(len(counts[outcome])) for outcome in ("win", "tie", "loss")))
    behind = ", ".join(claims["100"][method]["loss"])
    return f"| {method} | {' | '.join(cells)} | {behind} |"


def _pair(wins: dict[str, Any], own: str, other: str) -> str:
    if other not in wins[own]:
        return ""
    won, judged = wins[own][other]
    return f"{won} : {wins[other][own][0]} of {judged}"
