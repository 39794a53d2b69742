"""The numbers of the page on Bayesian optimization, from ``benchmarks/results``."""

from __future__ import annotations

from typing import Any

__all__ = ["bayesian"]

_ORDER = (
    *("gp", "optuna-gp", "ax", "botorch-loop", "optuna-tpe", "cma", "nevergrad", "random"),
    *("tpe", "cmaes", "sobol"),
)
_PEERS = ("optuna-gp", "ax", "botorch-loop", "optuna-tpe", "cma", "nevergrad", "random")
_ENOUGH = 10


def bayesian(document: dict[str, Any], where: str) -> str:
    """Regrets by task and method, and what holds of the claims."""
    tasks = document["results"]["tasks"]
    shown = [m for m in _ORDER if any(m in found["methods"] for found in tasks.values())]
    seeds = {
        m: sorted({t["methods"][m]["seeds"] for t in tasks.values() if m in t["methods"]})
        for m in shown
    }
    heads = [f"{m} ({'-'.join(map(str, sorted({seeds[m][0], seeds[m][-1]})))})" for m in shown]
    lines = [
        f"Median log10 regret after 100 evaluations, less is better; in brackets the seeds that "
        f"have run ({where}):",
        "",
        f"| function | {' | '.join(heads)} |",
        f"| --- |{' ---: |' * len(shown)}",
    ]
    for task, found in tasks.items():
        cells = [
            f"{found['methods'][m]['log10_regret_100']:.2f}" if m in found["methods"] else ""
            for m in shown
        ]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    lines.append("")
    judged = [m for m in shown if m in _PEERS and seeds[m][-1] >= _ENOUGH]
    lines.append(
        f"Of the peers that have {_ENOUGH} seeds ({', '.join(judged)}), the best each time:"
    )
    lines += ["", *(_claim(tasks, n) for n in ("50", "100"))]
    still = [m for m in ("optuna-gp", "ax") if m not in judged]
    if still:
        lines += ["", f"Whether `gp` keeps up with {' and '.join(still)} is not decided yet."]
    return "\n".join(lines)


def _claim(tasks: dict[str, Any], n: str) -> str:
    verdicts = {task: t["verdicts"][n] for task, t in tasks.items() if n in t["verdicts"]}
    near = [task for task, v in verdicts.items() if v["within_0.1"]]
    far = [
        f"{task} ({v['gap']:+.2f} to {v['best_peer']}, p = {v['p_value']:.2g})"
        for task, v in verdicts.items()
        if not v["within_0.1"]
    ]
    ties = sum(v["win_or_tie"] for v in verdicts.values())
    line = (
        f"- After {n} evaluations `gp` is within 0.1 of that peer's median, or ahead, on "
        f"{len(near)} of {len(verdicts)} functions, and not significantly behind it on {ties}."
    )
    return line + (f" Behind: {', '.join(far)}." if far else "")
