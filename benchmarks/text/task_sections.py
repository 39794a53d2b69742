"""The numbers of the page on programs about whole tasks, from ``benchmarks/results``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]

_PROGRAMS = {
    "square": "`((x + a) * b - c) ** 2`, one number",
    "fit": "`(x + a) * b - c` through five points, three numbers",
    "valley": "Rosenbrock's function, two numbers",
    "mixed": "a choice, a whole number and a number",
}
_POLICIES = {
    "pole": "CartPole-v1, steps of 500",
    "car": "MountainCarContinuous-v0, reward",
    "ships": "hidden ships on 8 x 8 cells, shots (negative)",
}


def tasks(document: dict[str, Any], where: str) -> str:
    """Whole tasks improved by search, and the same script in two OptoPrimes."""
    r = document["results"]
    seeds = document["config"]["seeds"]
    lines = [
        f"| loss left, median over {seeds} seeds (within 0.001 / 0.000001) | evaluations |"
        " `SearchProposer` | TPE | random |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in r["numeric"].items():
        cells = []
        for way in ("search", "tpe", "random"):
            one = row["ways"][way]
            near, nearer = (sum(k is not None for k in one[key]) for key in ("to_1e-3", "to_1e-6"))
            cells.append(f"{statistics.median(one['loss']):.1e} ({near} / {nearer})")
        lines.append(f"| {_PROGRAMS[name]} | {row['evaluations']} | {' | '.join(cells)} |")
    tuned = r["tuning"]
    means = {way: statistics.mean(c[-1] for c in curves) for way, curves in tuned["curves"].items()}
    errors = {
        way: statistics.stdev(c[-1] for c in curves) / len(curves) ** 0.5
        for way, curves in tuned["curves"].items()
    }
    told = ", ".join(f"{way} {mean:.4f} ± {errors[way]:.4f}" for way, mean in means.items())
    lines += [
        "",
        "Scaling, kernel and four numbers of kernel ridge regression on 442 patients, R² of"
        f" cross-validation after {tuned['evaluations']} evaluations, mean and standard error"
        f" ({tuned['start']:.3f} at first, {tuned['best']:.3f} the best of all): {told}.",
        "",
        "| policy: code with numbers | evaluations | at first | best, median | mark | reached by |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in r["policies"].items():
        best = statistics.median(run["best"] for run in row["runs"])
        lines.append(
            f"| {_POLICIES[name]} | {row['evaluations']} | {row['start']:.1f} | {best:.1f} |"
            f" {row['mark']:.0f} | {row['solved']:.0%} |"
        )
    search, random = (r["repair"]["summary"][way] for way in ("search", "random order"))
    same = sum(one["trace-opt"]["same_losses"] for one in r["scripted"].values())
    ratios = ", ".join(f"{one['ratio']:.1f}" for one in r["scripted"].values())
    kept = document["config"].get("kept", {})
    earlier = ", ".join(f"{part} of {one['date'][:10]}" for part, one in kept.items())
    if earlier:
        where += " (parts that search of numbers does not touch are kept from an earlier run:"
        where += f" {earlier})"
    lines += [
        "",
        "The marks are those at which gymnasium calls a task solved, and about what a rule written"
        " by hand needs for the ships; each best policy was judged on 100 fresh episodes.",
        "",
        f"Of {search['programs']} HumanEval programs with one change that fails an example and a"
        f" hidden test, {search['repaired']:.0%} are repaired from the examples in their text"
        f" within"
        f" {document['config']['repair_evaluations']} proposals, half of these within"
        f" {search['evaluations']:.0f}; {search['wrong']:.1%} got a change that passes the examples"
        f" and is wrong. The same changes in random order repair {random['repaired']:.0%} and need"
        f" {random['evaluations']:.0f}. Of programs with a statement missing or moved"
        f" {search['kinds']['statement']['repaired']:.0%} are repaired: what was deleted is no"
        " small change away.",
        "",
        f"One script in place of a model gives both OptoPrimes the same losses in {same} of"
        f" {seeds * len(r['scripted'])} runs; a step of trace-opt takes {ratios} times as long."
        f" {where}; `benchmarks/text/bench_tasks.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "text_tasks": ("text_tasks", tasks),
}
