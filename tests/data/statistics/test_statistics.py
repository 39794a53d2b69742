"""Statistics of texts against what Python's own strings say, by kernel and by twin."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import DataError
from sharpen.data.statistics import (
    Texts,
    character_repetition,
    characters,
    hash_word,
    hash_words,
    is_special,
    refine,
    word_repetition,
    words_in_list,
)
from sharpen.data.statistics.characters import LINE_ENDS

ODD = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029 \t\u00a0\u3000"
ODD += "ΣσςİiI\u0307é日本Ⅷ٣½😀👍🏽\u200d\ufe0f-=*.,'\"#…ß"
TEXT = st.text(
    st.one_of(
        st.sampled_from(ODD),
        st.sampled_from("abcAB 12\n"),
        st.characters(codec="utf-8"),
    ),
    max_size=120,
)
COLUMN = st.lists(TEXT, max_size=6)


@pytest.fixture(params=["native", "twin"])
def way(request, monkeypatch):
    if request.param == "twin":
        monkeypatch.setenv("SHARPEN_NATIVE", "0")
    return request.param


def split(text: str) -> list[str]:
    return [w for w in text.replace("\n", " ").replace("\t", " ").split(" ") if w]


def test_tables_are_what_python_says_of_every_code_point():
    found = characters()
    surrogates = range(0xD800, 0xE000)
    for bit, kind in enumerate(
        (str.isalnum, str.isalpha, str.isdigit, str.isspace, str.isupper, is_special)
    ):
        told = (found.bits >> bit & 1).astype(bool)
        wanted = np.array([p not in surrogates and kind(chr(p)) for p in range(0x110000)])
        assert np.array_equal(told, wanted), kind
    lower = [chr(p).lower() for p in range(0x110000)]
    assert [p for p, text in enumerate(lower) if len(text) > 1] == [0x130]
    assert all(found.lower[p] == ord(text) for p, text in enumerate(lower) if p != 0x130)
    ends = [chr(p) for p in range(0x110000) if len(f"a{chr(p)}b".splitlines()) == 2]
    assert set(ends) == set(LINE_ENDS)
    assert [chr(p) for p in np.nonzero(found.bits >> 6 & 1)[0]] == sorted(LINE_ENDS)


@given(COLUMN)
def test_counts_are_those_of_str(texts):
    for native in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            if native == "0":
                patch.setenv("SHARPEN_NATIVE", "0")
            counts = Texts(texts).counts
        assert counts.characters.tolist() == [len(t) for t in texts]
        for name, kind in (
            ("alphanumeric", str.isalnum),
            ("alphabetic", str.isalpha),
            ("digits", str.isdigit),
            ("spaces", str.isspace),
            ("upper", str.isupper),
            ("special", is_special),
        ):
            assert getattr(counts, name).tolist() == [sum(map(kind, t)) for t in texts], name
        assert counts.lines.tolist() == [len(t.splitlines()) for t in texts]
        longest = [max(map(len, t.splitlines()), default=0) for t in texts]
        assert counts.longest_line.tolist() == longest


@given(COLUMN)
def test_words_are_those_between_spaces_line_feeds_and_tabs(texts):
    for native in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            if native == "0":
                patch.setenv("SHARPEN_NATIVE", "0")
            column = Texts(texts)
            words = column.words
        wanted = [split(t) for t in texts]
        whole = column.data.tobytes()
        found = [whole[a:b].decode() for a, b in zip(words.starts, words.ends, strict=True)]
        assert found == [w for ws in wanted for w in ws]
        assert words.count.tolist() == [len(ws) for ws in wanted]
        assert words.lengths.tolist() == [len(w) for ws in wanted for w in ws]
        assert words.refined.tolist() == [hash_word(refine(w)) for ws in wanted for w in ws]
        assert words.count_refined.tolist() == [sum(bool(refine(w)) for w in ws) for ws in wanted]
        means = [sum(map(len, ws)) / max(len(ws), 1) for ws in wanted]
        assert words.mean_length.tolist() == pytest.approx(means, rel=1e-15)


def slow_character_repetition(text: str, size: int) -> float:
    counts = sorted(
        Counter(text[i : i + size] for i in range(len(text) - size + 1)).values(), reverse=True
    )
    if not counts:
        return 0.0
    once = sum(c == 1 for c in counts)
    most = min(math.floor(math.sqrt(len(counts))), len(counts) - once)
    return sum(counts[:most]) / sum(counts)


def slow_word_repetition(text: str, size: int) -> float:
    words = [w for w in map(refine, split(text)) if w]
    counts = Counter(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
    return sum(c for c in counts.values() if c > 1) / counts.total() if counts else 0.0


@given(
    st.lists(st.text("ab \nΣé", max_size=80), max_size=4),
    st.integers(1, 4),
)
@settings(max_examples=60)
def test_repetition_is_the_formulas(texts, size):
    for native in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            if native == "0":
                patch.setenv("SHARPEN_NATIVE", "0")
            column = Texts(texts)
            of_characters = character_repetition(column.offsets, column.data, size)
            of_words = word_repetition(column.words, size)
        assert of_characters.tolist() == [slow_character_repetition(t, size) for t in texts]
        assert of_words.tolist() == [slow_word_repetition(t, size) for t in texts]


def test_long_texts_repeat_as_the_formulas_say(way):
    texts = ["to be or not to be, that is the question " * 40, "".join(map(chr, range(32, 3000)))]
    column = Texts(texts)
    found = character_repetition(column.offsets, column.data, 10)
    assert found.tolist() == [slow_character_repetition(t, 10) for t in texts]
    found = word_repetition(column.words, 5)
    assert found.tolist() == [slow_word_repetition(t, 5) for t in texts]


def test_words_of_a_list_count_refined(way):
    listed = hash_words(["The", "(and)", "ΟΔΟΣ", "..."])
    texts = ["the AND of -- it", "", "-- ==", "οδος ΟΔΟΣ, οδοσ"]
    assert words_in_list(Texts(texts).words, listed).tolist() == [2 / 4, 0.0, 0.0, 2 / 3]


def test_a_slice_of_a_column_is_read_where_it_lies(way):
    whole = pa.array(["one", "two words", "", "three\nlines\nhere"], pa.large_string())
    part = Texts(whole.slice(1, 3))
    alone = Texts(["two words", "", "three\nlines\nhere"])
    for field in fields(part.counts):
        assert np.array_equal(getattr(part.counts, field.name), getattr(alone.counts, field.name))
    assert np.array_equal(part.words.refined, alone.words.refined)
    assert part.strings == alone.strings
    empty = Texts(whole.slice(4))
    assert len(empty) == 0
    assert empty.counts.characters.tolist() == []


def test_what_is_no_column_of_texts_is_refused():
    with pytest.raises(DataError, match="1 of 2 texts are missing"):
        Texts(pa.array(["a", None]))
    with pytest.raises(DataError, match="must hold strings, not int64"):
        Texts(pa.array([1, 2]))
    assert characters().bits.nbytes == 0x110000


def test_tables_of_characters_are_kept_and_made_again_if_they_are_damaged(tmp_path, monkeypatch):
    from sharpen.data.statistics.characters import _characters as characters

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = characters.__wrapped__()
    (kept,) = (tmp_path / "sharpen" / "data").glob("characters-*.npy")
    for content in (kept.read_bytes(), b"damaged", kept.read_bytes()[:1000]):
        kept.write_bytes(content)
        found = characters.__wrapped__()
        assert np.array_equal(found.bits, made.bits)
        assert np.array_equal(found.lower, made.lower)


def test_threads_that_are_first_get_the_same_tables():
    from concurrent.futures import ThreadPoolExecutor
    from importlib import import_module

    module = import_module("sharpen.data.statistics.characters")  # not the function of the name
    for make, cached in (
        (module.characters, module._characters),
        (module.unchanged, module._unchanged),
    ):
        cached.cache_clear()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _, make=make: make(), range(8)))
        assert all(one is found[0] for one in found)
