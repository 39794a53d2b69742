"""What the page on prompts says of a real small model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def _between(one: dict[str, float]) -> str:
    return f"{one['value']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"


def smollm2(document: dict[str, Any], where: str) -> str:
    r = document["results"]
    some = next(iter(r["ways"].values()))
    rows = [
        f"| `{name}` | {one['before']['value']:.1%} | {_between(one['after'])} |"
        f" {100 * one['difference']['value']:+.0f} points | {one['judgements'] // r['seeds']} |"
        for name, one in [*r["ways"].items(), ("select + mutation, by replies", r["replies"])]
    ]
    return "\n".join(
        [
            f"SmolLM2-135M on the 120 restaurant reviews of `examples/text/sentiment.yaml`, parted "
            f"anew {r['seeds']} times, {r['budget']} full evaluations each; accuracy on "
            f"{some['tested']} reviews that nothing was chosen by:",
            "",
            "| `io + eo` | first prompt | found prompt | difference | judgements |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            f"{where}; `benchmarks/text/bench_smollm2.py`.",
        ]
    )


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "text_smollm2": ("text_smollm2", smollm2),
}
