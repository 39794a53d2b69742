"""Shares of characters and words against Python's own strings."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given

from data.texts import COLUMNS, make_batch
from sharpen.data import ops
from sharpen.data.statistics import refine


@given(COLUMNS)
def test_shares_are_those_of_str(texts):
    for native in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            if native == "0":
                patch.setenv("SHARPEN_NATIVE", "0")
            batch = make_batch(texts)
            found = {
                name: ops.operator_type(name)().measure(batch)[name].tolist()
                for name in ("digits", "uppercase", "whitespace", "unique_words")
            }
        for i, text in enumerate(texts):
            letters = max(sum(map(str.isalpha, text)), 1)
            assert found["digits"][i] == sum(map(str.isdigit, text)) / max(len(text), 1)
            assert found["whitespace"][i] == sum(map(str.isspace, text)) / max(len(text), 1)
            assert found["uppercase"][i] == sum(map(str.isupper, text)) / letters
            plain = text.replace("\n", " ").replace("\t", " ").split(" ")
            words = [word for word in map(refine, plain) if word]
            assert found["unique_words"][i] == len(set(words)) / max(len(words), 1)


@given(COLUMNS)
def test_compression_is_zlibs(texts):
    found = ops.compression_ratio(level=9).measure(make_batch(texts))["compression_ratio"]
    raw = [text.encode() for text in texts]
    assert found.tolist() == [len(one) / len(zlib.compress(one, 9)) for one in raw]


def test_defaults_keep_prose_and_drop_what_repeats():
    prose = "We rowed out before dawn and found three of the 12 buoys gone, their lines cut clean."
    repeated = "buy now " * 300
    batch = make_batch([prose, repeated, "READ THIS NOW OR NOT AT ALL", "12 34 56 78 90 apples"])
    wanted = {
        "digits": [True, True, True, False],
        "uppercase": [True, True, False, True],
        "whitespace": [True] * 4,
        "mean_word_length": [True, True, True, False],
        "unique_words": [True, False, True, True],
        "compression_ratio": [True, False, True, True],
    }
    for name, kept in wanted.items():
        one = ops.operator_type(name)()
        assert one.keep(one.measure(batch)).tolist() == kept, name
