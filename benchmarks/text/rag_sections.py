"""What pages say of the measured choice of chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def chosen(document: dict[str, Any], where: str) -> str:
    r = document["results"]
    rest, two = r["optimum"]["30 %"], r["optimum"]["2 %"]
    lines = [
        f"Of {rest['combinations_mean']:,.0f} combinations on average, `mcts` scores at most 30 % "
        f"and is within 1 % of the best for {rest['seeds_near']:.1%} of the seeds (mean share "
        f"{rest['mean']:.4f}, worst {rest['worst']:.3f}). Of {two['combinations_mean']:,.0f} it "
        f"scores 2 % and is within 5 % for {two['seeds_near']:.1%} (worst {two['worst']:.3f}).",
        "",
        *_table("share of the optimum", r["budgets"], lambda one: f"{one:.3f}"),
        "",
        "Questions that need two facts, among paraphrases, older facts that contradict, and "
        "distractors; right answers of a reader of the first mention. Scored by words "
        "(`LexicalCoverage`):",
        "",
        *_table("answered right", r["answers"], _right),
        "",
        "Scored by a stand-in for a model that understands which year is asked for, but does not "
        "know the answers:",
        "",
        *_table("answered right", r["answers_reading"], _right),
    ]
    speed = r["speed"]
    text = (
        f"`mcts` scores {speed['expansions_per_s']['median']:,.0f} combinations a second with "
        "`LexicalCoverage` on one core."
    )
    if "bm25s" in speed:
        peer = speed["bm25s"]
        text += (
            f" BM25 on {speed['documents']:,} short documents, beside bm25s {peer['version']} "
            f"(speed of ours / theirs, one after the other): {peer['index_ratio']:.2f} x to index, "
            f"{peer['search_ratio']:.2f} x to search."
        )
    return "\n".join([*lines, "", f"{text} {where}; `benchmarks/text/bench_rag.py`."])


def _right(one: dict[str, float]) -> str:
    return f"{one['right']:.0%} ({one['tokens']:.0f})"


def _table(what: str, rows: dict[str, Any], shown: Callable[[Any], str]) -> list[str]:
    """A row for each method, a column for each budget; used tokens in brackets."""
    names = list(next(iter(rows.values())))
    return [
        f"| {what}, budget | {' | '.join(f'{b} tokens' for b in rows)} |",
        f"| --- |{' ---: |' * len(rows)}",
        *(f"| `{n}` | {' | '.join(shown(row[n]) for row in rows.values())} |" for n in names),
    ]


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "text_rag": ("text_rag", chosen),
}
