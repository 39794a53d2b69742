"""Noisy copies: what each switch changes, and that the seed and the id decide."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.texts import COLUMNS, make_batch
from sharpen.core.errors import ConfigError
from sharpen.data import ops
from sharpen.data.ops.mappers.augment import _CHANGES

TEXT = "The weather was different tomorrow, because the government said so in the beginning of May."


def changed(name, seed=0, text=TEXT, **more):
    one = ops.nlpaug_en(**{name: True}, keep_original=False, seed=seed, **more)
    return one.split(make_batch([text]))[0][0]


def test_each_switch_does_what_it_says():
    words = TEXT.split()
    for seed in range(20):
        fewer = changed("delete_random_word", seed).split()
        assert len(fewer) == len(words) - 2
        assert Counter(changed("swap_random_word", seed).split()) == Counter(words)
        assert changed("split_random_word", seed).replace(" ", "") == TEXT.replace(" ", "")
        assert len(changed("split_random_word", seed).split()) <= len(words) + 2
        assert Counter(changed("swap_random_char", seed)) == Counter(TEXT)
        assert 0 < len(TEXT) - len(changed("delete_random_char", seed)) <= 2
        assert len(changed("insert_random_char", seed)) == len(TEXT) + 2
        mistyped = changed("keyboard_error_char", seed)
        assert len(mistyped) == len(TEXT)
        assert sum(a != b for a, b in zip(mistyped, TEXT, strict=True)) <= 2
    assert "goverment" in changed("spelling_error_word", share=1)
    assert "diffrent" in changed("spelling_error_word", share=1)
    assert changed("ocr_error_char", text="mmm", share=1) in ("rnmm", "mrnm", "mmrn")


def test_the_seed_and_the_id_decide():
    one = ops.nlpaug_en(delete_random_char=True, swap_random_char=True, copies=2)
    batch = make_batch([TEXT, TEXT])
    made = one.split(batch)
    assert made == one.split(batch)
    assert [row[0] for row in made] == [TEXT, TEXT]
    assert len(made[0]) == 1 + 2 * 2
    assert made[0] != made[1]
    other = ops.nlpaug_en(delete_random_char=True, swap_random_char=True, copies=2, seed=1)
    assert other.split(batch) != made
    chained = ops.nlpaug_en(delete_random_char=True, swap_random_char=True, sequential=True)
    assert [len(row) for row in chained.split(batch)] == [2, 2]


@given(COLUMNS, st.sampled_from(sorted(_CHANGES)))
def test_any_text_can_be_changed(texts, name):
    made = ops.nlpaug_en(**{name: True}).split(make_batch(texts))
    assert [row[0] for row in made] == texts
    assert all(len(row) == 2 for row in made)


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="needs one of delete_random_word"):
        ops.nlpaug_en()
    with pytest.raises(ConfigError, match="copies=0"):
        ops.nlpaug_en(copies=0, delete_random_char=True)
    with pytest.raises(ConfigError, match="share=0"):
        ops.nlpaug_en(share=0, delete_random_char=True)
