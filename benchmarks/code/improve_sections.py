"""The numbers of the page on ``sharpen improve``, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]

_NAMES = {
    "slow": "slow solutions of our problems",
    "best": "best known solutions of our problems",
    "humaneval": "HumanEval's canonical solutions, every eighth",
    "traps": "traps: the obvious rewrite is wrong",
    "algorithms": "every fourth function of the package algorithms with loops in loops",
    "pyperformance": "functions with a tenth of the time of a program of pyperformance",
}


_FOREIGN = ("humaneval", "algorithms", "pyperformance")


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
    foreign = [row for row in r["rows"] if row["set"] in _FOREIGN and "error" not in row]
    better = sorted((row for row in foreign if row["improved"]), key=lambda row: -row["speedup"])
    told = ", ".join(f"`{row['name']}` {row['speedup']:.3g} x" for row in better)
    none = sum(row.get("why") == "no rule applies" for row in foreign)
    minutes = r["seconds"] / 60
    ended = r["seconds"] < document["config"]["seconds"]
    whole = "All of each set, in" if ended else "Of each set what could be tried in"
    lines += [
        "",
        f"Of {len(foreign)} functions that others have written, {none} show nothing that a rule"
        f" applies to; gains: {told or 'none'}.",
        "",
        "A function that is not improved counts as 1 x. False gains among the best known solutions:"
        f" {best.get('false')}. A patch is wrong where it differs on inputs that were hidden: other"
        " seeds of the problems' generators, other values like those that were seen. With the"
        f" problems' own largest inputs, {held} of {len(again)} gains are 1.1 x or more. {unsure}"
        " more that seemed faster were refused, since the machine was too busy for enough pairs of"
        f" times. Seconds are wall time at a load of {load:.1f} on"
        f" {document['machine']['logical_cores']} cores, as a job of low priority; the longest took"
        f" {slowest:.0f} s. {whole} {minutes:.0f} minutes. {where};"
        " `benchmarks/code/bench_improve.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "code_improve": ("code_improve", gains),
}
