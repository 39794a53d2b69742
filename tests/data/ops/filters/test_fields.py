"""Filters by fields, and the conditions that they take."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.texts import make_batch
from sharpen.core.errors import ConfigError
from sharpen.data import Dataset, ops
from sharpen.data.ops.filters.expressions import parse_condition


def kept(one, fields, texts=None):
    batch = make_batch(texts or [""] * len(fields), fields)
    return one.keep(one.measure(batch)).tolist()


def reason(one, fields, texts=None):
    batch = make_batch(texts or [""], [fields])
    return one.miss(one.measure(batch), 0)


def test_suffixes_are_told_with_and_without_a_name():
    one = ops.suffix(suffixes=["txt", ".MD"])
    rows = [{"path": "a/b.txt"}, {"path": "B.Md"}, {"path": "c.py"}, {"path": ".txt"}, {}]
    assert kept(one, rows) == [True, True, False, True, False]
    assert reason(one, {"path": "c.py"}).reason == "it is .py"


def test_a_field_is_one_of_some_values():
    one = ops.specified_field(field="meta.lang", values=["en", 3, True])
    values = ["en", "de", 3, 3.0, None, ["en", 3], ["en", "de"], [], True]
    assert kept(one, [{"meta": {"lang": v}} for v in values]) == [
        *(True, False, True, True, False, True, False, True, True)
    ]
    assert reason(one, {"meta": {"lang": "de"}}).reason == "meta.lang is de"


def test_a_number_lies_between_bounds():
    one = ops.specified_numeric_field(field="stars", min=3, max=10)
    values = [2.9, 3, "4.5", 10, "many", None, True, float("inf"), [5], 0]
    assert kept(one, [{"stars": v} for v in values]) == [
        *(False, True, True, True, False, False, False, False, False, False)
    ]
    assert reason(one, {"stars": "2"}).threshold == "min=3"
    assert reason(one, {"stars": "many"}).threshold == "min=3"


def test_required_fields_have_types():
    one = ops.required_fields(fields=["url", "meta.n"], types={"meta.n": "number", "tags": "list"})
    rows = [
        {"url": "a", "meta": {"n": 1}},
        {"url": "a", "meta": {"n": True}},
        {"url": "a", "meta": {}},
        {"meta": {"n": 1.5}},
        {"url": "a", "meta": {"n": 1}, "tags": {}},
    ]
    assert kept(one, rows) == [True, False, False, False, False]
    assert [reason(one, row).reason for row in rows[1:]] == [
        "meta.n is no number",
        "meta.n is missing",
        "url is missing",
        "tags is no list",
    ]
    with pytest.raises(ConfigError, match=r"types\.a='text' must be one of string, number"):
        ops.required_fields(fields=[], types={"a": "text"})


def test_fields_that_say_the_same():
    one = ops.fields_equal(first="question", ignore_case=True)
    rows, texts = [{"question": "Why? "}, {"question": "how"}, {}], ["why?", "so", ""]
    assert kept(one, rows, texts) == [False, True, True]
    other = ops.fields_equal(first="question", second="answer", keep_equal=True)
    assert kept(other, [{"question": 1, "answer": 1}, {"question": 1}]) == [True, False]
    assert reason(one, rows[0], ["why?"]).reason == "question and text are equal"


ROW = {"num": 20, "meta": {"language": "en", "n": None}, "tags": ["a", "b"], "word": "Tide"}


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ("10 < num <= 30 and meta.language == 'en'", True),
        ("num > 20 or not (num >= 20)", False),
        ("meta.language in ['de', 'en'] and 'a' in tags and 'c' not in tags", True),
        ("missing > 1", False),
        ("missing < 1", False),
        ("missing == none and meta.n == null", True),
        ("missing != none", False),
        ("not missing", True),
        ("1 not in missing", True),
        ("num > 'a'", False),
        ("num % 7 == 6 and -num < +num and num / 0 == none", True),
        ("lower(word) == 'tide' and len(tags) == 2 and startswith(word, 'Ti')", True),
        ("text != 'nothing here' and id == '0'", True),
        ("true and not false", True),
    ],
)
def test_conditions(condition, held):
    assert kept(ops.general_field(condition=condition), [ROW]) == [held]
    if not held:
        assert reason(ops.general_field(condition=condition), ROW).reason == f"not: {condition}"


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "(lambda: 1)()",
        "[x for x in tags]",
        "num ** 99",
        "tags[0]",
        "'a'.join(tags)",
        "len(tags, 2)",
        "num if num else 1",
        "f'{num}'",
        "1 <",
        "",
        "a\x00b",
        "(" * 500 + ")" * 500,
        " and ".join(["num > 1"] * 600),
        "...",
        "1j",
    ],
)
def test_more_than_conditions_is_refused(condition):
    with pytest.raises(ConfigError, match="condition"):
        ops.general_field(condition=condition)


NUMBERS = st.one_of(st.sampled_from(["a", "b"]), st.integers(0, 5).map(str))
TERMS = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({' '.join(t)})"),
    max_leaves=4,
)
COMPARED = st.tuples(TERMS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), TERMS)
CONDITIONS = st.recursive(
    COMPARED.map(" ".join),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(
            lambda t: f"({''.join(t)})"
        ),
        inner.map(lambda t: f"not ({t})"),
    ),
    max_leaves=6,
)


@given(CONDITIONS, st.integers(-3, 5), st.integers(-3, 5))
def test_conditions_are_what_python_says(condition, a, b):
    values = {"a": a, "b": b}
    assert parse_condition(condition)(values.get) == eval(condition, {}, values)


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_refused(text):
    try:
        condition = parse_condition(text)
    except ConfigError:
        return
    condition(lambda path: None)


def test_a_condition_reads_what_filters_measured(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": "x" * n}) for n in (1, 5, 9)))
    chain = [ops.text_length(min=0), ops.general_field(condition="stats.text_length >= 5")]
    result = (
        Dataset.read(tmp_path / "a.jsonl")
        .apply(*chain)
        .write(tmp_path / "out", keep_statistics=True, trace=True)
    )
    assert result.rows_out == 2
    assert result.why(0)[0]["reason"] == "not: stats.text_length >= 5"
