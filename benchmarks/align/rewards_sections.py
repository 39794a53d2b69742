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


def perf(document: dict[str, Any], where: str) -> str:
    """Right and faster programs by how the model was tuned."""
    summary, config = document["results"]["summary"], document["config"]
    lines = ["| tuned by | %Correct | %Opt | least | most |", "| --- | ---: | ---: | ---: | ---: |"]
    for way, shares in summary.items():
        right, faster = shares["correct"], shares["optimized"]
        lines.append(
            f"| {way} | {100 * right['median']:.0f} | {100 * faster['median']:.0f} |"
            f" {100 * faster['min']:.0f} | {100 * faster['max']:.0f} |"
        )
    first, second = config["steps"]
    lines += [
        "",
        f"{first} steps, then {second}; medians of {len(config['seeds'])} seeds, least and most of"
        f" %Opt. {where}; `benchmarks/align/bench_perf.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "align_perf": ("align_perf", perf),
    "align_rewards": ("align_rewards", rewards),
}
