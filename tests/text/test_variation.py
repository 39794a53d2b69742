"""Configurations near others, and between two."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

from sharpen.core.conditions import Eq, P
from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.space import Space
from sharpen.core.text_parameter import Text
from sharpen.text.edits import sentences
from sharpen.text.variation import crossover, neighbors

CODE = "def f(x, y):\n    return x + y > 1\n"


def space() -> Space:
    return Space(
        rule=Text(default="A. B. C.", rule=lambda text: len(text) < 40, constraint="short"),
        code=Text(default=CODE, kind="code"),
        data=Text(default=[1], kind="json"),
        x=Float(0.0, 1.0),
        kind=Categorical("a", "b"),
        n=Int(1, 9).active_if(Eq("kind", "b")),
        on=Bool(),
    ).forbid(P("x") > 0.9)


def test_each_kind_of_variable_is_changed_alone_and_all_are_valid() -> None:
    config = {**space().default(), "kind": "b", "n": 5}
    found = neighbors(space(), config, 60, phrases=["D.", "E."], seed=1)
    assert len(found) == 60
    changed: dict[str, list[Any]] = {}
    for one in found:
        assert space().validate(one) == one
        differ = {name for name in config if one.get(name) != config[name]} - {"n"}
        assert len(differ) <= 1
        name = min(differ) if differ else "n"
        changed.setdefault(name, []).append(one.get(name))
    assert set(changed) == {"rule", "code", "x", "kind", "n", "on"}
    assert all(ast.parse(text) for text in changed["code"])
    assert any("D." in text for text in changed["rule"])
    assert neighbors(space(), config, 60, phrases=["D.", "E."], seed=1) == found
    with pytest.raises(ConfigError):
        neighbors(space(), {**config, "x": 0.95})


@settings(max_examples=60, deadline=None)
@given(hyp.integers(0, 10**6), hyp.integers(0, 10**6))
def test_a_child_has_parts_of_its_parents(seed: int, other: int) -> None:
    first = {**space().default(), "rule": "A. B. C."}
    (second,) = neighbors(space(), {**first, "kind": "b", "n": 3, "rule": "D. E."}, 1, seed=other)
    child = crossover(space(), first, second, seed=seed)
    assert space().validate(child) == child
    for name in ("code", "x", "kind", "on"):
        assert child[name] in (first[name], second[name])
    own = sentences(child["rule"])
    both = set(sentences(first["rule"])) | set(sentences(second["rule"]))
    assert own
    assert set(own) <= both
    assert len(set(own)) == len(own)


def test_texts_that_cannot_change_have_no_neighbours() -> None:
    assert neighbors(Space(rule=Text(default="One.")), {"rule": "One."}, 3) == []
    assert neighbors(Space(code=Text(default="def", kind="code")), {"code": "def"}, 3) == []
