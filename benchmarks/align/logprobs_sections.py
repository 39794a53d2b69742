"""The numbers of the page on losses, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def logprobs(document: dict[str, Any], where: str) -> str:
    """Time and memory of a step beside whole logits and the peer's chunks."""
    lines = [
        "| vocabulary, type | rows | memory | whole logits | TRL, chunked | time / whole logits |"
        " time / TRL |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, one in document["results"].items():
        peaks, ratios = one["peak_bytes"], one["ratios"]
        rows = document["config"][case]["rows"]
        lines.append(
            f"| {case} | {rows} | {peaks['Sharpen'] / 1e6:.0f} MB | "
            f"{peaks['whole logits'] / 1e6:.0f} MB | {peaks['TRL, chunked'] / 1e6:.0f} MB | "
            f"{1 / ratios['whole logits']:.2f} x | {1 / ratios['TRL, chunked']:.2f} x |"
        )
    lines += [
        "",
        "Forward and backward, one thread, gradients of hidden states and head included; below 1 we"
        f" are faster. {where}; `benchmarks/align/bench_logprobs.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "align_logprobs": ("align_logprobs", logprobs),
}
