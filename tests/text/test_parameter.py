"""Values of parameters: their kinds, spaces, checks and history."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as hyp

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.text.coerce import coerce, kind_of


@pytest.mark.parametrize(
    ("value", "kind", "given_value", "expected"),
    [
        (True, "bool", "False", False),
        (True, "bool", " yes ", True),
        (True, "bool", 0, False),
        (3, "int", "4", 4),
        (3, "int", 4.0, 4),
        (0.5, "float", "1e-3", 1e-3),
        (0.5, "float", 2, 2.0),
        ({"a": 1}, "json", '{"a": [1, 2]}', {"a": [1, 2]}),
        ([1], "json", (1, 2), [1, 2]),
        ("a", "text", "b", "b"),
    ],
)
def test_values_are_read_by_kind(value: Any, kind: Any, given_value: Any, expected: Any) -> None:
    parameter = st.Parameter(value, "p")
    assert parameter.kind == kind
    parameter.value = given_value
    assert parameter.value == expected
    assert type(parameter.value) is type(expected)
    assert list(parameter.history) == [value]


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (3, 3.7),
        (3, "three"),
        (3, None),
        (3, True),
        (0.5, math.nan),
        (0.5, "inf"),
        (True, "perhaps"),
        (True, 2),
        (True, 0.5),
        ("a", 3),
        ("a", None),
        ([1], [math.nan]),
        ([1], {1, 2}),
    ],
)
def test_other_values_are_refused_and_change_nothing(value: Any, wrong: Any) -> None:
    parameter = st.Parameter(value, "p")
    with pytest.raises(ConfigError, match="parameter 'p' must be"):
        parameter.value = wrong
    assert parameter.value == value
    assert not parameter.history


def test_spaces_and_checks_are_kept() -> None:
    rate = st.Parameter(0.1, "rate", space=Float(0.0, 1.0))
    with pytest.raises(ConfigError, match="rate"):
        rate.value = 2.0
    rule = st.Parameter(
        "one two", "rule", constraint="at most 3 words", check=lambda s: len(s.split()) <= 3
    )
    with pytest.raises(ConfigError, match="at most 3 words"):
        rule.value = "one two three four"
    with pytest.raises(ConfigError, match="no digits"):
        st.Parameter("a1", "x", check=lambda s: "no digits" if any(map(str.isdigit, s)) else None)
    choice = st.Parameter("b", "choice", kind="choice", space=Categorical("a", "b"))
    choice.value = "a"
    with pytest.raises(ConfigError):
        choice.value = "c"
    with pytest.raises(ConfigError):
        st.Parameter(11, "n", space=Int(0, 10))


def test_freezing_takes_it_out_of_later_programs() -> None:
    x = st.Parameter(1.0, "x")
    x.freeze()
    assert x.frozen
    assert not (x + 1).needs_grad
    x.freeze(False)
    assert (x + 1).needs_grad


@pytest.mark.parametrize("value", [object(), {1, 2}, b"raw", st.node(1)])
def test_what_no_kind_holds_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError):
        st.Parameter(value)
    with pytest.raises(ConfigError, match="kind must be one of"):
        st.Parameter("a", kind="poem")  # type: ignore[arg-type]


@given(hyp.one_of(hyp.booleans(), hyp.integers(), hyp.floats(allow_nan=False), hyp.text()))
def test_a_value_survives_its_own_kind(value: Any) -> None:
    if isinstance(value, float) and math.isinf(value):
        return
    kept = coerce(value, kind_of(value))
    assert kept == value
    assert type(kept) is type(value)
