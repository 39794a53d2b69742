import json
import math

import numpy as np
import pytest

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.feedback import Feedback, TracePoint, Trial, plain_number


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_makes_the_feedback_failed(value: float) -> None:
    feedback = Feedback(objectives={"loss": value})
    assert feedback.status == "failed"
    assert feedback.error is not None
    assert f"loss={value}" in feedback.error
    assert Feedback(objectives={"loss": 1.0}, constraints={"m": value}).status == "failed"
    assert Feedback(objectives={"loss": value}, status="pruned").status == "pruned"


def test_numbers_of_other_packages_become_floats() -> None:
    feedback = Feedback(objectives={"a": np.float32(0.5), "b": np.int64(3)}, cost={"seconds": 1})
    assert feedback.objectives == {"a": 0.5, "b": 3.0}
    assert all(type(v) is float for v in feedback.objectives.values())
    assert plain_number(np.array(2.5)) == 2.5


@pytest.mark.parametrize("value", ["1", None, True, [1.0]])
def test_what_is_no_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigError, match=r"objectives\['loss'\] must be a number"):
        Feedback(objectives={"loss": value})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="status must be one of ok, failed"):
        Feedback(status="done")  # type: ignore[arg-type]


def test_a_trial_knows_its_value_and_becomes_one_line_of_json() -> None:
    feedback = Feedback(
        objectives={"loss": 1.5}, constraints={"m": 2.0}, trace=(TracePoint(1, math.nan, 0.5),)
    )
    trial = Trial(number=3, config={"x": 1}, state="ok", feedback=feedback)
    assert (trial.value, trial.values, trial.is_ok) == (1.5, {"loss": 1.5}, True)
    row = json.loads(json.dumps(trial.to_dict(), allow_nan=False))
    assert row["values"] == {"loss": 1.5}
    assert row["trace"] == [[1, None, 0.5]]
    running = Trial(number=4, config={"x": 2})
    assert "values" not in running.to_dict()
    with pytest.raises(DataError, match="trial 4 is 'running' and has no value"):
        _ = running.value
