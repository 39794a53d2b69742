import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.space import Space
from sharpen.search import ASHA
from sharpen.search.rungs import rung_levels

LINE = Space(x=Float(0, 1))
EPOCHS = Fidelity("epochs", 1, 9, integer=True)


def _trial(number: int, value: float, fidelity: float | None = None, memory: float = 0) -> Trial:
    return Trial(
        number=number,
        config={"x": number / 100},
        state="ok",
        fidelity=fidelity,
        feedback=Feedback(objectives={"value": value}, constraints={"memory": memory}),
        feasible=memory <= 1,
    )


@pytest.mark.parametrize(
    ("fidelity", "eta", "levels"),
    [
        (Fidelity("epochs", 1, 81, integer=True), 3, [1, 3, 9, 27, 81]),
        (Fidelity("epochs", 1, 100, integer=True), 3, [1, 4, 11, 33, 100]),
        (Fidelity("share", 1 / 16, 1), 4, [1 / 16, 1 / 4, 1]),
        (Fidelity("share", 0.1, 1), 3, [1 / 9, 1 / 3, 1]),
        (Fidelity("epochs", 5, 9), 3, [9]),
        (Fidelity("share", 1e-3, 1), 10, [1e-3, 1e-2, 1e-1, 1]),
    ],
)
def test_rungs_are_powers_of_eta_down_from_the_top(
    fidelity: Fidelity, eta: int, levels: list[float]
) -> None:
    assert rung_levels(fidelity, eta) == pytest.approx(levels, rel=1e-12)


@given(st.integers(1, 50), st.integers(1, 2000), st.integers(2, 5))
def test_whole_rungs_rise_and_are_allowed(low: int, span: int, eta: int) -> None:
    fidelity = Fidelity("epochs", low, low + span, integer=True)
    levels = rung_levels(fidelity, eta)
    assert levels == sorted(set(levels))
    assert [fidelity.check(level) for level in levels] == levels
    assert levels[-1] == fidelity.high
    assert low <= levels[0] < low * eta + eta


@pytest.mark.parametrize(
    "fidelity",
    [Fidelity("share", 0, 1), Fidelity("source", 0, 1, integer=True, costs=(1, 5))],
)
def test_what_is_no_ladder_is_refused(fidelity: Fidelity) -> None:
    with pytest.raises(ConfigError, match="a ladder needs low > 0"):
        ASHA(LINE, fidelity=fidelity)


def test_eta_below_two_is_refused() -> None:
    with pytest.raises(ConfigError, match="eta=1 must be at least 2"):
        ASHA(LINE, eta=1)


def test_recommends_the_best_at_the_highest_fidelity_that_has_a_feasible_trial() -> None:
    most, limit = Objective("value", "max"), Constraint("memory", "<=", 1)
    optimizer = ASHA(LINE, [most], [limit], fidelity=EPOCHS)
    with pytest.raises(ConfigError, match="nothing to recommend"):
        optimizer.recommend()
    optimizer.tell([_trial(0, 9.0, 1), _trial(1, 5.0, 3), _trial(2, 6.0, 3)])
    found = optimizer.recommend()
    assert found.config == {"x": 0.02}
    assert "at epochs 3: none was measured in full" in found.why
    optimizer.tell([_trial(3, 7.0, 9, memory=2), _trial(4, 1.0), _trial(5, 0.0, 9)])
    assert optimizer.recommend().config == {"x": 0.04}
    assert "none was" not in optimizer.recommend().why


def test_better_is_feasible_by_loss_then_by_violation_then_failed() -> None:
    optimizer = ASHA(LINE, constraints=[Constraint("memory", "<=", 1)], fidelity=EPOCHS)
    failed = Trial(number=0, config={"x": 0}, state="failed", feedback=Feedback(status="failed"))
    trials = [failed, _trial(1, -9, memory=3), _trial(2, 0, memory=2), _trial(3, 5), _trial(4, 2)]
    assert [s[2] for s in sorted(map(optimizer.standing, trials))] == [4, 3, 2, 1, 0]
