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


def stalls(document: dict[str, Any], where: str) -> str:
    """How long the training loop waits, by deadline and staleness."""
    summary, config = document["results"]["summary"], document["config"]
    lines = [
        "| deadline | `staleness` | an iteration without waiting | waited | most | speed |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for deadline, ways in summary.items():
        at_once = ways["0"]["seconds"]["median"]
        for staleness, own in ways.items():
            lines.append(
                f"| {deadline} s | {staleness} | {own['iteration_s']['median']:.1f} s |"
                f" {own['waited']['median']:.1%} | {own['waited']['max']:.1%} |"
                f" {at_once / own['seconds']['median']:.2f} x |"
            )
    both = [way for ways in document["results"]["runs"].values() for way in ways.values()]
    runs = [one for way in both for one in way]
    hung, made = sum(one["hung"] for one in runs), sum(one["made"] for one in runs)
    lines += [
        "",
        f"GRPO, {config['completions']} completions an iteration, {config['iterations']} iterations"
        f" from the first on, {config['workers']} workers, a model of {config['num_layers']} layers"
        f" of {config['hidden_size']} on one thread; {hung / made:.1%} of {made} rewards hung, and"
        f" {sum(one['late'] for one in runs)} that do not were late, too. Shares of the whole time,"
        f" median and most of {config['repeats']} runs. {where};"
        " `benchmarks/align/bench_stalls.py`.",
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
    "align_stalls": ("align_stalls", stalls),
}
