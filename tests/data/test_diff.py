"""What two data sets differ by, against sets in Python and against SciPy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from sharpen.core.errors import DataError
from sharpen.data import Dataset, ops
from sharpen.data.diff import Side, compare, diff, write_difference
from sharpen.data.diff.report import distance
from sharpen.data.sketch import Sketch

Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from("xyz"), st.integers(0, 1)), max_size=12),
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from("xyz"), st.integers(0, 1)), max_size=12),
)
def test_counts_are_those_of_sets(tmp_path_factory: Any, a: list[Any], b: list[Any]) -> None:
    """Rows of a key meet in their order."""
    folder = tmp_path_factory.mktemp("diff")
    paths = [
        write(folder / f"{name}.jsonl", [{"id": k, "text": t, "n": n} for k, t, n in rows])
        for name, rows in (("a", a), ("b", b))
    ]
    by_text = diff(Side(paths[0]), Side(paths[1]))
    texts = [Counter(text for _, text, _ in rows) for rows in (a, b)]
    assert by_text.by == "text"
    assert by_text.only == ((texts[0] - texts[1]).total(), (texts[1] - texts[0]).total())
    assert (by_text.same, by_text.edited) == ((texts[0] & texts[1]).total(), 0)
    found = diff(Side(paths[0]), Side(paths[1]), key="id")
    same = edited = other = 0
    left = []
    for key in range(7):
        mine = [[(t, n) for k, t, n in rows if k == key] for rows in (a, b)]
        for (t, n), (u, m) in zip(*mine, strict=False):
            same += t == u
            edited += t != u
            other += t == u and n != m
        left.append((len(mine[0]), len(mine[1])))
    assert (found.same, found.edited, found.other_fields) == (same, edited, other)
    assert found.only == (
        sum(max(one - two, 0) for one, two in left),
        sum(max(two - one, 0) for one, two in left),
    )
    assert found.rows == (len(a), len(b))


def rows_of(count: int) -> list[Row]:
    return [
        {"text": f"Row {i} of a set. See https://a.example/{i}" + " word" * (i % 7), "n": i}
        for i in range(count)
    ]


def test_operators_are_named_that_dropped_or_edited(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [*rows_of(3000), {"text": "tiny", "n": -1}])
    first = Dataset.read(source).apply(ops.words_num(min=9), ops.text_length(min=5))
    second = Dataset.read(source).apply(
        ops.clean_links(), ops.fix_unicode(), ops.text_length(min=5)
    )
    first.write(tmp_path / "a", trace=True)
    second.write(tmp_path / "b", trace=True)
    found = diff(Side(str(tmp_path / "a")), Side(str(tmp_path / "b")))
    kept = sum(i % 7 >= 3 for i in range(3000))  # six words, without the number
    assert found.by == "row"
    assert found.rows == (kept, 3000)
    assert (found.same, found.edited, found.only) == (0, kept, (0, 3000 - kept))
    assert found.operators == [
        {"what": "dropped", "side": "a", "operator": "words_num", "rows": 3000 - kept},
        {"what": "edited", "side": "b", "operator": "clean_links", "rows": kept},
    ]
    alone, edited = found.examples["only_b"][0], found.examples["edited"][0]
    assert (alone["id"], alone["dropped_by"]) == ("0", "words_num")
    assert edited["edited_by"] == "clean_links (b)"
    assert "https://" in edited["a"]
    assert "https://" not in edited["b"]
    back = diff(Side(str(tmp_path / "b")), Side(str(tmp_path / "a")))
    assert (back.only, back.edited) == ((3000 - kept, 0), kept)


def test_a_result_is_compared_with_its_source(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [*rows_of(50), *rows_of(3)])
    result = Dataset.read(source).apply(ops.words_num(min=9), ops.exact_dedup())
    result.write(tmp_path / "out", trace=True)
    found = diff(Side(source), Side(str(tmp_path / "out")), examples=100)
    assert found.by == "row"
    dropped = {one["operator"]: one["rows"] for one in found.operators}
    assert set(dropped) == {"words_num"}
    assert sum(dropped.values()) == found.only[0] == 53 - found.same
    other = write(tmp_path / "other.jsonl", rows_of(60))
    assert diff(Side(other), Side(str(tmp_path / "out"))).by == "text"


def test_edits_on_both_sides_are_both_named_where_nothing_else_explains(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "call 555-1234 at https://a.example"}] * 3)
    for name, repl in (("a", "X"), ("b", "Y")):
        Dataset.read(source).apply(ops.clean_links(repl=repl)).write(tmp_path / name, trace=True)
    found = diff(Side(str(tmp_path / "a")), Side(str(tmp_path / "b")))
    assert sorted((one["side"], one["rows"]) for one in found.operators) == [("a", 3), ("b", 3)]


def test_pieces_of_rows_are_matched_by_their_ids(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "one. two. three."}, {"text": "four."}])
    split = Dataset.read(source).apply(ops.text_chunk(pattern=" "))
    split.write(tmp_path / "a", trace=True)
    split.apply(ops.text_length(min=5)).write(tmp_path / "b", trace=True)
    found = diff(Side(str(tmp_path / "a")), Side(str(tmp_path / "b")))
    assert found.by == "row"
    assert found.same + found.only[0] == found.rows[0]
    (told,) = [one for one in found.operators if one["what"] == "dropped"]
    assert (told["side"], told["operator"], told["rows"]) == ("b", "text_length", found.only[0])


def test_a_missing_key_is_said(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [{"text": "x", "url": 1}, {"text": "y"}])
    with pytest.raises(DataError, match=r"row 1 has no 'url'; found: text"):
        diff(Side(a), Side(a), key="url")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-20, 20) | st.floats(-20, 20), min_size=1, max_size=50),
    st.lists(st.integers(-20, 20) | st.floats(-20, 20), min_size=1, max_size=50),
)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(a: list[float], b: list[float]) -> None:
    sketches = [Sketch(), Sketch()]
    for sketch, values in zip(sketches, (a, b), strict=True):
        sketch.add(np.array(values, float))
    values = np.array([*a, *b])[:, None]
    below = [(np.array(side) <= values).mean(1) for side in (a, b)]
    assert distance(*sketches) == pytest.approx(np.abs(below[0] - below[1]).max(), abs=1e-12)


def test_the_distance_of_many_rows_is_close() -> None:
    rng = np.random.default_rng(0)
    for exact in (1_000_000, 2000):
        a, b = Sketch(exact), Sketch(exact)
        one, other = rng.normal(size=40_000), rng.normal(0.1, 1.2, size=50_000)
        a.add(one)
        b.add(other)
        error = 2e-4 if exact > 50_000 else 2e-3  # a digest's own error in the second case
        assert distance(a, b) == pytest.approx(
            ks_2samp(one, other, method="asymp").statistic, abs=error
        )


def test_the_document_and_the_page_say_what_moved(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(200))
    Dataset.read(source).apply(ops.words_num(min=9)).write(tmp_path / "out", trace=True)
    document = compare(source, str(tmp_path / "out"), workers=1)
    moved = {row["statistic"]: row for row in document["statistics"]}
    assert moved["words_num"]["mean"]["a"] < moved["words_num"]["mean"]["b"]
    assert document["statistics"][0]["distance"] == max(r["distance"] for r in moved.values()) > 0.2
    write_difference(tmp_path / "page.html", document)
    page = (tmp_path / "page.html").read_text()
    assert "Only in A" in page
    assert "words_num" in page
    assert json.dumps(document)
