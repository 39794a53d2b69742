from dataclasses import dataclass, field, fields
from typing import Annotated

import pytest
from hypothesis import given

from drawn_spaces import KINDS, drawn_spaces
from sharpen.core.conditions import Eq, Gt
from sharpen.core.errors import SpaceError
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.space import Space
from sharpen.core.spaces import from_annotations, to_annotations


@dataclass
class Inner:
    kind: Annotated[str, Categorical("a", "b")]
    depth: Annotated[int, Int(1, 8).active_if(Eq("kind", "b"))] = 2


@dataclass(frozen=True)
class Outer:
    lr: Annotated[float, "in 1/s", Float(1e-5, 1e-1, log=True)]
    model: Inner
    steps: int = 100
    flag: Annotated[bool, Bool()] = True
    names: list[str] = field(default_factory=list)


def test_annotated_fields_are_parameters_with_their_defaults() -> None:
    assert from_annotations(Outer) == Space(
        {
            "lr": Float(1e-5, 1e-1, log=True),
            "model.kind": Categorical("a", "b"),
            "model.depth": Int(1, 8, default=2).active_if(Eq("model.kind", "b")),
            "flag": Bool(default=True),
        }
    )


@given(drawn_spaces([*KINDS], with_clauses=True).map(lambda space: Space(dict(space))))
def test_a_dataclass_reads_back_equal(space: Space) -> None:
    made = to_annotations(space, "Made")
    assert from_annotations(made) == space
    assert made.__name__ == "Made"
    values = {name: parameter.default_value() for name, parameter in space.items()}
    assert made() == made(**values)


def test_fields_have_the_types_of_their_values() -> None:
    made = to_annotations(Space(a=Float(0, 1), b=Int(0, 3), c=Bool(), d=Categorical("x", "y")))
    kinds = [f.type.__origin__ for f in fields(made)][:3]  # type: ignore[union-attr]
    assert kinds == [float, int, bool]


def test_what_is_wrong_is_named() -> None:
    @dataclass
    class Two:
        a: Annotated[int, Int(1, 2), Int(3, 4)] = 1

    @dataclass
    class Off:
        a: Annotated[int, Int(1, 2)] = 3

    @dataclass
    class Bare:
        a: int = 3

    for cls, message in [
        (Two, "Two.a is annotated with two parameters"),
        (Off, "the default of Off.a must be an integer from 1 to 2"),
        (Bare, "no field of Bare is annotated"),
        (int, "takes a dataclass"),
    ]:
        with pytest.raises(SpaceError, match=message):
            from_annotations(cls)
    space = Space({"a.b": Int(1, 3), "c": Int(1, 3)}).forbid(Gt("c", 2))
    with pytest.raises(SpaceError, match=r"the forbidden clause c > 2; the name 'a.b'"):
        to_annotations(space)
