import pytest

from sharpen.core.collections import Permutation
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search.auto import choose

SPACE = Space(x=Float(0, 1))
WIDE = Space({f"x{i}": Float(0, 1) for i in range(60)})
TWO = (Objective("a"), Objective("b"))
THREE = (*TWO, Objective("c"))


def test_the_table_of_choices_holds() -> None:
    assert choose(SPACE).name == "tpe"
    assert choose(SPACE, budget=10).name == "sobol"
    assert choose(SPACE, budget=15).name == "gp"
    assert choose(SPACE, budget=300).name == "gp"
    assert choose(SPACE, budget=301).name == "tpe"
    assert choose(Space({f"x{i}": Float(0, 1) for i in range(20)}), budget=99).name == "gp"
    assert choose(Space({f"x{i}": Float(0, 1) for i in range(21)}), budget=99).name == "tpe"
    assert choose(Space(order=Permutation(4)), budget=99).name == "tpe"
    assert choose(SPACE, constraints=[Constraint("c", "<=", 0)], budget=99).name == "gp"
    assert choose(WIDE, budget=10).name == "tpe"
    assert choose(SPACE, TWO).name == "tpe"
    assert choose(SPACE, TWO, budget=10).name == "sobol"
    assert choose(SPACE, TWO, budget=15).name == "ehvi"
    assert choose(SPACE, THREE, budget=300).name == "ehvi"
    assert choose(SPACE, (*THREE, Objective("d")), budget=300).name == "tpe"
    assert choose(SPACE, TWO, budget=301).name == "nsga2"
    assert choose(Space(order=Permutation(4)), TWO, budget=301).name == "nsga2"
    assert choose(Space(order=Permutation(4)), TWO, budget=99).name == "tpe"
    assert choose(SPACE, fidelity=Fidelity("epochs", 1, 9)).name == "bohb"
    assert choose(SPACE, fidelity=Fidelity("mesh", 0, 1)).name == "tpe"  # no rung at 0
    assert choose(SPACE, TWO, fidelity=Fidelity("epochs", 1, 9)).name == "tpe"
    made = choose(SPACE, contexts=SPACE, budget=30, seed=4)
    assert (made.name, made.budget, made.seed) == ("contextual-gp", 30, 4)
    assert choose(SPACE, contexts=SPACE).name == "chebcb"
    assert choose(SPACE, contexts=SPACE, budget=14).name == "chebcb"
    assert choose(SPACE, contexts=SPACE, budget=301).name == "chebcb"
    half = Space({f"x{i}": Float(0, 1) for i in range(10)})
    assert choose(half, contexts=half, budget=30).name == "contextual-gp"


def test_without_torch_it_takes_tpe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.search.auto.find_spec", lambda name: name != "torch" or None)
    assert choose(SPACE, budget=99).name == "tpe"
    assert choose(SPACE, TWO, budget=99).name == "tpe"
    assert choose(SPACE, contexts=SPACE, budget=99).name == "chebcb"


def test_without_scipy_it_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.search.auto.find_spec", lambda name: None)
    assert choose(SPACE).name == "random"
