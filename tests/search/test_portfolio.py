import math
from typing import Any, ClassVar

import numpy as np
import pytest

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint
from sharpen.core.space import Space
from sharpen.search import Portfolio
from sharpen.search.portfolio import area_under_curve
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space

LINE = Space(x=Float(0, 1))
PAIR = ["random", "halton"]


class TestPortfolio(OptimizerConformance):
    optimizer = Portfolio
    evaluations: ClassVar[int] = 80


def played(optimizer: Portfolio, losses: list[float]) -> list[str]:
    """Members that got the trials with these losses."""
    names = []
    for loss in losses:
        [candidate] = optimizer.ask()
        names.append(candidate.origin.removeprefix("portfolio:"))
        optimizer.tell([candidate.result(loss)])
    return names


def test_the_area_is_that_under_the_steps_of_success() -> None:
    # Up by one for a success, level otherwise; scaled by the area of all successes.
    for successes in ([1, 0, 0, 1, 1], [0, 1], [1], [0, 0, 0], [1, 1, 1]):
        heights = np.cumsum(successes[::-1])  # AUC weighs the latest most
        assert area_under_curve([bool(s) for s in successes]) == pytest.approx(
            sum(heights) / sum(range(1, len(successes) + 1))
        )


def test_the_bandit_follows_the_formula() -> None:
    optimizer = Portfolio(LINE, members=PAIR, exploration=0.3, window=6)
    names = played(optimizer, [5.0, 4.0, 6.0, 3.0, 3.0, 2.0, 9.0, 8.0, 1.0])
    assert names[:2] == PAIR
    successes = [True, True, False, True, False, True, False, False, True]
    values = optimizer.values()
    for name in PAIR:
        mine = [s for n, s in list(zip(names, successes, strict=True))[-6:] if n == name]
        explored = 0.3 * math.sqrt(2 * math.log2(6) / len(mine)) if mine else math.inf
        assert values[name] == pytest.approx(area_under_curve(mine) + explored)


def test_polishing_the_last_digits_is_no_success() -> None:
    optimizer = Portfolio(LINE, members=PAIR, exploration=0.0, gain=0.01)
    names = played(optimizer, [10.0, 4.0, 6.0, 3.99, 3.9])
    expected: dict[str, list[bool]] = {name: [] for name in PAIR}
    for name, success in zip(names, [True, True, False, True, True], strict=True):
        expected[name].append(success)
    assert optimizer.values() == {n: area_under_curve(s) for n, s in expected.items()}
    wide = Portfolio(LINE, members=PAIR, exploration=0.0, gain=0.01)
    names = played(wide, [10.0, 4.0, 60.0, 3.99, 70.0, 80.0])  # 0.01 (35 - 3.99) is more than 0.01
    expected = {name: [] for name in PAIR}
    for name, success in zip(names, [True, True, False, False, False, False], strict=True):
        expected[name].append(success)
    assert wide.values() == {n: area_under_curve(s) for n, s in expected.items()}


def test_who_succeeds_gets_most_trials_and_the_other_is_tried_again() -> None:
    optimizer = Portfolio(LINE, members=PAIR, window=50)
    counts, best = {"random": 0, "halton": 0}, 1000.0
    for _ in range(120):
        [candidate] = optimizer.ask()
        name = candidate.origin.removeprefix("portfolio:")
        counts[name] += 1
        best -= name == "halton"
        optimizer.tell([candidate.result(best + (name == "random"))])
    assert counts["halton"] > 100
    assert counts["random"] >= 3


def test_running_failed_and_infeasible_trials_are_no_successes() -> None:
    optimizer = Portfolio(LINE, constraints=[Constraint("c", "<=", 0.0)], members=PAIR)
    optimizer.exploration = 0.05
    first, second = optimizer.ask(2)
    optimizer.tell([first.result(Feedback(status="failed", error="no"))])
    optimizer.tell([second.result({"value": 1.0, "c": 2.0})])
    spread = 0.05 * math.sqrt(2 * math.log2(2))
    # The infeasible one is better than all before it, which failed.
    assert optimizer.values() == pytest.approx({"random": spread, "halton": 1 + spread})
    [third] = optimizer.ask()
    assert third.origin == "portfolio:halton"
    assert optimizer.values()["halton"] < 1


def test_all_members_learn_from_all_trials() -> None:
    members: list[Any] = ["de", {"name": "de", "factor": 0.9}, "tpe"]
    optimizer = Portfolio(mixed_space(), members=members)
    assert list(optimizer.members) == ["de", "de-2", "tpe"]
    played(optimizer, [float(k % 7) for k in range(30)])
    for member in optimizer.members.values():
        assert member.history == optimizer.history
        assert not member.pending
    kept, gone = optimizer.ask(2)
    optimizer.ask()
    optimizer.abandon([gone.number])
    assert all(gone.number not in member.pending for member in optimizer.members.values())
    assert kept.number in optimizer.pending


def test_a_study_keeps_who_proposed_what() -> None:
    problem: Any = sh.problem(mixed_space(), lambda c: c["x"] ** 2 + c["grid"], minimize="y")
    budget = sh.Budget(trials=30)
    trials = sh.Study(problem, optimizer="portfolio", store="sqlite://", budget=budget).run()
    assert trials.trials()[0].config == mixed_space().default()
    origins = {trial.origin for trial in trials.trials()}
    assert origins == {f"portfolio:{name}" for name in ("tpe", "cmaes", "de", "annealing")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ["tpe"]}, "must be two optimizers or more"),
        ({"members": "tpe"}, "must be two optimizers or more"),
        ({"members": ["tpe", "tpee"]}, "no optimizer 'tpee'.*Did you mean 'tpe'"),
        ({"window": 1}, "window=1"),
        ({"gain": 1.0}, "gain=1.0 must be"),
        ({"exploration": -1.0}, "exploration=-1.0 must be"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Portfolio(LINE, **options)


def test_a_member_that_cannot_is_named() -> None:
    with pytest.raises(ConfigError, match="the optimizer 'nelder-mead' cannot handle constraints"):
        Portfolio(LINE, constraints=[Constraint("c")], members=["random", "nelder-mead"])
