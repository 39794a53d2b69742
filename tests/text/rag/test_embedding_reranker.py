"""Cosines of sums of vectors: against their definition, and what a choice by them is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.text.rag import EmbeddingIndex, EmbeddingReranker, select

TEXTS = ["red", "red red", "blue", "green", ""]


class Colours:
    """Counts words of three colours, and how many texts it has seen."""

    seen = 0

    def encode(self, texts: list[str]) -> np.ndarray:
        self.seen += len(texts)
        colours = ("red", "green", "blue")
        return np.array([[text.split().count(c) for c in colours] for text in texts], float)


@given(st.permutations(range(5)), st.integers(1, 5))
def test_a_path_scores_the_cosine_of_the_sum_of_its_vectors(order: list[int], n: int) -> None:
    reranker = EmbeddingReranker(Colours(), penalty=0.1)
    states = reranker.incremental("red green", TEXTS)
    state, total = states.root(), np.zeros(3)
    question = np.array([1, 1, 0]) / np.sqrt(2)
    unit = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]], float)
    for k, chunk in enumerate(order[:n], start=1):
        total += unit[chunk]
        length = np.linalg.norm(total)
        want = (total @ question / length if length else 0.0) - 0.1 * k
        assert states.scores(state, np.array([chunk]))[0] == pytest.approx(want, abs=1e-6)
        state = states.extend(state, chunk)


def test_what_is_missing_is_chosen_and_what_is_said_already_is_not() -> None:
    found = select("red green", TEXTS, 100, reranker=EmbeddingReranker(Colours()))
    assert sorted(found.ids) in (["0", "3"], ["1", "3"])
    assert found.score == pytest.approx(1 - 2 * 0.002, abs=1e-6)


def test_vectors_of_an_index_are_used_again() -> None:
    embedder = Colours()
    index = EmbeddingIndex(TEXTS[:4], embedder)
    assert embedder.seen == 4
    reranker = EmbeddingReranker(index)
    select("red green", TEXTS[:4], 100, reranker=reranker)
    assert embedder.seen == 5  # the question
    select("blue", [*TEXTS[:4], "blue blue"], 100, reranker=reranker)
    assert embedder.seen == 7  # the question and the new text


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(ConfigError, match="penalty=-1"):
        EmbeddingReranker(Colours(), penalty=-1)
