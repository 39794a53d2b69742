"""Chunks and tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.text.rag import Chunker
from sharpen.text.rag.tokens import as_counter, estimate_tokens


def _words(text: str) -> int:
    return len(text.split())


@given(
    st.lists(st.sampled_from(["a", "bb.", "ccc!", "d?", "ee\n\n", "f"]), max_size=30),
    st.integers(1, 9),
    st.data(),
    st.sampled_from(["tokens", "sentences"]),
)
def test_chunks_cover_all_and_are_small(words, size, data, by) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    text = " ".join(words)
    chunks = Chunker(size, overlap, by=by, tokenizer=_words).split(text, "s")
    if by == "tokens":
        assert all(chunk.tokens <= size for chunk in chunks)
    if overlap == 0:
        assert " ".join(c.text for c in chunks).split() == text.split()
    assert [c.id for c in chunks] == [f"s#{i}" for i in range(len(chunks))]
    at = 0
    for chunk in chunks:  # each is a piece of the text, in order
        at = text.index(chunk.text, at)


def test_chunks_by_tokens_overlap() -> None:
    chunks = Chunker(3, 1, by="tokens", tokenizer=_words).split("a b c d e f")
    assert [c.text for c in chunks] == ["a b c", "c d e", "e f"]


def test_chunks_by_sentences() -> None:
    text = 'He said "Go." Then left! v1.2 is out.\n\nNew'
    chunks = Chunker(3, by="sentences", tokenizer=_words).split(text)
    assert [c.text for c in chunks] == ['He said "Go."', "Then left!", "v1.2 is out.", "New"]


def test_counters_of_tokenizers() -> None:
    class Plain:
        def encode(self, text: str) -> list[int]:
            return [1] * len(text)

    class Coded:
        def encode(self, text: str) -> object:
            return type("Encoding", (), {"ids": [1, 2, 3]})()

    assert as_counter(Plain())("abcd") == 4
    assert as_counter(Coded())("abcd") == 3
    assert as_counter(len)("ab") == 2
    assert estimate_tokens("internationalization, 42") == 4 + 1 + 2
    with pytest.raises(ConfigError, match="tokenizer=3"):
        as_counter(3)


@pytest.mark.parametrize(
    "arguments", [{"size": 0}, {"size": 3, "overlap": 3}, {"size": 3, "by": "words"}]
)
def test_wrong_settings_are_refused(arguments) -> None:
    with pytest.raises(ConfigError, match="Chunker"):
        Chunker(**arguments)
