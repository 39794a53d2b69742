"""Sentences: where they end, one a line, and none twice."""

from __future__ import annotations

import pytest
from hypothesis import given

from data.texts import COLUMNS, TEXTS, make_batch
from sharpen.core.errors import ConfigError
from sharpen.data import ops
from sharpen.data.ops.mappers.sentences import sentences_of


@pytest.mark.parametrize(
    "sentences",
    [
        ["He left.", " She stayed!", " “Why?”", " Nobody knew..."],
        ["Dr. Smith met Mr. J. R. Brown at 3.14 p.m. on Elm St. Paul's side."],
        ["See fig. 3 and e.g. Table 4.", " It is I.", " We know."],
        ["Wait... what?", " … and then?!"],
        ["这是一句。", "那是一句！", "“真的？”", "对"],
        ["no end"],
        ["One (or two.)", " Three."],
        ["Version 2. is out"],
    ],
)
def test_sentences_end_where_they_do(sentences):
    assert sentences_of("".join(sentences)) == sentences


@given(TEXTS)
def test_sentences_join_to_the_text(text):
    assert "".join(sentences_of(text)) == text


def test_one_sentence_a_line():
    text = "One two\nthree. Four!\n\nno end\n \nFive. "
    texts = [text, "", "\n\n"]
    found = ops.sentence_split().edit(make_batch(texts)).to_pylist()
    assert found == ["One two three.\nFour!\nno end\nFive.", "", ""]


@given(COLUMNS)
def test_splitting_changes_white_space_alone(texts):
    found = ops.sentence_split().edit(make_batch(texts)).to_pylist()
    assert ["".join(made.split()) for made in found] == ["".join(t.split()) for t in texts]


@pytest.mark.parametrize(
    ("one", "text", "wanted"),
    [
        (ops.remove_repeat_sentences(), "So it is. So it is! Ok. So, it is", "So it is. Ok."),
        (
            ops.remove_repeat_sentences(),
            "A. A.\nSo it is.\nSo it is. No.",
            "A. A.\nSo it is.\n No.",
        ),
        (ops.remove_repeat_sentences(lowercase=True), "Да нет. ДА НЕТ. Да", "Да нет. Да"),
        (ops.remove_repeat_sentences(), "Да нет. ДА НЕТ. Да", "Да нет. ДА НЕТ. Да"),
        (
            ops.remove_repeat_sentences(ignore_special_character=False),
            "So it is. So it is! So it is.",
            "So it is. So it is!",
        ),
        (ops.remove_repeat_sentences(min_length=9), "So it is. So it is.", "So it is. So it is."),
    ],
)
def test_repeated_sentences_go(one, text, wanted):
    assert one.edit(make_batch([text])).to_pylist() == [wanted]


@given(COLUMNS)
def test_nothing_new_is_made(texts):
    one = ops.remove_repeat_sentences()
    found = one.edit(make_batch(texts)).to_pylist()
    assert one.edit(make_batch(found)).to_pylist() == found
    assert [made.count("\n") for made in found] == [text.count("\n") for text in texts]


def test_letters_digits_and_white_space_are_compared():
    one = ops.remove_repeat_sentences()
    every = [chr(p) for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    kept = [c for c in every if c.isalnum() or c.isspace()]
    assert one._key("a" + "".join(every) + "b") == "a" + "".join(kept) + "b"


def test_no_length_is_refused():
    with pytest.raises(ConfigError, match="min_length=0"):
        ops.remove_repeat_sentences(min_length=0)
