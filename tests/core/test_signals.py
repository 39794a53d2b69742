import math

from sharpen.core.signals import Curve, Panel, curves_of, logged

ROWS = [
    {"stage": "a", "step": 1, "name": "x", "value": 1.0},
    {"stage": "b", "step": 1, "name": "x", "value": 5.0},
    {"stage": "a", "step": None, "name": "measured.y", "value": 2.0},
    {"stage": "a", "step": 2, "name": "x", "value": None},
    {"stage": "a", "step": 3, "name": "x", "value": 3.0},
]


def test_curves_are_of_one_stage_and_have_steps() -> None:
    found = curves_of(ROWS, "a")
    assert list(found) == ["x"]
    assert found["x"].steps == [1, 2, 3]
    assert found["x"].values[0] == 1.0
    assert math.isnan(found["x"].values[1])
    assert curves_of(ROWS, "none") == {}


def test_means_are_of_finite_values_at_the_ends() -> None:
    curve = Curve([1, 2, 3, 4], [1.0, math.nan, 2.0, 6.0])
    assert curve.first(2) == 1.5
    assert curve.last(2) == 4.0
    assert math.isnan(Curve([1], [math.nan]).last())


def test_panels_keep_the_lines_that_are_logged() -> None:
    both = Panel(title="both", unit="s", lines={"a": "A", "b": "B"})
    other = Panel(title="other", unit="s", lines={"c": "C"})
    found = logged([both, other], {"b": 0, "z": 0})
    assert [(one.title, dict(one.lines)) for one in found] == [("both", {"b": "B"})]
