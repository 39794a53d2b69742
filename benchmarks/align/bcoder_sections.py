"""The numbers of the page on B-Coder, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def bcoder(document: dict[str, Any], where: str) -> str:
    """How often the chosen program is right, by the way it is chosen."""
    results, config = document["results"], document["config"]
    summary, runs = results["summary"], results["runs"]
    lines = [
        "| chosen | right, held out | least | most | Spearman with the reward |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for way, middle in summary["accuracy"].items():
        values = [run["accuracy"][way] for run in runs]
        told = summary["spearman"].get(way)
        lines.append(
            f"| {way} | {middle:.0%} | {min(values):.0%} | {max(values):.0%} |"
            f" {'–' if told is None else f'{told:.2f}'} |"
        )
    least = min(run["lift"] for run in runs)
    rank = min(run["spearman"]["score, conservative"] for run in runs)
    wanted = config["wanted"]
    lines += [
        "",
        f"Medians of {len(runs)} seeds, least and most; {config['drawn']} candidates of each of"
        f" {config['rows']['held_out']} prompts. The score is right at least {1 + least:.2f} x as"
        f" often as a choice at random (wanted {1 + wanted['lift']:.2f} x), and its correlation is"
        f" {rank:.2f} at least (wanted {wanted['spearman']:g}). {where};"
        " `benchmarks/align/bench_bcoder.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "align_bcoder": ("align_bcoder", bcoder),
}
