import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn_spaces import KINDS, drawn_spaces
from sharpen.core.conditions import Eq, P
from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int
from sharpen.core.space import Space
from sharpen.core.spaces import from_json_schema, to_json_schema
from sharpen.testing.search import mixed_space

SOME = Space(
    lr=Float(1e-5, 1, log=True, description="step", unit="1"),
    grid=Float(0.1, 0.7, step=0.2),
    n=Int(2, 10, step=2, default=4),
    odd=Int(1, 9, step=4),
    deep=Bool(),
    depth=Int(1, 9).active_if(Eq("deep", True)),
).forbid("deep == True and n in (2, 4)")


def valid(schema: dict[str, Any], config: dict[str, Any]) -> bool:
    # As JSON has it: an object of plain values.
    checker = jsonschema.Draft202012Validator(schema)
    return bool(checker.is_valid(json.loads(json.dumps(config))))


def accepts(space: Space, config: dict[str, Any]) -> bool:
    try:
        space.validate(config)
    except ConfigError:
        return False
    return True


@settings(deadline=None)
@given(drawn_spaces([*KINDS], with_clauses=True), st.randoms(use_true_random=False))
def test_it_reads_back_equal_and_validators_agree_with_the_space(space: Space, random: Any) -> None:
    schema = json.loads(json.dumps(to_json_schema(space)))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert from_json_schema(schema) == space
    drawn = [[random.random() for _ in range(space.dimensions)] for _ in range(8)]
    for config in space.decode(drawn):
        assert valid(schema, config) == accepts(space, config)
        # With and without each parameter: presence is as the conditions say.
        for name in space:
            changed = {k: v for k, v in config.items() if k != name}
            assert valid(schema, changed) == accepts(space, changed)
            changed[name] = space[name].default_value()
            assert valid(schema, changed) == accepts(space, changed)


def test_without_annotations_the_configurations_are_the_same() -> None:
    schema = to_json_schema(SOME, annotations=False)
    assert "x-sharpen" not in json.dumps(schema)
    assert schema["properties"]["n"] == {
        "type": "integer",
        "minimum": 2,
        "maximum": 10,
        "multipleOf": 2,
        "default": 4,
    }
    assert schema["properties"]["grid"] == {"enum": [0.1, 0.3, 0.5, 0.7]}
    assert schema["properties"]["odd"] == {"enum": [1, 5, 9]}
    part = Space(lr=SOME["lr"], n=SOME["n"])
    read = from_json_schema(to_json_schema(part, annotations=False))
    assert read == Space(lr=Float(1e-5, 1, description="step"), n=Int(2, 10, step=2, default=4))


def test_a_schema_from_elsewhere_is_read() -> None:
    schema = {
        "title": "Training",
        "type": "object",
        "properties": {
            "rate": {"type": "number", "minimum": 0, "maximum": 1},
            "kind": {"enum": ["a", "b"], "default": "b"},
            "fast": {"type": "boolean", "description": "quick"},
            "seed": {"const": 3},
        },
    }
    assert from_json_schema(schema) == Space(
        rate=Float(0, 1),
        kind=Categorical("a", "b", default="b"),
        fast=Bool(description="quick"),
        seed=Fixed(3),
    )


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("x", {"type": "string"}, "'x' is {'type': 'string'}"),
        ("x", {"type": "integer", "minimum": 1}, "'x' is .* with minimum and maximum"),
        ("x", {"type": "boolean", "title": "X"}, "something at 'x' that is no part"),
        ("x", {"enum": [1]}, "Write const"),
        ("x", {"type": "integer", "minimum": 3, "maximum": 1}, "x: low=3"),
    ],
)
def test_a_property_that_is_no_parameter_is_named(name: str, given: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        from_json_schema({"type": "object", "properties": {name: given}})


def test_a_schema_that_says_more_than_a_space_is_refused() -> None:
    plain = {"type": "object", "properties": {"x": {"type": "boolean"}}}
    with pytest.raises(SpaceError, match="something at anyOf, maxProperties"):
        from_json_schema({**plain, "anyOf": [], "maxProperties": 1})
    with pytest.raises(SpaceError, match="of type 'object' with properties"):
        from_json_schema({"type": "array"})
    changed = json.loads(json.dumps(to_json_schema(SOME)))
    changed["properties"]["depth"]["maximum"] = 12
    with pytest.raises(SpaceError, match=r"'depth'.* x-sharpen says something else"):
        from_json_schema(changed)


def test_what_a_schema_cannot_say_is_named() -> None:
    with pytest.raises(SpaceError, match=r"the forbidden clause: '.*' computes"):
        to_json_schema(Space(a=Float(0, 1), b=Float(0, 1)).forbid("a + b > 1"))
    space = Space(a=Float(0, 1), b=Float(0, 1), c=Bool().active_if(P("a") < P("b")))
    with pytest.raises(SpaceError, match="condition of 'c': 'a' < b compares two parameters"):
        to_json_schema(space)
    with pytest.raises(SpaceError, match="the step of 'a': 10,001 values are too many"):
        to_json_schema(Space(a=Float(0, 1, step=1e-4)))


def test_the_mixed_space_is_a_schema_but_for_its_arithmetic() -> None:
    space = mixed_space()
    bare = Space(dict(space))
    assert from_json_schema(to_json_schema(bare)) == bare
