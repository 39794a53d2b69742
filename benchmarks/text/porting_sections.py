"""The numbers of the page on porting, from ``benchmarks/results``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def parity(document: dict[str, Any], where: str) -> str:
    """Programs in the names of other packages, and a batch of slow calls."""
    r = document["results"]
    ours, theirs = r["programs"], r["textgrad"]
    lines = [
        "| program in TextGrad's names | calls here | calls in textgrad | values that are set |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, row in ours.items():
        same_calls = Counter(row["calls"]) == Counter(theirs[name]["calls"])
        same_values = row["values"] == theirs[name]["values"]
        said = "equal" if same_values and same_calls else "differ"
        lines.append(f"| {name} | {len(row['calls'])} | {len(theirs[name]['calls'])} | {said} |")
    trace, opto = r["trace_programs"], r["trace-opt"]["programs"]
    equal = sum(trace[name]["values"] == opto[name]["values"] for name in trace)
    b = r["batch"]
    lines += [
        "",
        f"A script answers, the source of the programs is one. Of {len(trace)} programs in Trace's"
        f" names {equal} set the values that trace-opt {r['trace-opt']['version']} sets."
        f" One step on {b['examples']} examples with a model that takes {1000 * b['call_s']:.0f} ms"
        f" a call ({b['calls']} calls, {b['concurrency']} at once):"
        f" {b['sharpen_s']['median']:.2f} s, {b['of_ideal']:.2f} times the shortest possible;"
        f" textgrad {r['version']}, one call after another, {b['textgrad_s']:.1f} s."
        f" {where}; `benchmarks/text/textgrad_parity.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "text_textgrad_parity": ("text_textgrad_parity", parity),
}
