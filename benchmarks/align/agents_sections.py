"""The numbers of the page on agents that a language model is, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def agents_lm(document: dict[str, Any], where: str) -> str:
    """Success after learning by heart, and from a model's own episodes."""
    r, config = document["results"], document["config"]
    lines = [
        "| world | untrained | by heart | from its own episodes | rows learnt by heart |"
        " batches of episodes | minutes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for world, one in r.items():
        shares = " | ".join(
            f"{own['value']:.2f} ({own['low']:.2f}-{own['high']:.2f})"
            for own in one["success"].values()
        )
        minutes = sum(one["seconds"].values()) / 60
        lines.append(
            f"| {world} | {shares} | {one['rows']} | {len(one['curve'])} | {minutes:.0f} |"
        )
    grpo = config["grpo"]
    lines += [
        "",
        f"Success on {config['judged']} tasks that nothing was learnt from, with 95 % intervals."
        f" Our tiny model (3.1 M parameters), all trained; {grpo['batch']} tasks a batch,"
        f" {grpo['generations']} episodes of each; one thread, beside other work. {where};"
        " `benchmarks/align/bench_agents_lm.py`.",
    ]
    return "\n".join(lines)


def instructions(document: dict[str, Any], where: str) -> str:
    """What a pretrained model does with instructions and without."""
    config = document["config"]
    lines = [
        "| instructions | success | 95 % | turns | forbidden something |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {one['success']['value']:.2f} | {one['success']['low']:.2f}-"
        f"{one['success']['high']:.2f} | {one['steps']:.1f} | {one['violations']:.0%} |"
        for name, one in document["results"].items()
    ]
    lines += [
        "",
        f"SmolLM2 135M as it is, in `retrieval`: {config['judged']} tasks, the likeliest tokens,"
        f" {config['max_tokens']} a turn. {where}; `benchmarks/align/bench_instructions.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "align_agents_lm": ("align_agents_lm", agents_lm),
    "align_instructions": ("align_instructions", instructions),
}
