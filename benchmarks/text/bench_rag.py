"""Chunks chosen for a prompt: near the optimum, right answers at equal tokens, and speed.

    python -m benchmarks.text.bench_rag

Four parts. *optimum*: utilities at random (relevance x position weight - pairwise redundancy -
length penalty) whose best is known by counting; the share of seeds within 1 % of it, for 30 % of
the evaluations, and within 5 % for 2 % of 13,699. *budgets*: the mean share of the optimum of each
method under budgets of tokens, 7 chunks. *answers*: planted facts; each question needs two, which
stand among paraphrases that repeat the first, older duplicates that contradict, and distractors. A
reader takes the first sentence that names subject and attribute; an answer is right if both are.
Chunks are scored by their words (``answers``), and by a stand-in for a model that understands which
year is asked for (``answers_reading``).
*speed*: combinations scored a second, and BM25 beside bm25s 0.3.16 (``BENCH_TEXT_PYTHON``).
"""

from __future__ import annotations

import random
import re
import statistics
import sys
import time
from itertools import combinations
from typing import Any

import numpy as np
from benchmarks.common import OURS, arguments, save, summarize
from benchmarks.text.beside import ask, has_peers

from sharpen.text.rag import METHODS, BM25Index, ChunkSearch, LexicalCoverage, select
from sharpen.text.rag.pool import Pool
from sharpen.text.rag.rerankers import Scorer
from sharpen.text.rag.search import Tree

OTHERS = ("mcts", "beam", "greedy", "mmr", "knapsack", "topk")


class Structured:
    """A utility of named chunks: relevance, order, redundancy and length."""

    def __init__(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        self.relevance = rng.uniform(0, 1, n)
        pairs = rng.uniform(0, 0.3, (n, n))
        self.redundancy = (pairs + pairs.T) / 2
        self.decay, self.length = rng.uniform(0.6, 0.95), rng.uniform(0.02, 0.15)
        self.chunks = [f"c{i} " + "x " * int(rng.integers(2, 12)) for i in range(n)]

    def score(self, query: str, texts: Any) -> list[float]:
        """Values of combined texts."""
        return [self._value([int(t.split()[0][1:]) for t in x.split("\n\n")]) for x in texts]

    def _value(self, path: list[int]) -> float:
        gain = sum(self.relevance[i] * self.decay**k for k, i in enumerate(path))
        same = sum(self.redundancy[a, b] for a, b in combinations(path, 2))
        return float(gain - same - self.length * len(path))


def optimum(seeds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, budget, share, near in (("30 %", 45, 0.3, 0.01), ("2 %", 10_000, 0.02, 0.05)):
        ratios, used, counts = [], [], []
        for seed in range(seeds):
            one = Structured(seed, 7)
            best = select("q", one.chunks, budget, reranker=one, method="exhaustive")
            limit = max(7, int(share * best.evaluations))
            ours = select("q", one.chunks, budget, reranker=one, evaluations=limit)
            ratios.append(1 - (best.score - ours.score) / max(abs(best.score), 1e-12))
            used.append(ours.evaluations / best.evaluations)
            counts.append(best.evaluations)
        found[name] = {
            "near": near,
            "seeds_near": statistics.mean(ratio >= 1 - near for ratio in ratios),
            "mean": statistics.mean(ratios),
            "worst": min(ratios),
            "evaluations_mean": statistics.mean(used),
            "combinations_mean": statistics.mean(counts),
        }
    return found


def budgets(seeds: int, some: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for budget in some:
        shares: dict[str, list[float]] = {name: [] for name in OTHERS}
        for seed in range(seeds):
            one = Structured(seed, 7)
            best = select("q", one.chunks, budget, reranker=one, method="exhaustive").score
            for name in OTHERS:
                ours = select("q", one.chunks, budget, reranker=one, method=name)
                shares[name].append(ours.score / best if best > 0 else 1.0)
        found[str(budget)] = {name: statistics.mean(values) for name, values in shares.items()}
    return found


TOWNS = [a + b for a in ("Ar", "Bren", "Col", "Dun", "El", "Far") for b in ("len", "dal", "mouth")]
NAMES = [
    a + b for a in ("Ida ", "Otto ", "Vera ", "Hugo ") for b in ("Voss", "Lind", "Maar", "Roe")
]
ATTRIBUTES = ("mayor", "miller", "harbour master", "school head", "chronicler")
FILLER = (
    "The road was mended in spring.",
    "Traders came by river and by road.",
    "Rain fell for most of the month.",
    "A market is held on the green.",
    "The winter was long and the stores were low.",
    "Old maps show a bridge that is gone.",
)


def corpus(rng: random.Random) -> tuple[list[str], list[tuple[str, list[tuple[str, str, str]]]]]:
    """Chunks, and questions with the two facts that each needs: (town, attribute, name)."""
    chunks, facts = [], {}
    for town in TOWNS:
        for attribute in ATTRIBUTES:
            now, once = rng.sample(NAMES, 2)
            facts[town, attribute] = now
            sentence = f"In 2024 the {attribute} of {town} is {now}."
            chunks.append(" ".join([sentence, *rng.sample(FILLER, 2)]))
            for _ in range(rng.randint(0, 3)):  # paraphrases that add nothing
                again = f"The {attribute} of {town} in 2024 is {now}, as the record of {town} says."
                chunks.append(" ".join([again, *rng.sample(FILLER, rng.randint(1, 3))]))
            if rng.random() < 0.7:  # what was right before contradicts
                old = f"In 2019 the {attribute} of {town} is {once}."
                chunks.append(" ".join([old, *rng.sample(FILLER, 1)]))
        for _ in range(3):  # names the town, and no fact
            chunks.append(f"{town} in 2024: " + " ".join(rng.sample(FILLER, 3)))
    rng.shuffle(chunks)
    questions = []
    for _ in range(60):
        (a, x), (b, y) = rng.sample(sorted(facts), 2)
        text = f"Who in 2024 is the {x} of {a} and who in 2024 is the {y} of {b}?"
        questions.append((text, [(a, x, facts[a, x]), (b, y, facts[b, y])]))
    return chunks, questions


def first(text: str, town: str, attribute: str) -> str:
    """The first sentence that names attribute and town."""
    sentences = re.split(r"\.\s*", text.replace("The ", "the "))
    return next((s for s in sentences if f"the {attribute} of {town} " in s), "")


def read(text: str, town: str, attribute: str) -> str:
    """The name in the first sentence that names attribute and town."""
    sentence = first(text, town, attribute)
    return next((name for name in NAMES if name in sentence), "")


class Clauses:
    """Stands for a model that understands: clauses whose first mention is of the year asked for.

    It does not know the answers. Words cost a little.
    """

    def score(self, query: str, texts: Any) -> list[float]:
        """Scores of combined texts."""
        asked = re.findall(r"is the (.+?) of (\w+)", query)
        return [
            sum("2024" in first(text, town, attribute) for attribute, town in asked)
            + 0.1 * sum(town in text for _, town in asked)
            - 0.001 * len(text.split())
            for text in texts
        ]


def answers(seeds: int, some: tuple[int, ...], reads: bool) -> dict[str, Any]:
    right: dict[str, dict[str, list[float]]] = {
        str(budget): {name: [] for name in OTHERS} for budget in some
    }
    tokens: dict[str, dict[str, list[int]]] = {
        str(budget): {name: [] for name in OTHERS} for budget in some
    }
    for seed in range(seeds):
        chunks, questions = corpus(random.Random(seed))
        index = BM25Index(chunks)
        reranker = Clauses() if reads else LexicalCoverage(index.weights())
        for question, facts in questions:
            retrieved = [chunk for chunk, _ in index.search(question, 20)]
            for budget in some:
                for name in OTHERS:
                    chosen = select(question, retrieved, budget, reranker=reranker, method=name)
                    is_right = all(read(chosen.text, a, x) == want for a, x, want in facts)
                    right[str(budget)][name].append(float(is_right))
                    tokens[str(budget)][name].append(chosen.tokens)
    return {
        budget: {
            name: {
                "right": statistics.mean(values),
                "tokens": statistics.mean(tokens[budget][name]),
                "questions": len(values),
            }
            for name, values in row.items()
        }
        for budget, row in right.items()
    }


def speed(documents: int, repeats: int) -> dict[str, Any]:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(20_000)]
    weights = [1 / (i + 10) for i in range(len(words))]
    texts = [" ".join(rng.choices(words, weights, k=rng.randint(5, 25))) for _ in range(documents)]
    queries = [" ".join(rng.choices(words, weights, k=4)) for _ in range(50)]
    indexing, searching, expanding = [], [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        index = BM25Index(texts)
        indexing.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for query in queries:
            index.search(query, 10)
        searching.append(time.perf_counter() - begin)
    chunks = [" ".join(rng.choices(words, weights, k=100)) for _ in range(60)]
    question = " ".join(rng.choices(words, weights, k=12))
    reranker = LexicalCoverage.of(chunks)
    pool = Pool(question, chunks, 2000)
    for _ in range(max(repeats, 2)):
        scorer = Scorer(pool, reranker)
        begin = time.process_time()
        done = Tree(ChunkSearch(reranker, 2000, iterations=300), scorer).search()
        expanding.append(done.evaluations / (time.process_time() - begin))
    found: dict[str, Any] = {
        "documents": documents,
        "queries": len(queries),
        "index_s": summarize(indexing),
        "search_s": summarize(searching),
        "expansions_per_s": summarize(expanding),
    }
    if has_peers():
        peer = ask(
            "peer_bm25.py", {"texts": texts, "queries": queries, "k": 10, "repeats": repeats}
        )
        found["bm25s"] = {
            **peer,
            "index_ratio": peer["index_s"] / found["index_s"]["median"],
            "search_ratio": peer["search_s"] / found["search_s"]["median"],
        }
    return found


def main() -> int:
    args = arguments(__doc__, "text_rag")
    assert set(OTHERS) < set(METHODS)
    quick = args.quick
    utility_budgets = (30,) if quick else (20, 30, 45, 60)
    answer_budgets = (80,) if quick else (60, 80, 120, 200)
    results = {
        "optimum": optimum(3 if quick else 200),
        "budgets": budgets(3 if quick else 50, utility_budgets),
        "answers": answers(1 if quick else 3, answer_budgets, reads=False),
        "answers_reading": answers(1, answer_budgets, reads=True),
        "speed": speed(2_000 if quick else 100_000, 1 if quick else 5),
    }

    def plot(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name in OTHERS:
            style = {"color": OURS, "lw": 2.5} if name == "mcts" else {"lw": 1.2}
            x = list(utility_budgets)
            y = [results["budgets"][str(b)][name] for b in x]
            left.plot(x, y, "o-", label=name, **style)
            x = list(answer_budgets)
            y = [results["answers_reading"][str(b)][name]["right"] for b in x]
            right.plot(x, y, "o-", label=name, **style)
        left.set(xlabel="budget, tokens", ylabel="share of the optimum, 7 chunks")
        right.set(xlabel="budget, tokens", ylabel="questions answered right")
        right.legend(frameon=False, fontsize=8)

    config = {"utility_budgets": utility_budgets, "answer_budgets": answer_budgets}
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
