import pickle
from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Float
from sharpen.core.problem import (
    Constraint,
    FunctionProblem,
    Objective,
    Problem,
    TrialContext,
    as_feedback,
    evaluate,
    is_importable,
    problem,
)
from sharpen.core.space import Space

SPACE = Space(x=Float(-5, 5))


@problem(SPACE, minimize="loss", constraints=["memory <= 8e9"])
def quadratic(config: dict[str, Any], trial: TrialContext) -> dict[str, Any]:
    """Loss and memory."""
    for step in range(3):
        if trial.report(step, config["x"] ** 2 + step) == "stop":
            break
    return {"loss": config["x"] ** 2, "memory": 1e9, "note": "n", "array": np.float64(2)}


def test_a_decorated_function_is_a_problem_and_still_a_function() -> None:
    assert isinstance(quadratic, Problem)
    assert quadratic.name == "quadratic"
    assert quadratic.__doc__ == "Loss and memory."
    assert quadratic.objectives == (Objective("loss"),)
    assert quadratic.constraints == (Constraint("memory", "<=", 8e9),)
    assert quadratic({"x": 2.0}, TrialContext())["loss"] == 4.0
    assert quadratic.evaluate({"x": 2.0})["loss"] == 4.0
    assert "quadratic" in repr(quadratic)


def test_evaluation_returns_values_trace_cost_and_further_keys() -> None:
    feedback = evaluate(quadratic, {"x": 2.0}, TrialContext(seed=1))
    assert feedback.status == "ok"
    assert feedback.objectives == {"loss": 4.0}
    assert feedback.constraints == {"memory": 1e9}
    assert feedback.info == {"note": "n", "array": 2.0}
    assert [(p.step, p.value) for p in feedback.trace] == [(0, 4.0), (1, 5.0), (2, 6.0)]
    assert feedback.cost["seconds"] >= feedback.trace[-1].elapsed_s >= 0


def test_a_trial_that_is_told_to_stop_ends_pruned_with_what_it_has() -> None:
    feedback = evaluate(quadratic, {"x": 2.0}, TrialContext(on_report=lambda point: "stop"))
    assert (feedback.status, len(feedback.trace)) == ("pruned", 1)
    assert feedback.objectives == {"loss": 4.0}


def test_an_exception_becomes_a_failed_feedback_with_the_traceback_of_user_code() -> None:
    def broken(config: dict[str, Any]) -> float:
        raise ZeroDivisionError("no luck")

    feedback = evaluate(problem(SPACE, broken, minimize="y"), {"x": 1.0})
    assert feedback.status == "failed"
    assert feedback.error is not None
    assert "ZeroDivisionError: no luck" in feedback.error
    assert "in broken" in feedback.error
    assert "core/problem.py" not in feedback.error


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"los": 1.0}, "returned no 'loss'. Did you mean 'los'?"),
        ({}, "It returned: nothing"),
        ({"loss": "low"}, "'loss' must be a number"),
        ("text", "'loss' must be a number"),
        ([1.0, 2.0], "return a mapping with the keys loss"),
        (None, "'loss' must be a number"),
    ],
)
def test_a_result_without_the_objective_says_so(result: Any, message: str) -> None:
    feedback = evaluate(problem(SPACE, lambda config: result, minimize="loss"), {"x": 1.0})
    assert feedback.status == "failed"
    assert feedback.error is not None
    assert message in feedback.error


def test_numbers_sequences_and_feedback_are_results_too() -> None:
    one, two = (Objective("a"),), (Objective("a"), Objective("b"))
    assert as_feedback(3, one, ()).objectives == {"a": 3.0}
    assert as_feedback((1, 2), two, ()).objectives == {"a": 1.0, "b": 2.0}
    given = Feedback(objectives={"a": 1.0})
    assert as_feedback(given, one, ()) is given
    with pytest.raises(DataError, match="no 'm'"):
        as_feedback(given, one, (Constraint("m"),))
    failed = Feedback(status="failed")
    assert as_feedback(failed, one, ()) is failed


def test_an_importable_problem_pickles_by_name_and_another_by_its_parts() -> None:
    assert is_importable(quadratic)
    assert pickle.loads(pickle.dumps(quadratic)) is quadratic
    plain = problem(SPACE, len, minimize="y", name="length")
    again = pickle.loads(pickle.dumps(plain))
    assert (again.name, again.function, again.space) == ("length", len, SPACE)
    local = problem(SPACE, lambda config: 0.0, minimize="y")
    assert not is_importable(local)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(local)


@pytest.mark.parametrize(
    ("text", "value", "holds", "margin"),
    [
        ("memory <= 8e9", 8e9, True, 0.0),
        ("memory<8e9", 8e9, False, 0.0),
        (" a.b-c >= -2 ", -3.0, False, 1.0),
        ("x > 1", 2.0, True, -1.0),
    ],
)
def test_constraints_are_read_and_judged(
    text: str, value: float, holds: bool, margin: float
) -> None:
    constraint = Constraint.parse(text)
    assert constraint.holds(value) is holds
    assert constraint.margin(value) == margin
    assert Constraint.parse(str(constraint)) == constraint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constraint.parse("memory == 3"), "is no constraint"),
        (lambda: Constraint.parse("memory <= lots"), "is no constraint"),
        (lambda: Constraint.parse("memory <= nan"), "is no constraint"),
        (lambda: problem(SPACE)(len), "needs an objective"),
        (lambda: problem(SPACE, len, minimize=["a", "a"]), "given twice"),
        (lambda: problem(SPACE, len, minimize=""), "needs a name"),
        (lambda: problem(SPACE, len, minimize="a", constraints="m<=1"), None),
        (
            lambda: problem(SPACE, len, minimize="a", constraints=["m <= 1", "m <= 2"]),
            "given twice",
        ),
        (lambda: problem(SPACE, lambda: 0, minimize="a"), "must take"),
        (lambda: problem(SPACE, lambda a, b, c: 0, minimize="a"), "must take"),
        (lambda: FunctionProblem(len, "space", [Objective("a")]), "needs a Space"),  # type: ignore[arg-type]
        (lambda: Objective("a", "up"), "direction"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_problem_says_how_to_mend_it(make: Any, message: str | None) -> None:
    if message is None:
        assert make().constraints == (Constraint("m", "<=", 1.0),)
        return
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_trial_is_given_to_functions_that_ask_for_it() -> None:
    def optional(config: Any, trial: Any = None) -> bool:
        return trial is not None

    def other_default(config: Any, scale: float = 2.0) -> float:
        return scale

    def anything(*arguments: Any) -> int:
        return len(arguments)

    assert problem(SPACE, optional, minimize="y").evaluate({}) is True
    assert problem(SPACE, other_default, minimize="y").evaluate({}) == 2.0
    assert problem(SPACE, anything, minimize="y").evaluate({}) == 2
