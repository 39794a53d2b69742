"""``tree.json`` is what ConfigSpace 1.2.2's ``to_json`` writes for the space ``TREE``."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from drawn_spaces import drawn_spaces
from sharpen.core.conditions import Eq, Gt, In, Lt, P
from sharpen.core.errors import ConfigError, SpaceError
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int, Ordinal
from sharpen.core.space import Space
from sharpen.core.spaces import from_configspace, to_configspace
from sharpen.testing.search import mixed_space

GIVEN = json.loads((Path(__file__).parent / "tree.json").read_text())
TREE = Space(
    batch=Ordinal([16, 32, 64]),
    flag=Bool(),
    kind=Categorical("mlp", "tree", "svm", weights=[1, 2, 1], default="tree"),
    lr=Float(1e-5, 1e-1, log=True),
    seed=Fixed(7),
    depth=Int(1, 32, default=16).active_if(In("kind", ["tree", "svm"])),
    x=Float(-1, 1).active_if(Eq("kind", "tree") & Gt("depth", 3)),
).forbid(
    Eq("batch", 64) & In("kind", ["svm", "mlp"]),
    (Eq("flag", True) & Eq("kind", "svm")) | (P("depth") <= 1),
    Gt("depth", 30),
    P("lr") < P("x"),
)
KINDS = ["float", "log float", "int", "log int", "bool", "fixed", "words", "numbers"]


def test_what_configspace_wrote_is_read_and_written_again() -> None:
    assert from_configspace(GIVEN) == TREE
    written = to_configspace(TREE, name="tree")
    lr = written["hyperparameters"][3]
    lr["default_value"] = pytest.approx(lr["default_value"], rel=1e-12)
    assert written == GIVEN


def accepts(space: Space, config: dict[str, Any]) -> bool:
    try:
        space.validate(config)
    except ConfigError:
        return False
    return True


@settings(deadline=None)
@given(drawn_spaces([*KINDS, "weighted", "ordinal"], with_clauses=True))
def test_what_is_written_reads_back_as_a_space_of_the_same_configurations(space: Space) -> None:
    written = to_configspace(space)
    again = from_configspace(json.loads(json.dumps(written)))
    assert to_configspace(again) == written
    assert {name: p.options() for name, p in again.items()} == {
        name: p.options() for name, p in space.items()
    }
    for row in space.decode([[u] * space.dimensions for u in (0.0, 0.2, 0.5, 0.7, 1.0)]):
        assert accepts(again, row) == accepts(space, row)


@given(drawn_spaces([*KINDS, "weighted", "ordinal"]))
def test_without_conditions_it_reads_back_equal(space: Space) -> None:
    assert from_configspace(to_configspace(space)) == space


def test_what_cannot_be_said_is_named() -> None:
    with pytest.raises(SpaceError) as caught:
        to_configspace(mixed_space())
    for part in ("'order', a Permutation", "'grid', the step of a Float"):
        assert part in str(caught.value)
    space = Space(a=Float(0, 1), b=Bool().active_if(P("a") <= 0.5), c=Categorical((1, 2), 3))
    with pytest.raises(SpaceError, match=r"condition of 'b': 'a' <= 0.5.*'c', whose choices"):
        to_configspace(space.subspace(["a", "b", "c"]))
    with pytest.raises(SpaceError, match="every value of 'a' but"):
        to_configspace(Space(a=Float(0, 1)).forbid("a != 0.5"))
    with pytest.raises(SpaceError, match=r"'.a \+ a. < 1' computes"):
        to_configspace(Space(a=Float(0, 1)).forbid("a + a < 1"))
    with pytest.raises(SpaceError, match="'a' != b"):
        to_configspace(Space(a=Float(0, 1), b=Float(0, 1)).forbid("a != b"))


def test_all_but_some_values_is_a_list_of_the_others() -> None:
    space = Space(a=Categorical("x", "y", "z"), b=Int(0, 3)).forbid(
        Lt("b", 1) & ~In("a", ["x"]), "a != 'x' and b == 3"
    )
    first, second = to_configspace(space)["forbiddens"]
    assert first["clauses"][1] == {"type": "IN", "name": "a", "values": ["y", "z"]}
    assert second["clauses"][0] == {"type": "IN", "name": "a", "values": ["y", "z"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 0.3}, "reads ConfigSpace's format 0.4, got 0.3"),
        ({"hyperparameters": [{"type": "normal_float", "name": "q"}]}, "'q' is of the type"),
        (
            {"hyperparameters": [{"type": "constant", "name": "q", "value": 1, "meta": {"a": 1}}]},
            "'q' has meta",
        ),
        ({"conditions": [{"type": "GE", "child": "x", "parent": "lr", "value": 1}]}, "'GE'"),
        ({"conditions": [{"type": "EQ", "child": "y", "parent": "lr", "value": 1}]}, "on 'y'"),
        ({"forbiddens": [{"type": "CLAUSE_NE", "name": "x", "value": 1}]}, "'CLAUSE_NE'"),
    ],
)
def test_what_is_no_space_here_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        from_configspace({**GIVEN, **change})


def test_relations_of_older_versions_are_read() -> None:
    old = {"type": "RELATION", "left": "lr", "right": "x", "lambda": "LT"}
    space = from_configspace({**GIVEN, "forbiddens": [old]})
    assert [str(clause) for clause in space.forbidden] == ["lr < x"]


@pytest.mark.peer
def test_configspace_reads_what_is_written() -> None:
    pytest.importorskip("ConfigSpace")
    from ConfigSpace import ConfigurationSpace

    read = ConfigurationSpace.from_serialized_dict(to_configspace(TREE))
    for config in read.sample_configuration(50):
        TREE.validate({k: v.item() if hasattr(v, "item") else v for k, v in dict(config).items()})
