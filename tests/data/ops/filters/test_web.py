"""The rules of Gopher, C4 and FineWeb against plain loops over lists of words and lines."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.texts import COLUMNS, make_batch
from sharpen.core.errors import ConfigError
from sharpen.data import ops
from sharpen.data.statistics import refine
from sharpen.data.statistics.sentences import sentence_ends

PROSE = (
    "The harbour was quiet that morning, and the boats that had come in with the tide lay still.\n"
    "Nobody on the wall had seen them arrive; the two of us were asleep, as always by then.\n"
    "We counted eleven sails, wrote the number in the book, and went to find something to eat.\n"
    "By noon the wind had turned, and half of the boats were gone again without a word to anyone.\n"
)


def words_of(text):
    return [w for w in text.replace("\n", " ").replace("\t", " ").split(" ") if w]


def share(part, whole):
    return part / max(whole, 1)


def slow_quality(text):
    words, lines = words_of(text), text.splitlines()
    real = [w for w in words if any(map(str.isalnum, w))]
    stop = {"the", "be", "to", "of", "and", "that", "have", "with"}
    return {
        "words": len(real),
        "word_length": share(sum(map(len, real)), len(real)),
        "hashes_per_word": share(text.count("#"), len(words)),
        "ellipses_per_word": share(text.count("...") + text.count("…"), len(words)),
        "bullet_lines": share(
            sum(line.lstrip().startswith(("•", "-")) for line in lines), len(lines)
        ),
        "ellipsis_lines": share(
            sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)
        ),
        "alphabetic_words": share(sum(any(map(str.isalpha, w)) for w in words), len(words)),
        "stop_words": len(stop & {refine(w) for w in words}),
    }


def rows(statistics, count):
    return [{k: float(v[i]) for k, v in statistics.items()} for i in range(count)]


@given(COLUMNS, st.lists(st.sampled_from(["The ", "of, ", "#", "-- ", "...\n", "• ", "7 "])))
def test_gopher_quality_measures_what_it_says(texts, more):
    texts = [*texts, "".join(more), PROSE]
    found = ops.gopher_quality().measure(make_batch(texts))
    assert rows(found, len(texts)) == [slow_quality(text) for text in texts]


def slow_repetition(text):
    def again(pieces):
        seen, count, points = set(), 0, 0
        for piece in pieces:
            if piece in seen:
                count, points = count + 1, points + len(piece)
            seen.add(piece)
        return share(count, len(pieces)), points / max(len(text), 1)

    paragraphs = re.split(r"\n{2,}", text.strip()) if text.strip() else []
    lines = [line for line in text.splitlines() if line]
    return [*again(paragraphs), *again(lines)]


@given(st.lists(st.text("ab \n", max_size=60), min_size=1, max_size=4))
def test_gopher_repetition_counts_lines_and_paragraphs(texts):
    one = ops.gopher_repetition()
    found = one.measure(make_batch(texts))
    names = [bound.statistic for bound in one.bounds]
    assert names == list(dict.fromkeys(names))
    assert set(names) == set(found)
    for i, text in enumerate(texts):
        assert [found[name][i] for name in names[:4]] == slow_repetition(text)


def test_gopher_repetition_counts_grams():
    text = "a bb a bb a bb c"
    found = ops.gopher_repetition(max_repeated_grams=()).measure(make_batch([text]))
    assert found["top_2_gram"][0] == 3 * 4 / len(text)
    assert found["top_3_gram"][0] == 2 * 6 / len(text)
    text = "one two three four five six one two three four five seven"
    found = ops.gopher_repetition().measure(make_batch([text]))
    assert found["repeated_5_grams"][0] == len("onetwothreefourfive") / len(text)
    assert found["repeated_6_grams"][0] == 0


def slow_fineweb(text):
    lines = [line for line in text.splitlines() if line.strip()]
    ends = set(map(chr, sentence_ends()))
    seen, again = set(), 0
    for line in lines:
        again += len(line) * (line in seen)
        seen.add(line)
    return {
        "punctuated_lines": share(sum(line[-1] in ends for line in lines), len(lines)),
        "short_lines": share(sum(len(line) <= 30 for line in lines), len(lines)),
        "duplicate_characters": share(again, len(text.replace("\n", ""))),
        "line_feeds_per_word": share(text.count("\n"), len(words_of(text))),
    }


@given(COLUMNS)
def test_fineweb_quality_measures_what_it_says(texts):
    texts = [*texts, PROSE, PROSE + PROSE]
    found = ops.fineweb_quality().measure(make_batch(texts))
    assert rows(found, len(texts)) == [slow_fineweb(text) for text in texts]


@pytest.mark.parametrize(
    ("one", "text", "reason"),
    [
        (ops.gopher_quality(), "Too short.", ("words", "min=50")),
        (ops.gopher_quality(), "# " * 60 + PROSE, ("hashes_per_word", "max=0.1")),
        (ops.gopher_quality(), "a b c the of " * 20, ("word_length", "min=3")),
        (
            ops.gopher_quality(),
            "- " + PROSE.replace("\n", "\n- ")[:-2],
            ("bullet_lines", "max=0.9"),
        ),
        (ops.gopher_quality(min_stop_words=9), PROSE, ("stop_words", "min=9")),
        (ops.gopher_repetition(), PROSE + PROSE, ("duplicate_lines", "max=0.3")),
        (ops.gopher_repetition(), "\n\n".join([PROSE] * 2), ("duplicate_paragraphs", "max=0.3")),
        (ops.fineweb_quality(), "Home\nAbout\nShop\n", ("punctuated_lines", "min=0.12")),
        (
            ops.c4_quality(),
            PROSE.replace("quiet", "Lorem Ipsum") * 2,
            ("times 'lorem ipsum'", "max=0"),
        ),
        (ops.c4_quality(), "One. Two! Three?", ("sentences", "min=5")),
    ],
)
def test_a_page_goes_for_a_reason(one, text, reason):
    statistics = one.measure(make_batch([text]))
    assert not one.keep(statistics)[0]
    miss = one.miss(statistics, 0)
    assert (miss.statistic, miss.threshold) == reason


def test_prose_stays():
    for one in (ops.gopher_quality(), ops.gopher_repetition(), ops.fineweb_quality()):
        assert one.keep(one.measure(make_batch([PROSE])))[0], one.name


def slow_c4_lines(text):
    kept = []
    for line in text.splitlines():
        line = line.strip()
        words = line.split()
        if len(words) < 3 or any(len(word) > 1000 for word in words):
            continue
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        if not line.endswith((".", "?", "!", '"', "'")) or line.endswith("..."):
            continue
        if any(p in line.lower() for p in ("javascript", "privacy policy", "uses cookies")):
            continue
        kept.append(line)
    return "\n".join(kept).strip()


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    *("One two three.", " so it ends ...", "two words.", "\r\n", "\n", "\u2028"),
                    *("Turn on JavaScript to go on.", "This site uses cookies, you know."),
                    *("a" * 1001 + " b c.", "It is so [12].", "We said “no”", "It is so.[3]", " "),
                ]
            ),
            max_size=8,
        ).map("".join),
        max_size=4,
    )
)
def test_c4_lines_keeps_sentences(texts):
    found = ops.c4_lines().edit(make_batch(texts)).to_pylist()
    assert found == [slow_c4_lines(text) for text in texts]


def test_c4_counts_sentences():
    english = "One. Two! “Three?” 3.14 is one number...\nFive\n \n"
    texts = [english, "これは一つ。これは二つ！", "", "no end", "One.  Two.  \nThree."]
    found = ops.c4_quality().measure(make_batch(texts))["sentences"]
    assert found.tolist() == [5, 2, 0, 1, 3]


def test_single_rules_of_lines():
    text = "- a\n- b\n\nThis line is long enough not to be a short one.\nread more ...\n- a\n"
    batch = make_batch([text, ""])
    wanted = {
        "lines_num": 5,
        "short_lines": 4 / 5,
        "punctuated_lines": 2 / 5,
        "bullet_lines": 3 / 5,
        "ellipsis_lines": 1 / 5,
        "duplicate_lines": 1 / 5,
    }
    for name, value in wanted.items():
        assert ops.operator_type(name)().measure(batch)[name].tolist() == [value, 0], name


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="min_words=0 must be at least 1"):
        ops.c4_lines(min_words=0)
    with pytest.raises(ConfigError, match="length=0"):
        ops.short_lines(length=0)
    assert np.isfinite(ops.gopher_quality().max_words)
