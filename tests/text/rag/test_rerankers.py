"""Rerankers and the other ways to choose."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.text.rag.utilities import Structured

from sharpen.core.errors import ConfigError
from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine
from sharpen.core.lm.scripted import Scripted
from sharpen.text.rag import CrossEncoder, LexicalCoverage, LLMReranker, select
from sharpen.text.rag.pool import Pool

WEIGHTS = {"a": 2.0, "b": 1.0, "c": 3.0, "x": 0.5}


def test_lexical_coverage_follows_the_formula() -> None:
    one = LexicalCoverage(WEIGHTS, redundancy=0.1, horizon=10)
    # units of "a b c": a, b, c, "a b", "b c"
    whole = 2 + 1 + 3 + 1.5 + 2
    text = "x a\n\nb c x"
    covered = 2 / 1.1 + 1 / 1.2 + 3 / 1.3 + 2 / 1.2  # "a b" would cross the blank line
    want = (covered - 0.1 * 0.5) / whole  # x is said twice
    assert one.score("a b c", [text])[0] == pytest.approx(want, rel=1e-12)


words = st.lists(st.sampled_from(["a", "b", "c", "x", "y", "\n\n"]), min_size=1, max_size=9)


@given(st.lists(words.map(" ".join), min_size=1, max_size=5), st.permutations(range(5)))
def test_extending_gives_the_score_of_the_joined_text(texts, order) -> None:
    one = LexicalCoverage(WEIGHTS)
    states = one.incremental("a b c z", texts)
    state, path = states.root(), []
    for i in order:
        if i >= len(texts):
            continue
        path.append(i)
        got = states.scores(state, np.array([i]))[0]
        joined = "\n\n".join(texts[j] for j in path)
        assert got == pytest.approx(one.score("a b c z", [joined])[0], abs=1e-12)
        state = states.extend(state, i)


def test_what_adds_nothing_is_left_out() -> None:
    chunks = ["The mill burned in 1931.", "The mill burned in the year 1931.", "Fish swim."]
    found = select("When did the mill burn? burned 1931", chunks, 1000)
    assert found.ids == ["0"]


def test_wrong_constants_are_refused() -> None:
    with pytest.raises(ConfigError, match="redundancy=-1"):
        LexicalCoverage(redundancy=-1)


def test_a_cross_encoder_gets_pairs() -> None:
    seen = []

    def predict(pairs: list[tuple[str, str]]) -> list[list[float]]:
        seen.extend(pairs)
        return [[float(len(text))] for _, text in pairs]

    found = select("q", ["aa", "b"], 100, reranker=CrossEncoder(predict), batch_size=1)
    assert found.ids == ["0", "1"]
    assert ("q", "aa\n\nb") in seen


class Sure(ThreadedEngine):
    """Says yes with the chance that a text has of its words being 'good'."""

    model = "sure"
    capabilities = {"logprobs"}  # noqa: RUF012

    def complete(self, request: ChatRequest) -> ChatResponse:
        said = request.prompt.split("\n\nQuestion")[0].split()
        p = min(max(said.count("good") / len(said), 0.01), 0.99)
        top = [
            {"token": "yes", "logprob": math.log(p)},
            {"token": " No", "logprob": math.log(1 - p)},
        ]
        raw = {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]}
        return ChatResponse(texts=["yes"], model="sure", raw=raw)


def test_a_language_model_reranks_by_how_sure_it_is() -> None:
    scores = LLMReranker(Sure()).score("q", ["good good x x", "good x x x"])
    assert scores.tolist() == pytest.approx([0.0, math.log(0.25 / 0.75)])
    with pytest.raises(ConfigError, match="probabilities"):
        LLMReranker(Scripted(["yes"]))


def test_topk_takes_the_best_alone_that_fit() -> None:
    utility = Structured(0, 7)
    pool = Pool("q", utility.chunks, 30)
    found = select("q", utility.chunks, 30, reranker=utility, method="topk")
    want, used = [], 0
    for i in np.argsort([-utility.value([i]) for i in range(7)]):
        if used + pool.costs[i] <= 30:
            want.append(str(i))
            used += int(pool.costs[i])
    assert found.ids == want
    assert found.tokens == used
    assert found.score == pytest.approx(utility.value([int(i) for i in want]))


def test_knapsack_has_the_greatest_sum() -> None:
    for seed in range(8):
        utility = Structured(seed, 7)
        alone = [utility.value([i]) for i in range(7)]
        costs = Pool("q", utility.chunks, 25).costs
        sets = [s for k in range(1, 8) for s in combinations(range(7), k)]
        best = max(sum(alone[i] for i in s) for s in sets if costs[list(s)].sum() <= 25)
        found = select("q", utility.chunks, 25, reranker=utility, method="knapsack")
        assert sum(alone[int(i)] for i in found.ids) == pytest.approx(best)


def test_mmr_takes_what_differs_second() -> None:
    chunks = ["red mill river", "river mill red", "green mill house hill", "fish swim"]
    found = select("red mill river", chunks, 7, method="mmr", reranker=LexicalCoverage())
    assert found.ids == ["0", "2"]


def test_greedy_stops_where_nothing_adds_and_beam_is_no_worse() -> None:
    for seed in range(10):
        utility = Structured(seed, 7)
        greedy, beam, full = (
            select("q", utility.chunks, 60, reranker=utility, method=name)
            for name in ("greedy", "beam", "exhaustive")
        )
        assert greedy.score <= full.score + 1e-12
        assert beam.score <= full.score + 1e-12
        path = [int(i) for i in greedy.ids]
        for last in range(1, len(path)):
            assert utility.value(path[: last + 1]) > utility.value(path[:last])
