"""The numbers of the page on prompts, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["SECTIONS"]

_PEERS = {
    "gepa": "gepa 0.1.4",
    "MIPROv2": "MIPROv2, dspy 3.4.1",
    "MIPROv2, instructions": "MIPROv2, dspy 3.4.1",
    "BootstrapFewShotWithRandomSearch": "BootstrapFewShotWithRandomSearch, dspy 3.4.1",
    "textgrad": "textgrad 0.1.8",
    "OptoPrime": "OptoPrime, trace-opt 0.1.3.8",
}
_TITLES = {
    "instructions": "instructions",
    "noisy": "instructions, two of five answers at random",
    "both": "instructions and exemplars",
}


def _between(found: Mapping[str, float]) -> str:
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _dspy_seeds(results: Mapping[str, Any]) -> int:
    table = next(iter(results["tasks"]["both"].values()))
    return len(table["peers"]["MIPROv2"]["regrets"])


def oracle(document: dict[str, Any], where: str) -> str:
    """Ways of searching on models whose best prompt is known, beside other packages."""
    r = document["results"]
    budgets = list(r["tasks"]["instructions"])
    lines: list[str] = []
    for task, title in _TITLES.items():
        table = r["tasks"][task]
        lines += [
            f"| {title}: regret after | {' | '.join(f'{b} evaluations' for b in budgets)} |"
            " success | calls to reach | over budget |",
            "| --- | " + "---: | " * (len(budgets) + 3),
        ]
        for group in ("ours", "peers"):
            for name in table[budgets[0]][group]:
                cells = [table[b][group][name] for b in budgets]
                shown = " | ".join(f"{c['regret']:.3f} ± {c['standard_error']:.3f}" for c in cells)
                last = cells[-1]
                reach = last["median_calls_to_reach"]
                over = sum(c["over_budget"] for c in cells)
                label = f"`{name}`" if group == "ours" else _PEERS[name]
                runs = sum(len(c["regrets"]) for c in cells)
                lines.append(
                    f"| {label} | {shown} | {100 * last['success']['value']:.0f} % |"
                    f" {'-' if reach is None else f'{reach:.0f}'} | {over} of {runs} |"
                )
        lines.append("")
    worst = []
    for task, table in r["tasks"].items():
        for budget in budgets:
            for pair, found in table[budget]["less_regret"].items():
                if found["high"] < 0:
                    mine, other = pair.split(" | ")
                    worst.append(
                        f"`{mine}` after {budget} ({_TITLES[task]}) than {_PEERS[other]}:"
                        f" {_between(found)}"
                    )
    last = r["tasks"]["instructions"][budgets[-1]]
    spent = ", ".join(
        f"{said} {1000 * last[group][name]['cpu_s']:.0f}"
        for said, group, name in (
            ("`gepa`", "ours", "gepa"),
            ("gepa", "peers", "gepa"),
            ("`mipro`", "ours", "mipro"),
            ("MIPROv2", "peers", "MIPROv2, instructions"),
        )
    )
    lost = "here: " + "; ".join(worst) if worst else "nowhere"
    lines += [
        "Regret is by how much the chance of a right answer under the chosen prompt is behind that"
        f" under the best one: mean and standard error over {document['config']['seeds']} seeds"
        f" (dspy {_dspy_seeds(r)}). Success: at most 0.05 behind, and the median number of answers"
        f" until such a prompt was first asked, both after {budgets[-1]} evaluations (- where half"
        " never did). Of the pairs of like methods that are compared seed by seed, ours has more"
        f" regret, by the 95 % interval, {lost}. Milliseconds of the processor for a search of"
        f" {budgets[-1]} evaluations for instructions: {spent}. {where};"
        " `benchmarks/text/bench_oracle.py`.",
    ]
    return "\n".join(lines)


def prompts(document: dict[str, Any], where: str) -> str:
    """Instructions or exemplars, for a real classifier."""
    r, config = document["results"], document["config"]
    lines = ["| `io + eo` | test accuracy | on validation |", "| --- | ---: | ---: |"]
    for way, row in r["ways"].items():
        t = row["test"]
        name, _, rounds = way.partition(" x ")
        label = f"`{name}`, {rounds} rounds" if rounds else f"`{name}`"
        lines.append(
            f"| {label} | {t['value']:.3f} [{t['low']:.3f}, {t['high']:.3f}] |"
            f" {row['validation']:.3f} |"
        )
    lines += ["", "| | difference of test accuracy | |", "| --- | ---: | --- |"]
    for said, found in r["findings"].items():
        a, b = found["ways"]
        lines.append(f"| {said} | {_between(found)} | `{a}`, `{b}` |")
    train, val, test = config["sizes"]
    lines += [
        "",
        f"Docstrings of six packages of Python's standard library; {config['seeds']} draws of"
        f" {train} training, {val} validation and {test} test examples, {config['budget']} full"
        f" evaluations each, {config['shown']} exemplars; means with 95 % intervals over the draws."
        f" {where}; `benchmarks/text/bench_prompts.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "text_prompts": ("text_prompts", prompts),
    "text_oracle": ("text_oracle", oracle),
}
