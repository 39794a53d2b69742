import pytest

from sharpen.core.collections import Permutation
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search.auto import choose

SPACE = Space(x=Float(0, 1))
WIDE = Space({f"x{i}": Float(0, 1) for i in range(60)})
TWO = (Objective("a"), Objective("b"))


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
    assert choose(SPACE, TWO, budget=200).name == "tpe"
    assert choose(SPACE, TWO, budget=501).name == "nsga2"
    assert choose(SPACE, fidelity=Fidelity("epochs", 1, 9)).name == "bohb"
    assert choose(SPACE, fidelity=Fidelity("mesh", 0, 1)).name == "tpe"  # no rung at 0
    assert choose(SPACE, TWO, fidelity=Fidelity("epochs", 1, 9)).name == "tpe"
    made = choose(SPACE, contexts=SPACE, budget=30, seed=4)
    assert (made.name, made.budget, made.seed) == ("chebcb", 30, 4)


def test_without_torch_it_takes_tpe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.search.auto.find_spec", lambda name: name != "torch" or None)
    assert choose(SPACE, budget=99).name == "tpe"


def test_without_scipy_it_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.search.auto.find_spec", lambda name: None)
    assert choose(SPACE).name == "random"
