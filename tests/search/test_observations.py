import itertools
import math

import numpy as np
import pytest

from sharpen.core.feedback import Feedback, Trial
from sharpen.core.optimizer import is_feasible
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search.observations import Observations

SPACE = Space(x=Float(0, 10))
LIMIT = Constraint("m", "<", 1.0)


def _trial(number: int, loss: float, m: float = 0.0, status: str = "ok") -> Trial:
    feedback = Feedback(objectives={"v": loss}, constraints={"m": m}, status=status)
    return Trial(
        number=number,
        config={"x": float(number % 10)},
        state=feedback.status,
        feedback=feedback,
        feasible=is_feasible(feedback, [LIMIT]),
        fidelity=None if number % 2 else 3.0,
    )


TRIALS = [
    _trial(0, 5.0),
    _trial(1, 1.0, 4.0),
    _trial(2, -3.0, status="failed"),
    _trial(3, 2.0),
    _trial(4, math.nan),
    _trial(5, 0.0, 1.0),
]


def test_rows_are_by_number_in_whatever_order_trials_are_told() -> None:
    for order in itertools.permutations(TRIALS):
        seen = Observations(SPACE, [Objective("v")], [LIMIT], Fidelity("epochs", 1, 9))
        seen.add(order[:2])
        seen.add(order[2:])
        assert seen.numbers.tolist() == [0, 1, 2, 3, 4, 5]
        np.testing.assert_allclose(seen.x[:, 0], [0, 0.1, 0.2, 0.3, 0.4, 0.5])
        np.testing.assert_array_equal(seen.loss[:, 0], [5, 1, -3, 2, np.nan, 0])
        assert seen.ok.tolist() == [True, True, False, True, False, True]
        assert seen.good.tolist() == [True, False, False, True, False, False]
        assert seen.fidelity.tolist() == [3, 9, 3, 9, 3, 9]


def test_merit_puts_feasible_trials_first_and_failed_ones_last() -> None:
    seen = Observations(SPACE, [Objective("v")], [LIMIT])
    seen.add(TRIALS)
    assert np.argsort(seen.merit(), kind="stable").tolist()[:4] == [3, 0, 5, 1]
    assert seen.merit()[2] == seen.merit()[4] > seen.merit()[1]
    assert np.isfinite(seen.merit()).all()


def test_missing_losses_are_the_worst_plus_a_standard_deviation() -> None:
    seen = Observations(SPACE, [Objective("v", "max")])
    seen.add(TRIALS)
    known = [-5.0, -1.0, -2.0, 0.0]
    worst = max(known) + np.std(known)
    np.testing.assert_allclose(seen.imputed()[:, 0], [-5, -1, worst, -2, worst, 0])


def test_nothing_known_is_no_error() -> None:
    seen = Observations(SPACE, [Objective("v")], [LIMIT])
    assert len(seen) == 0
    assert seen.merit().shape == (0,)
    seen.add([TRIALS[2]])
    assert seen.imputed().tolist() == [[0.0]]
    assert np.isfinite(seen.merit()).all()


def test_a_trial_told_twice_takes_its_own_place_and_arrays_cannot_be_changed() -> None:
    seen = Observations(SPACE, [Objective("v")], [LIMIT])
    seen.add([TRIALS[0], TRIALS[3], _trial(0, 7.0)])
    assert seen.loss[:, 0].tolist() == [7, 2]
    with pytest.raises(ValueError, match="read-only"):
        seen.x[0] = 1
