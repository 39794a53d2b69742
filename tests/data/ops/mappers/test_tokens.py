"""Bounds, chunks and cuts in tokens and code points."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from data.texts import TEXTS, make_batch
from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.data import ops


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tokenizer whose tokens are words and single signs."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("words")
    backend.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_tokens_are_counted(words):
    texts = ["one two, three", "", "a.b", "one two three four"]
    one = ops.token_num(tokenizer=words, min=3, max=4)
    found = one.measure(make_batch(texts))
    assert found["token_num"].tolist() == [4, 0, 3, 4]
    assert one.keep(found).tolist() == [True, False, True, True]
    assert len(one.describe()["fingerprint"]) == 32


def chunks(one, text):
    return one.split(make_batch([text]))[0]


def test_a_text_is_split_at_every_match():
    one = ops.text_chunk()
    assert chunks(one, "a\n\nb\n\n\n\n c\n\n") == ["a", "b", " c"]
    assert chunks(one, " \n\n ") == chunks(one, "") == []


def slow_chunks(text, size, pattern, overlap):
    """One chunk after the other, each from the beginning of what is left."""
    if len(text) <= size:
        return [text]
    matches = [m for m in re.finditer(pattern, text[:size]) if m.group()] if pattern else []
    if matches:
        last = matches[-1]
        return [text[: last.start()], *slow_chunks(text[last.end() :], size, pattern, overlap)]
    return [text[:size], *slow_chunks(text[size - overlap :], size, pattern, overlap)]


@given(TEXTS, st.integers(1, 12), st.integers(0, 11), st.sampled_from([None, " ", r"[ab]"]))
def test_chunks_of_code_points_are_those_of_the_recursion(text, size, overlap, pattern):
    overlap = min(overlap, size - 1)
    one = ops.text_chunk(size=size, pattern=pattern, overlap=overlap)
    wanted = [part for part in slow_chunks(text, size, pattern, overlap) if part.strip()]
    assert chunks(one, text) == wanted


def test_chunks_count_tokens(words):
    text = "one two three. four five\n\nsix seven eight"
    one = ops.text_chunk(size=4, pattern=r"\. ", tokenizer=words)
    assert chunks(one, text) == ["one two three", "four five\n\nsix seven ", "eight"]
    one = ops.text_chunk(size=5, pattern="\n\n", overlap=2, tokenizer=words)
    assert chunks(one, text) == ["one two three. four ", ". four five", "six seven eight"]


@given(TEXTS, st.integers(1, 12))
def test_truncate_keeps_the_first_code_points(text, size):
    assert ops.truncate(size=size).edit(make_batch([text])).to_pylist() == [text[:size]]


def test_truncate_keeps_the_first_tokens(words):
    texts = ["one two, three four", "one", ""]
    cut = ops.truncate(size=3, tokenizer=words).edit(make_batch(texts)).to_pylist()
    assert cut == ["one two, ", "one", ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": None}, "needs a size, a pattern, or both"),
        ({"size": 0}, "size=0 must be at least 1"),
        ({"size": 5, "overlap": 5}, "overlap=5 must be at least 0 and less"),
        ({"pattern": "("}, "is not one of RE2"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ops.text_chunk(**arguments)
    with pytest.raises(ConfigError, match="size=0"):
        ops.truncate(size=0)
    with pytest.raises(MissingFileError, match="neither an asset nor an existing path"):
        ops.token_num(tokenizer="gone").describe()
