"""Chunks of Python's documentation for the questions of its FAQ: what each way of choosing finds.

    SHARPEN_ASSETS=FOLDER python -m benchmarks.text.bench_faq

The questions are the FAQ's own, the labels are where their answers stand (see ``python_faq.py``).
*retrieval*: how often a chunk of the answer is among the first k, by words (BM25), by vectors of
``wordllama`` and of ``minilm-l6``, and by both lists. *chosen*: of 40 retrieved chunks, what each
method takes for single questions and for two at once; ``found`` is the share of questions for which
every part has a chunk of its answer, ``precision`` the share of the prompt's tokens that stand in
an answer, ``rouge`` the share of the answer's words that the prompt has (ROUGE-1 recall). Intervals
are of 95 %. *answers*: what SmolLM2 makes of the chosen chunks, as ROUGE-1 F against the answer.
"""

from __future__ import annotations

import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.common import OURS, arguments, save
from benchmarks.text.python_faq import Question, load

from sharpen.core.embedding import open_embedder
from sharpen.text.prompts.confidence import mean_interval, paired_difference
from sharpen.text.rag import (
    BM25Index,
    Chunk,
    EmbeddingIndex,
    EmbeddingReranker,
    HybridIndex,
    LexicalCoverage,
    select,
)

METHODS = ("mcts", "beam", "greedy", "mmr", "knapsack", "topk")
BUDGETS = (150, 250, 500, 1000)
EMBEDDERS = ("wordllama", "minilm-l6")
RETRIEVED = 40
PAGES = 60
TEMPLATE = "{{context}}\n\nQuestion: {{question}}\nAnswer:"

Asked = Sequence[tuple[Question, ...]]


def retrieval(indexes: dict[str, Any], questions: Sequence[Question]) -> dict[str, Any]:
    """How often an answer's chunk is among the first."""
    found: dict[str, Any] = {}
    for name, index in indexes.items():
        hits: dict[int, list[bool]] = {k: [] for k in (1, 5, 20, 40)}
        for question in questions:
            ids = [chunk.id for chunk, _ in index.search(question.text, max(hits))]
            for k, some in hits.items():
                some.append(bool(set(ids[:k]) & set(question.chunks)))
        found[name] = {str(k): statistics.mean(some) for k, some in hits.items()}
    return found


def words(text: str) -> Counter[str]:
    """Words and how often."""
    return Counter(re.findall(r"\w+", text.lower()))


def rouge(text: str, reference: str) -> tuple[float, float]:
    """ROUGE-1: recall and F."""
    a, b = words(text), words(reference)
    shared = (a & b).total()
    recall, precision = shared / max(b.total(), 1), shared / max(a.total(), 1)
    return recall, 2 * recall * precision / max(recall + precision, 1e-12)


def chosen(index: HybridIndex, rerankers: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """What methods take, by reranker and budget."""
    found: dict[str, Any] = {}
    retrieved: list[list[Chunk]] = []
    for parts in asked:
        text = " ".join(q.text for q in parts)
        retrieved.append([chunk for chunk, _ in index.search(text, RETRIEVED)])
    for name, reranker in rerankers.items():
        found[name] = {}
        for budget in BUDGETS:
            rows = {
                method: _measure(reranker, budget, method, asked, retrieved) for method in METHODS
            }
            for row in rows.values():
                row["questions"] = len(asked)
                for key in ("found", "precision", "rouge"):
                    row[key] = vars_of(mean_interval(row[key]))
            found[name][str(budget)] = rows
    return found


def _measure(
    reranker: Any, budget: int, method: str, asked: Asked, retrieved: list[list[Chunk]]
) -> dict[str, Any]:
    hits: list[float] = []
    shares: list[float] = []
    recalls: list[float] = []
    tokens: list[int] = []
    scores: list[float] = []
    begin = time.process_time()
    for parts, candidates in zip(asked, retrieved, strict=True):
        text = " ".join(q.text for q in parts)
        one = select(text, candidates, budget, method=method, reranker=reranker)
        gold = {name for q in parts for name in q.chunks}
        held = {chunk.id: chunk.tokens for chunk in candidates}
        hits.append(float(all(set(q.chunks) & set(one.ids) for q in parts)))
        shares.append(sum(held[i] for i in one.ids if i in gold) / max(one.tokens, 1))
        recalls.append(rouge(one.text, " ".join(q.answer for q in parts))[0])
        tokens.append(one.tokens)
        scores.append(one.score)
    return {
        "found": hits,
        "precision": shares,
        "rouge": recalls,
        "tokens": statistics.mean(tokens),
        "score": statistics.mean(scores),
        "cpu_ms": 1e3 * (time.process_time() - begin) / len(asked),
    }


def vars_of(interval: Any) -> dict[str, float]:
    """An interval as plain data."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def answers(
    index: HybridIndex, reranker: Any, questions: Sequence[Question], budget: int
) -> dict[str, Any]:
    """What a small model answers from what mcts and topk have chosen, and from nothing."""
    from sharpen.core.lm import LM
    from sharpen.text.prompts.template import render

    lm = LM("local:smollm2")
    scores: dict[str, list[float]] = {"mcts": [], "topk": [], "nothing": []}
    for question in questions:
        candidates = [chunk for chunk, _ in index.search(question.text, RETRIEVED)]
        for name, values in scores.items():
            context = ""
            if name != "nothing":
                found = select(question.text, candidates, budget, method=name, reranker=reranker)
                context = found.text
            prompt = render(TEMPLATE, {"context": context, "question": question.text})
            values.append(rouge(lm(prompt, max_tokens=96), question.answer)[1])
    found_all: dict[str, Any] = {n: vars_of(mean_interval(v)) for n, v in scores.items()}
    difference = paired_difference(scores["mcts"], scores["topk"])
    return found_all | {
        "mcts_minus_topk": vars_of(difference),
        "questions": len(questions),
        "budget": budget,
    }


def main() -> int:
    args = arguments(__doc__, "text_faq")
    quick = args.quick
    chunks, questions = load(pages=0 if quick else PAGES)
    bm25 = BM25Index(chunks)
    indexes: dict[str, Any] = {"bm25": bm25}
    speed: dict[str, float] = {}
    for name in EMBEDDERS[: 1 if quick else None]:
        begin = time.process_time()
        meaning = EmbeddingIndex(chunks, open_embedder(name))
        speed[name] = sum(c.tokens for c in chunks) / (time.process_time() - begin)
        indexes[name] = meaning
        indexes[f"bm25 + {name}"] = HybridIndex(bm25, meaning)
    best = EMBEDDERS[0 if quick else 1]
    hybrid = indexes[f"bm25 + {best}"]
    rerankers = {"words": LexicalCoverage(bm25.weights()), best: EmbeddingReranker(indexes[best])}
    rng = random.Random(0)
    pairs = [tuple(rng.sample(questions, 2)) for _ in range(3 if quick else 200)]
    results: dict[str, Any] = {
        "chunks": len(chunks),
        "questions": len(questions),
        "tokens": sum(chunk.tokens for chunk in chunks),
        "embedded_tokens_per_cpu_s": speed,
        "retrieval": retrieval(indexes, questions),
        "single": chosen(hybrid, rerankers, [(q,) for q in questions]),
        "pairs": chosen(hybrid, rerankers, pairs),
    }
    if not quick:
        results["answers"] = answers(hybrid, rerankers[best], questions[:80], 500)

    def plot(figure: Any) -> None:
        panels = figure.subplots(1, 2)
        for axes, part in zip(panels, ("single", "pairs"), strict=True):
            for name in METHODS:
                rows = [results[part][best][str(b)][name] for b in BUDGETS]
                style = {"color": OURS, "lw": 2.5} if name == "mcts" else {"lw": 1.2}
                axes.plot(
                    [row["tokens"] for row in rows],
                    [row["found"]["value"] for row in rows],
                    "o-",
                    label=name,
                    **style,
                )
            axes.set(xlabel="tokens of the prompt", ylabel="answers found", title=part)
        panels[1].legend(frameon=False, fontsize=8)

    save(args, results, config={"budgets": BUDGETS, "retrieved": RETRIEVED}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
