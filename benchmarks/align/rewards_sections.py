"""The numbers of the page on rewards, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def rewards(document: dict[str, Any], where: str) -> str:
    """How long training waits, by workers and deadline."""
    summary, config = document["results"]["summary"], document["config"]
    cases: dict[str, dict[str, dict[str, float]]] = {}
    for name, one in summary.items():
        case, _, way = name.rpartition(", ")
        cases.setdefault(case, {})[way] = one
    lines = [
        "| workers, deadline | waited, a step ahead | most | waited, asked when needed |",
        "| --- | ---: | ---: | ---: |",
    ]
    for case, ways in cases.items():
        ahead, needed = ways["a step ahead"], ways["when needed"]
        lines.append(
            f"| {case} | {ahead['median']:.1%} | {ahead['max']:.1%} | {needed['median']:.1%} |"
        )
    lines += [
        "",
        f"{config['batch']} rewards a step of {config['step_s']:g} s, of which"
        f" {config['hangs']:.0%} hang; shares of the time of {config['steps']} steps, median and"
        f" most of {config['repeats']} runs. {sum(document['results']['late'].values())} rewards"
        f" that do not hang were late, too. {where}; `benchmarks/align/bench_rewards.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "align_rewards": ("align_rewards", rewards),
}
