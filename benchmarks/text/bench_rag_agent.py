"""Settings of the search for chunks by question: the agent, the best single setting, and hindsight.

    SHARPEN_ASSETS=FOLDER python -m benchmarks.text.bench_rag_agent

Questions of Python's FAQ (see ``python_faq.py``), alone and in pairs. Each of eight settings (two
rerankers, long or short, cost in the utility or not) chooses chunks for 250 tokens; a choice is
worth its ROUGE-1 F against the answer. For five ways of parting the questions (70 % to learn from,
30 % to test) the mean worth on the test questions of: what the agent predicts, the setting that was
best on the others, a setting by chance, and the best of each question (hindsight).
"""

from __future__ import annotations

import random
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
from benchmarks.common import OURS, arguments, save
from benchmarks.text.bench_faq import PAGES, RETRIEVED, rouge, vars_of
from benchmarks.text.python_faq import load

from sharpen.core.embedding import open_embedder
from sharpen.text.prompts.confidence import mean_interval, paired_difference
from sharpen.text.rag import (
    BM25Index,
    ConfigAgent,
    EmbeddingIndex,
    EmbeddingReranker,
    HybridIndex,
    LexicalCoverage,
    Selection,
)
from sharpen.text.rag.config_agent import Settings, measure

BUDGET, GROUPS = 250, 10
SETTINGS = [
    Settings(reranker, 1.0, iterations, lam)
    for iterations in (10, 200)
    for reranker in ("words", "meaning")
    for lam in (0.1, 1.0)
]


def main() -> int:
    args = arguments(__doc__, "text_rag_agent")
    quick = args.quick
    chunks, questions = load(pages=0 if quick else PAGES)
    embedder = open_embedder("wordllama")
    bm25, meaning = BM25Index(chunks), EmbeddingIndex(chunks, embedder)
    index = HybridIndex(bm25, meaning)
    rerankers = {"words": LexicalCoverage(bm25.weights()), "meaning": EmbeddingReranker(meaning)}
    rng = random.Random(0)
    # Pairs are of one group, and groups are parted whole: no tested question was learned from.
    shuffled = rng.sample(questions, len(questions))
    groups = [shuffled[k::GROUPS] for k in range(GROUPS)]
    asked, group_of = [], []
    for k, group in enumerate(groups):
        some = [(q,) for q in group]
        some += [tuple(rng.sample(group, 2)) for _ in range(2 if quick else 20)]
        some = some[-4 if quick else 0 :]
        asked += some
        group_of += [k] * len(some)
    texts = [" ".join(q.text for q in parts) for parts in asked]
    answers = [" ".join(q.answer for q in parts) for parts in asked]
    retrieved = [[chunk for chunk, _ in index.search(text, RETRIEVED)] for text in texts]

    def judge(i: int, found: Selection) -> float:
        return rouge(found.text, answers[i])[1]

    judged = measure(texts, retrieved, rerankers, SETTINGS, BUDGET, judge)
    worth: dict[str, list[float]] = {"agent": [], "best single": [], "chance": [], "hindsight": []}
    right = []
    for seed in range(1 if quick else 5):
        learned = set(random.Random(seed).sample(range(GROUPS), round(0.7 * GROUPS)))
        train = [i for i, k in enumerate(group_of) if k in learned]
        test = [i for i, k in enumerate(group_of) if k not in learned]
        agent = ConfigAgent(embedder, seed=seed)
        agent.fit([texts[i] for i in train], SETTINGS, judged[train])
        predicted = [agent.predict(texts[i]) for i in test]
        for i, settings in zip(test, predicted, strict=True):
            one = measure([texts[i]], [retrieved[i]], rerankers, [settings], BUDGET, _of(judge, i))
            worth["agent"].append(float(one[0, 0]))
            best = SETTINGS[int(judged[i].argmax())]
            right.append(settings.reranker == best.reranker)
        single = int(judged[train].mean(axis=0).argmax())
        worth["best single"] += judged[test, single].tolist()
        worth["chance"] += judged[test].mean(axis=1).tolist()
        worth["hindsight"] += judged[test].max(axis=1).tolist()
    results: dict[str, Any] = {
        "worth": {name: vars_of(mean_interval(values)) for name, values in worth.items()},
        "agent_minus_single": vars_of(paired_difference(worth["agent"], worth["best single"])),
        "reranker_right": float(np.mean(right)),
        "tested": len(right),
        "settings": [
            asdict(one) | {"worth": float(value)}
            for one, value in zip(SETTINGS, judged.mean(axis=0), strict=True)
        ],
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        names = list(results["worth"])
        some = [results["worth"][name] for name in names]
        colours = [OURS if name == "agent" else "#999" for name in names]
        axes.barh(names, [one["value"] for one in some], color=colours)
        axes.set_xlabel("ROUGE-1 F of the chosen chunks against the answer")

    save(args, results, config={"budget": BUDGET, "retrieved": RETRIEVED}, plot=plot)
    return 0


def _of(judge: Any, i: int) -> Any:
    return lambda _, found: judge(i, found)


if __name__ == "__main__":
    sys.exit(main())
