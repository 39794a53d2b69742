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


def faq(document: dict[str, Any], where: str) -> str:
    r = document["results"]
    speeds = ", ".join(
        f"`{name}` embeds {value:,.0f} tokens"
        for name, value in r["embedded_tokens_per_cpu_s"].items()
    )
    rows = [
        f"| {name} | {' | '.join(f'{some[k]:.0%}' for k in ('1', '5', '20', '40'))} |"
        for name, some in r["retrieval"].items()
    ]
    told = r["answers"]
    best = [
        row["mcts"]["score"] >= max(one["score"] for one in row.values()) - 1e-9
        for part in ("single", "pairs")
        for by_budget in r[part].values()
        for row in by_budget.values()
    ]
    return "\n".join(
        [
            f"Python's documentation: {r['chunks']:,} chunks, {r['tokens']:,} tokens, and the "
            f"{r['questions']} questions of its FAQ, whose answers stand among them without their "
            "headings. A chunk of the answer is among the first:",
            "",
            "| | 1 | 5 | 20 | 40 |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            "Of 40 retrieved by `bm25 + minilm-l6`, scored by `EmbeddingReranker`: questions for "
            "which each part has a chunk of its answer, the share of the prompt that is answer, "
            "and used tokens in brackets. Single questions:",
            "",
            *_table("found, precision", r["single"]["minilm-l6"], _found),
            "",
            "Two questions at once:",
            "",
            *_table("found, precision", r["pairs"]["minilm-l6"], _found),
            "",
            f"The highest score is that of `mcts` in {sum(best)} of {len(best)} cases, those by "
            f"words included. Answers of SmolLM2-135M from {told['budget']} tokens, ROUGE-1 F "
            f"against the FAQ's over {told['questions']} questions: {_interval(told['mcts'])} from "
            f"`mcts`, {_interval(told['topk'])} from `topk`, {_interval(told['nothing'])} from "
            "nothing.",
            "",
            f"On one core {speeds} a second. {where}; `benchmarks/text/bench_faq.py`.",
        ]
    )


def _found(one: dict[str, Any]) -> str:
    found, precision = one["found"]["value"], one["precision"]["value"]
    return f"{found:.0%}, {precision:.0%} ({one['tokens']:.0f})"


def _interval(one: dict[str, float]) -> str:
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def agent(document: dict[str, Any], where: str) -> str:
    r = document["results"]
    worth, difference = r["worth"], r["agent_minus_single"]
    verdict = "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else "equal"
    return (
        f"On the FAQ's questions (8 settings, {r['tested']} tests on questions that nothing was "
        f"learned from) the agent's choices are worth {worth['agent']['value']:.3f} of ROUGE-1 F, "
        f"the best single setting {worth['best single']['value']:.3f}, one by chance "
        f"{worth['chance']['value']:.3f}, and the best of each question in hindsight "
        f"{worth['hindsight']['value']:.3f}. Agent less single setting: {_interval(difference)}: "
        f"{verdict}. {where}; `benchmarks/text/bench_rag_agent.py`."
    )


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "text_faq": ("text_faq", faq),
    "text_rag": ("text_rag", chosen),
    "text_rag_agent": ("text_rag_agent", agent),
}
