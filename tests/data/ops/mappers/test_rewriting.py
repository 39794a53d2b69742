"""Mappers of characters, words and lines against Python's strings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.texts import COLUMNS, TEXTS, make_batch
from sharpen.core.errors import ConfigError
from sharpen.data import ops
from sharpen.data.statistics import is_special


def edited(one, *texts):
    return one.edit(make_batch(texts)).to_pylist()


@given(COLUMNS)
def test_lowercase_is_pythons(texts):
    assert edited(ops.lowercase(), *texts) == [text.lower() for text in texts]


@given(COLUMNS)
def test_characters_go(texts):
    odd = "◆]\\^-a😀\n"
    found = edited(ops.remove_specific_chars(characters=odd), *texts)
    assert found == [text.translate(dict.fromkeys(map(ord, odd))) for text in texts]
    assert edited(ops.remove_specific_chars(characters=""), *texts) == texts


@given(COLUMNS, st.booleans(), st.booleans(), st.booleans())
def test_only_chinese_stays(texts, alphabet, number, punctuation):
    one = ops.remove_non_chinese_character(
        keep_alphabet=alphabet, keep_number=number, keep_punctuation=punctuation
    )
    kept = "\u4e00-\u9fa5" + "A-Za-z" * alphabet + "0-9" * number
    kept += ".， ,\\-。%《*》/•、&＆(—)（+）：？!！“”·" * punctuation  # Data-Juicer's
    assert edited(one, *texts) == [re.sub(f"[^{kept}]", "", text) for text in texts]


def test_punctuation_becomes_ascii():
    text = "“Ja”, sagte er … „nein‚ ‘so’ — 你好，世界！（真的？）１％ 3–4"
    wanted = "\"Ja\", sagte er ... \"nein' 'so'  -  你好,世界!(真的?)１% 3-4"
    assert edited(ops.punctuation_normalization(), text, "plain `code` -") == [
        wanted,
        "plain `code` -",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("one\ntwo\n\nthree \nfour", "one two\n\nthree four"),
        ("a\nb\nc\nd\ne", "a b c d e"),
        ("para-\ngraph and well-\nKnown 3-\n4", "paragraph and well- Known 3- 4"),
        ("one\r\ntwo\r\n\r\nthree", "one two\n\nthree"),
        ("\na\n", "\na\n"),
    ],
)
def test_lines_of_a_paragraph_are_joined(text, wanted):
    assert edited(ops.join_lines(), text) == [wanted]


def strip(word):
    while word and is_special(word[0]):
        word = word[1:]
    while word and is_special(word[-1]):
        word = word[:-1]
    return word


def words_of(text):
    return [word for line in text.split("\n") for word in re.findall(r"[^ \t]+", line)]


@given(COLUMNS, st.integers(1, 3), st.integers(3, 6))
def test_long_and_short_words_go(texts, low, high):
    found = edited(ops.remove_long_words(min=low, max=high), *texts)
    for text, made in zip(texts, found, strict=True):
        wanted = [
            word
            for word in words_of(text)
            if low <= len(word) <= high or (len(word) > high and low <= len(strip(word)) <= high)
        ]
        assert words_of(made) == wanted
        if wanted == words_of(text):
            assert made == text


@given(st.lists(st.text("htpw./: a\n\t", max_size=40), max_size=4))
def test_words_with_pieces_go(texts):
    found = edited(ops.remove_words_with_incorrect_substrings(), *texts)
    for text, made in zip(texts, found, strict=True):
        pieces = ("http", "www", ".com", "href", "//")
        wanted = [w for w in words_of(text) if not any(p in strip(w) for p in pieces)]
        assert words_of(made) == wanted


def test_what_parts_words_stays():
    text = "  indented http://a.b/c line\n\nkept   as it is \nhttp://x.y/z\n\twww.a.b tail"
    wanted = "  indented line\n\nkept   as it is \n\ttail"
    assert edited(ops.remove_words_with_incorrect_substrings(), text) == [wanted]
    assert edited(ops.remove_words_with_incorrect_substrings(substrings=()), text) == [text]


def test_wrong_bounds_are_refused():
    with pytest.raises(ConfigError, match="min=4 must not be above max=3"):
        ops.remove_long_words(min=4, max=3)
    with pytest.raises(ConfigError, match="mode='t3s' must be one of s2t, t2s"):
        ops.chinese_convert(mode="t3s")


@given(TEXTS)
def test_ascii_is_not_converted(text):
    pytest.importorskip("opencc")
    plain = text.encode("ascii", "ignore").decode()
    assert edited(ops.chinese_convert(), plain) == [plain]


def test_chinese_is_converted():
    pytest.importorskip("opencc")
    assert edited(ops.chinese_convert(), "汉字转换") == ["漢字轉換"]
    assert edited(ops.chinese_convert(mode="t2s"), "漢字轉換") == ["汉字转换"]
    assert edited(ops.chinese_convert(mode="s2twp"), "鼠标里面的软件") == ["滑鼠裡面的軟體"]
