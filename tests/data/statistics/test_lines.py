"""Lines, paragraphs and n-grams that repeat, against str and plain loops, by kernel and by twin."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.texts import COLUMNS
from sharpen.data.statistics import Texts, joined, repeated_grams, repeated_pieces, top_gram
from sharpen.data.statistics.sentences import sentence_ends


def both(texts, measure):
    """What ``measure`` says of a column, by kernels; by twins it must say the same."""
    found = []
    for native in ("1", "0"):
        with pytest.MonkeyPatch.context() as patch:
            if native == "0":
                patch.setenv("SHARPEN_NATIVE", "0")
            found.append(measure(Texts(texts)))
    assert found[0] == found[1]
    return found[0]


def parts(column, pieces):
    whole = column.data.tobytes()
    spans = zip(pieces.starts, pieces.ends, strict=True)
    bodies = zip(pieces.body_starts, pieces.body_ends, strict=True)
    return (
        [whole[a:b].decode() for a, b in spans],
        [whole[a:b].decode() for a, b in bodies],
        pieces.count.tolist(),
        pieces.lengths.tolist(),
        pieces.last.tolist(),
        pieces.hashes.tolist(),
        pieces.strings(column.data).to_pylist(),
        pieces.blank.tolist(),
    )


def check_pieces(found, wanted):
    flat = [piece for pieces in wanted for piece in pieces]
    whole, bodies, count, lengths, last, hashes, strings, blank = found
    assert whole == flat
    assert bodies == strings == [piece.strip() for piece in flat]
    assert count == [len(pieces) for pieces in wanted]
    assert lengths == [len(piece) for piece in flat]
    assert last == [ord(piece[-1]) if piece else 0 for piece in flat]
    assert blank == [not piece.strip() for piece in flat]
    assert len(set(hashes)) == len(set(flat)) == len(set(zip(flat, hashes, strict=True)))


@given(COLUMNS)
def test_lines_are_those_of_splitlines(texts):
    found = both(texts, lambda column: parts(column, column.lines))
    check_pieces(found, [text.splitlines() for text in texts])


@given(COLUMNS)
def test_paragraphs_are_what_line_feeds_part(texts):
    found = both(texts, lambda column: parts(column, column.paragraphs))
    wanted = [re.split(r"\n{2,}", t.strip()) if t.strip() else [] for t in texts]
    check_pieces(found, wanted)


@given(COLUMNS, st.data())
def test_some_lines_are_joined(texts, data):
    column = Texts(texts)
    lines = column.lines
    keep = np.array(
        data.draw(st.lists(st.booleans(), min_size=(m := len(lines.starts)), max_size=m)), bool
    )
    wanted, place = [], 0
    for text in texts:
        own = text.splitlines()
        wanted.append("\n".join(p.strip() for p, k in zip(own, keep[place:], strict=False) if k))
        place += len(own)
    assert joined(lines.offsets, lines.strings(column.data), keep).to_pylist() == wanted
    assert lines.where(keep).strings(column.data).to_pylist() == [
        p for p, k in zip(lines.strings(column.data).to_pylist(), keep, strict=True) if k
    ]


@given(COLUMNS)
def test_lines_begin_and_end_with_marks(texts):
    column = Texts(texts)
    lines, flat = column.lines, [line.strip() for t in texts for line in t.splitlines()]
    begins = lines.begins_with(column.data, "-", "•").tolist()
    assert begins == [line.startswith(("-", "•")) for line in flat]
    ends = lines.ends_with(column.data, "...", "…").tolist()
    assert ends == [line.endswith(("...", "…")) for line in flat]


@given(st.lists(st.text("ab\n ", max_size=40), max_size=4))
def test_pieces_that_stood_before_are_counted(texts):
    found = both(texts, lambda c: [a.tolist() for a in repeated_pieces(c.lines)])
    count, points = [], []
    for text in texts:
        seen, again = set(), []
        for line in text.splitlines():
            again += [line] if line in seen else []
            seen.add(line)
        count.append(len(again))
        points.append(sum(map(len, again)))
    assert found == [count, points]


def slow_top(words, size):
    grams = Counter(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
    if not grams:
        return 0
    gram, times = grams.most_common(1)[0]
    return len(gram) * times


def slow_repeated(words, size):
    seen, found, i = set(), 0, 0
    while i < len(words) - size + 1:
        gram = tuple(words[i : i + size])
        if gram in seen:
            found += sum(map(len, gram))
            i += size
        else:
            seen.add(gram)
            i += 1
    return found


@given(st.lists(st.lists(st.sampled_from(["a", "bb", "Σ", "dé", "…"]), max_size=60), max_size=4))
@settings(max_examples=80)
def test_grams_are_those_of_plain_loops(word_lists):
    texts = [" ".join(words) for words in word_lists]
    for size in (1, 2, 3):
        found = both(texts, lambda c: top_gram(c.words, c.forms, size).tolist())  # noqa: B023
        assert found == [slow_top(words, size) for words in word_lists]
    found = both(texts, lambda c: repeated_grams(c.words, c.forms, 2, 5).tolist())
    assert found == [[slow_repeated(words, size) for size in range(2, 6)] for words in word_lists]


@given(COLUMNS)
def test_forms_are_what_characters_say(texts):
    words = [w for t in texts for w in re.split("[ \n\t]", t) if w]
    found = both(
        texts,
        lambda c: (
            c.forms.with_letter.tolist(),
            c.forms.with_letter_or_digit.tolist(),
            c.forms.hashes.tolist(),
        ),
    )
    assert found[0] == [any(map(str.isalpha, word)) for word in words]
    assert found[1] == [any(map(str.isalnum, word)) for word in words]
    assert len(set(found[2])) == len(set(words)) == len(set(zip(words, found[2], strict=True)))


def test_what_ends_sentences():
    assert set(map(ord, ".!?。！？؟।")) <= sentence_ends()
    assert not sentence_ends() & set(map(ord, ",;:-…\"')a1 "))
    assert len(sentence_ends()) == 159
