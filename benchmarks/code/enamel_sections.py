"""The numbers of the page on evaluation, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]

_ALL = 142


def enamel(document: dict[str, Any], where: str) -> str:
    """References and canonical solutions, by both evaluators."""
    summary = document["results"]["summary"]
    load = document["machine"]["load_average"][0]
    cores = document["machine"]["logical_cores"]
    count = summary["problems"]
    which = f"all {count}" if count == _ALL else f"{count} of the {_ALL}, drawn at random"
    lines = [
        f"| ENAMEL's problems ({which}), with two busy loops | Sharpen | enam 0.2.0 |",
        "| --- | ---: | ---: |",
    ]
    both = [summary[name] for name in ("sharpen", "enam") if name in summary]

    def row(text: str, cell: Callable[[dict[str, Any]], str]) -> None:
        cells = [cell(one) for one in both]
        lines.append(f"| {text} | {' | '.join(cells)} |")

    def interval(one: dict[str, float]) -> str:
        return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"

    row("eff@1 of the references, which should be 1", lambda one: interval(one["reference"]))
    row("references more than 0.1 off 1", lambda one: str(one["far_off"]))
    row("eff@1 of HumanEval's canonical solutions", lambda one: interval(one["canonical"]))
    row(
        f"reference ranked above where it is at least 1.1 x as fast ({summary['faster']} problems)",
        lambda one: f"{one['ranked_right'] / summary['faster']:.0%}",
    )
    row("canonical solutions that pass", lambda one: str(one["canonical_passed"]))
    row("seconds for all", lambda one: f"{one['seconds']:.0f}")
    lines += [
        "",
        f"Sharpen by processor time in sandboxes, enam by the wall clock in one process, in turn on"
        f" each problem. The machine had a load of {load:.1f} on {cores} cores. The problems are"
        f" those of `enamel.csv` in the authors' repository. {where};"
        " `benchmarks/code/bench_enamel.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "code_enamel": ("code_enamel", enamel),
}
