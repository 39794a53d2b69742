"""The numbers of the page on programs, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]

_SHAPES = {
    "chain": "a function of the last value",
    "operators": "`y + 1`",
    "shared": "a function that is also given the parameter",
}


def graph(document: dict[str, Any], where: str) -> str:
    """Recording and sending feedback back."""
    r = document["results"]
    longest = max(row["length"] for row in r["chains"])
    lines = [
        "| milliseconds to record, and to collect the subgraph | operations | Sharpen | trace-opt |"
        " ratio of the sums |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in r["chains"]:
        if row["length"] not in (2000, longest):
            continue
        ours, theirs = (
            f"{1e3 * row[name]['record_s']:.1f} + {1e3 * row[name]['backward_s']:.1f}"
            for name in ("sharpen", "trace-opt")
        )
        lines.append(
            f"| {_SHAPES[row['shape']]} | {row['length']:,} | {ours} | {theirs} |"
            f" {row['ratio']:.0f} x |"
        )
    alone = r["alone"][-1]
    spent = alone["sharpen"]["record_s"] + alone["sharpen"]["backward_s"]
    tower = r["towers"][-1]
    imports = r["import_s"]
    told = ", ".join(
        f"{name} {value:.1f}" for name, value in imports.items() if value and name != "sharpen.text"
    )
    lines += [
        "",
        f"trace-opt's time grows with the square of the length; {alone['length']:,} operations take"
        f" {spent:.2f} s here. Feedback sent back through {tower['depth']} sums of a text with"
        f" itself: {tower['sharpen']['characters']:,} characters and"
        f" {1e3 * tower['sharpen']['seconds']:.1f} ms, textgrad"
        f" {tower['textgrad']['characters'] / 1e6:,.0f} million characters and"
        f" {tower['textgrad']['seconds']:.1f} s. Importing takes"
        f" {imports['sharpen.text']:.2f} s ({told} without a network). {where};"
        " `benchmarks/text/bench_graph.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "text_graph": ("text_graph", graph),
}
