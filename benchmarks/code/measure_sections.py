"""The numbers of the page on measurement, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def wrong_answers(document: dict[str, Any], where: str) -> str:
    """How often a comparison is wrong on a loaded machine."""
    r, busy = document["results"], document["config"]["busy"]
    lines = [
        "| two programs | comparisons | wrong, `compare` | wrong, `timeit` |"
        " ratio, median | seconds, median | pairs, median |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, what in (("itself", "the same"), ("five_percent", "one does 5 % more")):
        one = r[name]
        ours, other = (_share(one[way]) for way in ("ours", "timeit"))
        lines.append(
            f"| {what} | {one['times']} | {ours} | {other} | {one['median_ratio']:.3f} |"
            f" {one['median_seconds']:.1f} | {one['median_pairs']:.0f} |"
        )
    lines += [
        "",
        f"{busy} processes kept the {document['machine']['logical_cores']} cores busy. Wrong is to"
        " call a program faster or slower than itself, and not to call one faster that does less;"
        f" intervals of 95 %. {where}; `benchmarks/code/bench_measure.py`.",
    ]
    return "\n".join(lines)


def _share(one: dict[str, Any]) -> str:
    low, high = (100 * one["interval"][side] for side in ("low", "high"))
    return f"{100 * one['wrong']:.0f} % [{low:.0f}, {high:.0f}]"


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "code_measure": ("code_measure", wrong_answers),
}
