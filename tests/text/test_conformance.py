"""Optimizers of programs keep what every optimizer must keep."""

from __future__ import annotations

import sharpen.text as st
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.space import Space
from sharpen.core.text_parameter import Text
from sharpen.testing.search import OptimizerConformance
from text.improver import Improver


class TestOptoPrime(OptimizerConformance):
    optimizer = staticmethod(st.OptoPrime.maker(Improver(), temperature=1.0, start="best"))


class TestOPRO(OptimizerConformance):
    optimizer = staticmethod(st.OPRO.maker(Improver(), temperature=1.0))


class TestTextGrad(OptimizerConformance):
    optimizer = staticmethod(st.TextGrad.maker(Improver(), temperature=1.0, start="best"))


class TestSearchProposer(OptimizerConformance):
    optimizer = st.SearchProposer


def test_words_and_numbers_are_proposed_together_and_valid() -> None:
    space = Space(
        rule=Text(default="One. Two. Three."),
        code=Text(default="def f(x):\n    return x + 1\n", kind="code"),
        n=Int(0, 9),
        x=Float(0.0, 1.0),
        kind=Categorical("a", "b"),
        on=Bool(),
    )
    optimizer = st.SearchProposer(space, phrases=["Four.", "Five."], seed=2)
    seen = []
    for k in range(60):
        (candidate,) = optimizer.ask()
        assert space.validate(candidate.config) == candidate.config
        seen.append(candidate)
        optimizer.tell([candidate.result({"score": -abs(k - 30)})])
    assert seen[0].config == space.default()
    changed = {one.origin.split("/")[1] for one in seen[1:]}
    assert changed == {"numbers", "rule", "code"}
    numbers = [one.origin.split("/")[2:] for one in seen if "/numbers" in one.origin]
    assert [bool(way) for way in numbers] == [k % 4 > 0 for k in range(len(numbers))]
    assert {way[0] for way in numbers if way} == {"near", "other"}
    rebuilt = st.SearchProposer(space, phrases=["Four.", "Five."], seed=2)
    rebuilt.load_state_dict(optimizer.state_dict())
    assert rebuilt.ask(3) == optimizer.ask(3)
