import itertools
import math
from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.annealing import RandomWalk, SimulatedAnnealing
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestSimulatedAnnealing(OptimizerConformance):
    optimizer = SimulatedAnnealing


class TestRandomWalk(OptimizerConformance):
    optimizer = RandomWalk


SPACE = Space(x=Float(0, 1), y=Float(0, 1))


def told(number: int, value: float, **constraints: float) -> Trial:
    feedback = Feedback(objectives={"value": value}, constraints=constraints)
    x = (number % 10) / 10
    return Trial(number=number, config={"x": x, "y": x}, state="ok", feedback=feedback)


def test_worse_trials_are_accepted_by_the_metropolis_rule() -> None:
    taken = np.zeros(3)
    rises = [0.2, 1.0, 3.0]
    for seed in range(400):
        for k, rise in enumerate(rises):
            optimizer = SimulatedAnnealing(SPACE, seed=seed, horizon=50)
            values = [0.0, 2.0] * 5  # a standard deviation of 1, and the best of them 0
            optimizer.tell(told(n, v) for n, v in enumerate(values))
            optimizer.tell([told(13, rise), *(told(n, 99.0) for n in (10, 11, 12))])
            optimizer.propose(14)
            heat = 1e-4 ** ((13 - 10) / 40)
            taken[k] += optimizer._key[1] == rise
    expected = [math.exp(-rise / heat) for rise in rises]
    np.testing.assert_allclose(taken / 400, expected, atol=0.08)


def test_it_cools_by_the_horizon_and_steps_shrink() -> None:
    optimizer = SimulatedAnnealing(SPACE, budget=110, cooling=1e-2, step=0.2)
    scales = {}
    for number in range(120):
        optimizer.propose(number)
        scales[number] = optimizer._scale()
        optimizer.tell([told(number, 1.0)])
    assert scales[10] == pytest.approx(0.2)
    assert scales[60] == pytest.approx(0.2 * 1e-2**0.25)
    assert scales[110] == scales[119] == pytest.approx(0.02)


def test_feasible_beats_infeasible_and_failures_are_never_accepted() -> None:
    limit = Constraint("c", "<=", 0.0)
    optimizer = SimulatedAnnealing(SPACE, [Objective("value")], [limit])
    optimizer.tell(told(n, -5.0, c=2.0 + n) for n in range(10))
    optimizer.propose(10)
    assert optimizer._key == (1.0, 2.0)
    optimizer.tell([told(10, -9.0, c=3.0), told(11, 0.0, c=1.0), told(12, 50.0, c=-1.0)])
    optimizer.propose(13)
    assert optimizer._key == (0.0, 50.0)
    failed = Trial(number=13, config={"x": 0.5, "y": 0.5}, state="failed",
                   feedback=Feedback(status="failed"))  # fmt: skip
    optimizer.tell([failed, told(14, -9.0, c=1.0)])
    optimizer.propose(15)
    assert optimizer._key == (0.0, 50.0)


def test_the_chain_starts_at_the_best_from_elsewhere() -> None:
    optimizer = SimulatedAnnealing(SPACE, seed=3)
    optimizer.tell([told(-4, -100.0)])
    optimizer.tell(told(n, float(n)) for n in range(10))
    optimizer.propose(10)
    assert optimizer._x is not None
    np.testing.assert_allclose(optimizer._x, 0.6)


def test_a_walk_moves_by_steps_whatever_the_values() -> None:
    space = Space(n=Int(0, 20), kind=Categorical("a", "b"), x=Float(0, 1))
    optimizer = RandomWalk(space, seed=0, step=0.02, moves=0.01)
    configs = []
    for number in range(80):
        [candidate] = optimizer.ask()
        configs.append(candidate.config)
        optimizer.tell([candidate.result(float(number))])
    assert len({c["n"] for c in configs}) > 4
    for before, after in itertools.pairwise(configs):
        changed = [name for name in space if before[name] != after[name]]
        assert 1 <= len(changed) <= 2
        assert abs(before["n"] - after["n"]) <= 2
        assert abs(before["x"] - after["x"]) < 0.12


@pytest.mark.parametrize("kind", [SimulatedAnnealing, RandomWalk])
def test_replay_in_another_order_with_strays_gives_the_same_state(kind: Any) -> None:
    first = kind(mixed_space(), seed=1)
    told_, running = [], list(first.ask(8))
    for step in range(60):
        done = running.pop((step * 5) % 8)
        told_.append(done.result(float(step * 7919 % 101)))
        first.tell(told_[-1:])
        running += first.ask()
    second = kind(mixed_space(), seed=1)
    second.tell(reversed(told_))
    second.tell(c.begun() for c in running)
    for number in (68, 69, 80):
        assert second.propose(number) == first.propose(number)


def test_wrong_options_are_explained() -> None:
    for wrong in ({"step": 0.0}, {"moves": 2.0}, {"cooling": 1.0}, {"horizon": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SimulatedAnnealing(SPACE, **wrong)
