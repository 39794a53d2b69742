"""The tree search: near the optimum for few evaluations, and never over the budget."""

from __future__ import annotations

import math
import warnings
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.rag.utilities import Structured

from sharpen.core.errors import ConfigError
from sharpen.text.rag import BudgetWarning, ChunkSearch, LexicalCoverage, RerankerError, select
from sharpen.text.rag.pool import Pool
from sharpen.text.rag.rerankers import Scorer
from sharpen.text.rag.search import Tree

SEEDS = range(60)


def _optimum(utility: Structured, budget: int) -> tuple[float, int]:
    """The best utility and how many combinations fit, by counting."""
    pool = Pool("q", utility.chunks, budget)
    n = len(utility.chunks)
    paths = [p for k in range(1, n + 1) for p in permutations(range(n), k)]
    fitting = [p for p in paths if pool.count(pool.prompt(p)) <= budget]
    return max(map(utility.value, fitting)), len(fitting)


def _near(score: float, best: float) -> bool:
    return score >= best - 0.01 * abs(best)


def test_near_the_optimum_for_30_percent_of_the_evaluations() -> None:
    hits = 0
    for seed in SEEDS:
        n = 5 + seed % 2
        utility = Structured(seed, n)
        best, count = _optimum(utility, 45)
        limit = max(n, int(0.3 * count))
        found = select("q", utility.chunks, 45, reranker=utility, evaluations=limit)
        assert found.evaluations <= limit
        hits += _near(found.score, best)
    assert hits >= 0.95 * len(SEEDS)


@pytest.mark.parametrize("backup", ["best", "mean", "all"])
def test_near_the_optimum_of_13699_combinations_for_2_percent(backup: str) -> None:
    shares = []
    for seed in SEEDS:
        utility = Structured(seed, 7)
        best, count = utility.best()
        assert count == 13_699
        found = select(
            "q", utility.chunks, 10_000, reranker=utility, evaluations=273, backup=backup
        )
        assert found.evaluations <= 0.02 * count
        shares.append(found.score >= best - 0.05 * abs(best))
    assert np.mean(shares) >= 0.95


def test_exhaustive_agrees_with_counting() -> None:
    for seed in range(5):
        utility = Structured(seed, 5)
        best, count = _optimum(utility, 30)
        full = select("q", utility.chunks, 30, reranker=utility, method="exhaustive")
        everything = select("q", utility.chunks, 999, reranker=utility, method="exhaustive")
        assert (everything.score, everything.evaluations) == pytest.approx(utility.best())
        assert full.score == pytest.approx(best, abs=1e-12)
        assert full.evaluations == count


def test_a_small_tree_is_seen_whole_and_the_search_ends() -> None:
    utility = Structured(3, 4)
    found = select("q", utility.chunks, 10_000, reranker=utility, iterations=10_000)
    assert found.tree_stats == {"iterations": 41, "nodes": 64, "depth": 4, "exhausted": 1}
    assert found.evaluations == 64
    assert found.score == pytest.approx(_optimum(utility, 10_000)[0], abs=1e-12)


def test_visits_become_uniform_without_cost_and_with_all_exploration() -> None:
    utility = Structured(1, 9)
    config = ChunkSearch(utility, 10_000, c=1e9, lam=0.0, iterations=1 + 9 * 8, rollout=False)
    pool = Pool("q", utility.chunks, 10_000)
    tree = Tree(config, Scorer(pool, utility))
    tree.search()
    assert tree.root.visits.tolist() == [1.0 + 8] * 9
    greedy = Tree(ChunkSearch(utility, 10_000, c=0.0, iterations=73), Scorer(pool, utility))
    greedy.search()
    assert np.ptp(greedy.root.visits) > 8


def test_rollouts_are_no_worse_than_adding_the_best_each_time() -> None:
    for seed in range(40):
        utility = Structured(seed, 9)
        path, score = (), -math.inf
        scorer = Scorer(Pool("q", utility.chunks, 60), utility)
        while True:
            more = np.setdiff1d(scorer.pool.fits, path)
            more = more[scorer.pool.cost_with(path, scorer.pool.cost(path), more) <= 60]
            if not len(more):
                break
            scores = scorer.children(path, more)
            if scores.max() <= score:
                break
            path, score = (*path, int(more[scores.argmax()])), float(scores.max())
        few = ChunkSearch(utility, 60, iterations=max(len(path), 1) + 1)
        assert few.select("q", utility.chunks).score >= score - 1e-12


def test_utility_takes_the_child_of_the_formula() -> None:
    utility = Structured(2, 6)
    config = ChunkSearch(utility, 60, c=0.7, lam=0.4, iterations=12)
    tree = Tree(config, Scorer(Pool("q", utility.chunks, 60), utility))
    tree.search()
    (first, slot), *_ = tree._descend()
    values = [
        first.total[i] / first.visits[i]
        + 0.7 * math.sqrt(math.log(tree.visits) / first.visits[i])
        - 0.4 * first.cost[i] / 60
        for i in range(len(first.kids))
    ]
    assert slot == int(np.argmax(values))
    assert tree.visits == 1 + first.visits.sum() - len(first.kids) + 1


words = st.lists(
    st.sampled_from(["a", "b", "c", "dd", "eee", "ffffffff", "gg,", "h.", "12", "naïve"]),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(words.map(" ".join), max_size=8),
    budget=st.integers(0, 40),
    method=st.sampled_from(["mcts", "topk", "mmr", "greedy", "beam", "knapsack", "exhaustive"]),
    template=st.sampled_from(["{{context}}", "{{context}}\nQ: {{question}}"]),
    tokenizer=st.sampled_from([None, len, lambda text: -(-len(text) // 3)]),
)
def test_the_budget_is_never_exceeded(chunks, budget, method, template, tokenizer) -> None:
    if method == "exhaustive":
        chunks = chunks[:4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BudgetWarning)
        found = select(
            "a dd gg", chunks, budget, method=method, template=template, tokenizer=tokenizer
        )
    assert len(set(found.ids)) == len(found.ids)
    if found.ids:
        pool = Pool("a dd gg", chunks, budget, template=template, tokenizer=tokenizer)
        by_id = {one.id: i for i, one in enumerate(pool.chunks)}
        prompt = pool.prompt(tuple(by_id[i] for i in found.ids))
        assert found.tokens == pool.count(prompt) <= budget
        assert found.text in prompt


def test_joined_texts_of_more_tokens_than_their_parts_are_not_chosen() -> None:
    def count(text: str) -> int:  # joins cost 100 more
        return len(text.split()) + 100 * text.count("\n\n")

    found = select("a b", ["a x", "b y"], 10, tokenizer=lambda t: 0 if t == "\n\n" else count(t))
    assert len(found.ids) == 1
    assert found.tokens == 2


def test_ties_go_to_the_cheaper() -> None:
    class Equal:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [1.0] * len(texts)

    for seed in range(5):
        found = select("q", ["a b c", "a", "a b"], 100, reranker=Equal(), seed=seed)
        assert found.ids == ["1"]


def test_too_small_a_budget_warns_and_gives_nothing() -> None:
    with pytest.warns(BudgetWarning, match="budget of 2 tokens: the cheapest needs 3"):
        found = select("q", ["a b c", "a b c d"], 2)
    assert found.ids == []
    assert math.isnan(found.score)
    with pytest.warns(BudgetWarning, match="there are no chunks"):
        assert ChunkSearch(LexicalCoverage(), 5).select("q", []).ids == []


def test_duplicates_are_merged() -> None:
    pool = Pool("q", ["a b", " a b\n", "c"], 100)
    assert [chunk.id for chunk in pool.chunks] == ["0", "2"]


def test_a_score_that_is_none_names_the_chunk() -> None:
    class Broken:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [math.nan if text.endswith("bad") else 1.0 + len(text) for text in texts]

    with pytest.raises(RerankerError, match="nan for the chunk '1'"):
        select("q", ["good", "bad"], 100, reranker=Broken())

    class Short:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [1.0]

    with pytest.raises(RerankerError, match="2 scores for 2 texts"):
        select("q", ["good", "bad"], 100, reranker=Short())


def test_a_set_is_scored_once_where_order_makes_no_difference() -> None:
    class Sets(Structured):
        order_free = True
        incremental = None  # type: ignore[assignment]

    utility = Sets(0, 4)
    utility.decay = 1.0
    found = select("q", utility.chunks, 10_000, reranker=utility, method="exhaustive")
    assert found.evaluations == 2**4 - 1


def test_patience_width_and_seed() -> None:
    utility = Structured(5, 12)
    first, again = (select("q", utility.chunks, 80, reranker=utility, seed=3) for _ in range(2))
    assert first == again
    patient = select("q", utility.chunks, 80, reranker=utility, patience=3)
    assert patient.tree_stats["iterations"] < first.tree_stats["iterations"]
    narrow = select("q", utility.chunks, 10_000, reranker=utility, width=3, iterations=9999)
    assert narrow.tree_stats["nodes"] == 3 + 6 + 6
    scores = [score for _, score in first.anytime_curve]
    assert scores == sorted(scores)
    assert scores[-1] == first.score


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"c": -1}, "c=-1"),
        ({"iterations": 0}, "iterations=0"),
        ({"backup": "worst"}, "backup='worst'"),
        ({"evaluations": 1}, "too few"),
        ({"method": "mtcs"}, "Did you mean"),
        ({"method": "topk", "c": 1.0}, "mcts"),
        ({"depth": 3}, "depth"),
        ({"budget": -1}, "budget=-1"),
        ({"template": "no field"}, "context"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select("a", ["a", "b c"], **{"budget": 100, **options})


def test_exhaustive_refuses_many_chunks() -> None:
    with pytest.raises(ConfigError, match="at most 8 chunks, got 9"):
        select("a", [f"a{i}" for i in range(9)], 100, method="exhaustive")
