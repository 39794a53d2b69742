import copy
import gc
import pickle
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Bool, Fixed, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.blocking import Answer, BlockingOptimizer, Function, Lane
from sharpen.testing.search import mixed_space

SPACE = Space(x=Float(0, 1), y=Float(0, 1))


class Descent(BlockingOptimizer):
    """Twelve steps down the gradient."""

    name: ClassVar[str] = "descent"

    def solver(self) -> Callable[[Function, Any], Any]:
        def solve(function: Function, start: Any) -> None:
            x = start
            for _ in range(12):
                x = np.clip(x - 0.2 * function.gradient(x), 0, 1)
                function(x)

        return solve


def threads() -> int:
    return sum(t.name == "sharpen-solver" for t in threading.enumerate())


def loss(config: dict[str, Any]) -> float:
    return sum((float(v) - 0.3) ** 2 for v in config.values() if isinstance(v, float))


def play(optimizer: BlockingOptimizer, trials: int) -> list[dict[str, Any]]:
    configs = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        configs.append(candidate.config)
        optimizer.tell([candidate.result(loss(candidate.config))])
    return configs


def test_two_hundred_abandoned_optimizers_leave_no_thread() -> None:
    gc.collect()
    before = threads()
    optimizers = [Descent(SPACE, seed=seed) for seed in range(200)]
    for optimizer in optimizers:
        optimizer.ask(2)
    assert threads() - before >= 200
    optimizers.clear()
    del optimizer
    gc.collect()
    assert threads() == before


def test_a_run_starts_at_the_default_and_the_next_ones_at_points_of_their_own() -> None:
    optimizer = Descent(SPACE, seed=1)
    configs = [c.config for c in optimizer.ask(6)]
    assert configs[0] == {"x": 0.5, "y": 0.5}
    assert len({c["x"] for c in configs}) == 6
    assert sorted(optimizer._lanes) == list(range(6))


def test_points_of_a_finite_difference_are_measured_side_by_side() -> None:
    optimizer = Descent(SPACE, seed=1)
    play(optimizer, 1)
    first, second, third = optimizer.ask(3)
    moved = [{k for k in "xy" if c.config[k] != 0.5} for c in (first, second)]
    assert sorted(moved, key=str) == [{"x"}, {"y"}]
    assert third.config["x"] not in (0.5, 0.5 + 1e-6)  # of the next run


def test_a_run_that_has_ended_is_followed_by_another() -> None:
    optimizer = Descent(SPACE, seed=1)
    configs = play(optimizer, 100)
    assert optimizer._lanes[0] is None
    assert optimizer._lanes[1] is None
    assert len({tuple(c.values()) for c in configs}) == 100
    assert loss(configs[36]) < 1e-4


@pytest.mark.parametrize("workers", [1, 4])
def test_a_new_instance_goes_on_alike_whatever_ran_side_by_side(workers: int) -> None:
    first = Descent(mixed_space(), seed=3)
    told: list[Trial] = []
    running = list(first.ask(workers))
    for step in range(80):
        done = running.pop((step * 7) % workers)
        told.append(done.result(loss(done.config)))
        first.tell(told[-1:])
        running += first.ask()
    second = Descent(mixed_space(), seed=3)
    second.tell(reversed(told))
    second.tell(c.begun() for c in running)
    number = 80 + workers
    expected = first.propose(number)
    assert second.propose(number) == expected
    for other in (pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        assert other._lanes == {}
        assert other.propose(number) == expected


def test_a_trial_from_elsewhere_answers_and_a_changed_one_runs_the_solver_again() -> None:
    feedback = Feedback(objectives={"value": 7.0})
    start = Trial(number=-1, config={"x": 0.5, "y": 0.5}, state="ok", feedback=feedback)
    optimizer = Descent(SPACE, seed=1)
    optimizer.tell([start])
    assert optimizer.propose(0) != start.config
    play(optimizer, 3)
    earlier = Trial(number=-2, config=start.config, state="ok",
                    feedback=Feedback(objectives={"value": 0.08}))  # fmt: skip
    optimizer.tell([earlier])
    again = Descent(SPACE, seed=1)
    again.tell([earlier, start, *(optimizer.history[n] for n in range(3))])
    assert optimizer.propose(3) == again.propose(3)


def test_failures_are_worse_than_anything_and_a_failed_start_ends_the_run() -> None:
    optimizer = Descent(SPACE, seed=1)
    [start] = optimizer.ask()
    optimizer.tell([start.result(Feedback(status="failed"))])
    optimizer.propose(1)
    assert optimizer._lanes[0] is None
    answers = iter([[Answer(2.0, np.zeros(1), None)], [Answer(np.nan, np.zeros(1), None)]])
    function = Function(lambda points: next(answers), 1e-6)
    assert function(np.zeros(1)) == 2.0
    assert function(np.ones(1)) == 3.0
    assert function.slack(np.ones(1)).tolist() == [-1.0]


def test_gradients_are_forward_differences_that_turn_round_at_the_bound() -> None:
    asked: list[Any] = []

    def evaluate(points: list[Any]) -> list[Answer]:
        asked.extend(points)
        return [Answer(float(p @ p), np.array([p[0] - p[1], 3 * p[1]]), None) for p in points]

    function = Function(evaluate, 1e-4)
    x = np.array([0.25, 1.0])
    np.testing.assert_allclose(function.gradient(x), [0.5, 2.0], atol=2e-4)
    np.testing.assert_allclose(function.slack_gradient(x), [[-1, 1], [0, -3]], atol=1e-9)
    assert len(asked) == 3  # nothing is evaluated twice
    assert max(p.max() for p in asked) <= 1.0
    assert function(np.array([0.25, 1.7])) == function(x)


def test_gradients_that_trials_bring_are_used_in_the_units_of_the_cube() -> None:
    space = Space(a=Float(-2, 6), b=Float(1e-3, 1, log=True), n=Int(1, 3), c=Fixed("v"))
    optimizer = Descent(space, [Objective("value", "max")], seed=2)
    [start] = optimizer.ask()
    a, b = start.config["a"], start.config["b"]
    told = {"value": {"a": 2.0, "b": 5.0}}
    optimizer.tell([start.result(Feedback(objectives={"value": 1.0}, gradients=told))])
    [step] = optimizer.ask()  # no difference is asked for
    # Uphill, because the objective is maximized: in unit coordinates by 0.2 times the gradient.
    assert step.config["a"] == pytest.approx(min(a + 8 * 0.2 * 2.0 * 8, 6))
    grown = 0.2 * 5.0 * b * np.log(1e3)
    assert step.config["b"] == pytest.approx(b * 1e3**grown)
    optimizer = Descent(space, seed=2)
    [start] = optimizer.ask()
    told = {"value": {"a": 2.0}}
    optimizer.tell([start.result(Feedback(objectives={"value": 1.0}, gradients=told))])
    assert optimizer.ask()[0].config["a"] == pytest.approx(a, abs=1e-4)


def test_an_exhausted_space_and_one_without_choice_are_drawn_from() -> None:
    for space in (Space(flag=Bool(), other=Bool()), Space(c=Fixed(1))):
        configs = play(Descent(space, seed=0), 12)
        assert all(space.validate(c) == c for c in configs)
    assert len({str(c) for c in play(Descent(Space(a=Bool(), b=Bool()), seed=0), 30)}) == 4


def test_an_error_in_the_solver_is_raised_where_it_is_asked() -> None:
    class Broken(Descent):
        def solver(self) -> Callable[[Function, Any], Any]:
            def solve(function: Function, start: Any) -> None:
                raise ZeroDivisionError("of the solver")

            return solve

    optimizer = Broken(SPACE)
    [start] = optimizer.ask()
    optimizer.tell([start.result(1.0)])
    with pytest.raises(ZeroDivisionError, match="of the solver"):
        optimizer.ask()


def test_a_solver_that_swallows_exceptions_is_closed_all_the_same() -> None:
    def stubborn(evaluate: Callable[[list[Any]], list[Answer]]) -> None:
        for _ in range(3):
            try:
                evaluate([np.zeros(1)])
            except Exception:
                continue
            except BaseException:
                evaluate([np.ones(1)])

    lane = Lane(stubborn)
    assert len(lane.points) == 1
    lane.close()
    assert lane.is_finished


def test_margins_reach_the_solver() -> None:
    limit = Constraint("c", "<=", 2.0)

    class Constrained(Descent):
        capabilities = Descent.capabilities.__class__(constraints=True)
        slack: ClassVar[list[float]] = []

        def solver(self) -> Callable[[Function, Any], Any]:
            slack = self.slack

            def solve(function: Function, start: Any) -> None:
                slack.extend(function.slack(start).tolist())

            return solve

    optimizer = Constrained(SPACE, [Objective("value")], [limit])
    [start] = optimizer.ask()
    optimizer.tell([start.result({"value": 0.0, "c": 1.25})])
    optimizer.ask()
    assert Constrained.slack[0] == 0.75
