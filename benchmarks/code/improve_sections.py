"""The numbers of the page on ``sharpen improve``, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]

_NAMES = {
    "slow": "slow solutions of our problems",
    "best": "best known solutions of our problems",
    "humaneval": "HumanEval's canonical solutions",
    "traps": "traps: the obvious rewrite is wrong",
    "algorithms": "functions of the package algorithms",
    "pyperformance": "hot functions of pyperformance",
}


def gains(document: dict[str, Any], where: str) -> str:
    """Shares, means, wrong patches and times."""
    r = document["results"]
    lines = [
        "| by rules alone | functions | ≥ 1.1 x | ≥ 2 x | geometric mean | wrong patches |"
        " s each |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for group, row in r["summary"].items():
        usable = row["functions"] - row["refused"]
        refused = f" (+{row['refused']} refused)" if row["refused"] else ""
        cells = (
            _NAMES[group],
            f"{usable}{refused}",
            f"{row['share_1.1']:.0%}",
            f"{row['share_2']:.0%}",
            f"{row['geometric_mean']:.2f} x",
            str(row["wrong"]),
            f"{row['median_seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    best = r["summary"].get("best", {})
    slowest = max(row["longest_seconds"] for row in r["summary"].values())
    again = [row["hidden_speedup"][0] for row in r["rows"] if row.get("hidden_speedup")]
    held = sum(1 for one in again if one >= 1.1)
    unsure = sum("[0, inf]" in row.get("why", "") for row in r["rows"])
    load = document["machine"]["load_average"][0]
    lines += [
        "",
        "A function that is not improved counts as 1 x. False gains among the best known solutions:"
        f" {best.get('false')}. A patch is wrong where it differs on inputs that were hidden: other"
        " seeds of the problems' generators, other values like those that were seen. With the"
        f" problems' own largest inputs, {held} of {len(again)} gains are 1.1 x or more. {unsure}"
        " more that seemed faster were refused, since the machine was too busy for enough pairs of"
        f" times. Seconds are wall time at a load of {load:.1f} on"
        f" {document['machine']['logical_cores']} cores, as a job of low priority; the longest took"
        f" {slowest:.0f} s. Of each set as many functions as {r['seconds'] / 60:.0f} minutes"
        f" allowed. {where}; `benchmarks/code/bench_improve.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "code_improve": ("code_improve", gains),
}
