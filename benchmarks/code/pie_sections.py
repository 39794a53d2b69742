"""The numbers of the page on training data, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def pie(document: dict[str, Any], where: str) -> str:
    """Copies, pairs, retrieval and the loop."""
    r, config = document["results"], document["config"]
    lines = [
        "| slow program against | programs | way | at least 1.1 x | median | largest |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    names = {"copies": f"{config['copies']} copies of itself", "pairs": "the reference"}
    for name, what in names.items():
        for way, one in r[name].items():
            lines.append(
                f"| {what} | {one['programs']} | {way} | {one['optimized']} |"
                f" {one['median']:.2f} | {one['largest']:.2f} |"
            )
    found, loop = r["retrieval"], r["loop"]
    lines += [
        "",
        f"Two processes kept the machine busy; times hold the interpreter's start. Of"
        f" {found['programs']} slow programs with other names, {found['first']} find their own pair"
        f" first. Effi-Code's loop, given the slow solution and then the reference of"
        f" {loop['problems']} problems, kept {loop['rows']} rows, {loop['faster']} of them with the"
        f" reference, {loop['median_speedup']:.0f} x faster in the median, in"
        f" {loop['seconds_a_problem']:.1f} s a problem. {where}; `benchmarks/code/bench_pie.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "code_pie": ("code_pie", pie),
}
