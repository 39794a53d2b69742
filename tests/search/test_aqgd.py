import math
from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Fixed, Float
from sharpen.core.space import Space
from sharpen.search.aqgd import AQGD
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestAQGD(OptimizerConformance):
    optimizer = AQGD


D = 3
ANGLES = Space({f"t{i}": Float(-math.pi, math.pi) for i in range(D)})


def energy(t: np.ndarray) -> float:
    """A sum of products of sines and cosines, as an expectation value of a circuit is."""
    return float(
        np.cos(t[0]) * np.sin(t[1]) + 0.5 * np.cos(t[1]) * np.cos(t[2]) - 0.3 * np.sin(t[2])
    )


def gradient(t: np.ndarray) -> np.ndarray:
    return np.array([
        -np.sin(t[0]) * np.sin(t[1]),
        np.cos(t[0]) * np.cos(t[1]) - 0.5 * np.sin(t[1]) * np.cos(t[2]),
        -0.5 * np.cos(t[1]) * np.sin(t[2]) - 0.3 * np.cos(t[2]),
    ])  # fmt: skip


def play(optimizer: AQGD, trials: int) -> np.ndarray:
    points = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        points.append(np.array(list(candidate.config.values())))
        optimizer.tell([candidate.result(energy(points[-1]))])
    optimizer.propose(10**6)
    return np.array(points)


def test_steps_are_those_of_the_exact_gradient_with_momentum() -> None:
    optimizer = AQGD(ANGLES, seed=1, rate=0.4, momentum=0.3)
    velocity, expected = np.zeros(D), None
    for _ in range(8):
        points = play(optimizer, 2 * D + 1)
        t = points[0]
        if expected is not None:
            np.testing.assert_allclose(np.exp(1j * t), np.exp(1j * expected), atol=1e-9)
        velocity = 0.3 * velocity + 0.7 * 0.4 * gradient(t)
        expected = t - velocity
        shifts = (points[1:] - t + math.pi) % (2 * math.pi) - math.pi
        np.testing.assert_allclose(np.abs(shifts).sum(axis=1), math.pi / 2, atol=1e-9)


def test_it_converges_to_a_stationary_point_and_starts_again() -> None:
    optimizer = AQGD(ANGLES, seed=2, rate=0.8)
    points = play(optimizer, 3000)
    assert optimizer._runs >= 1
    grid = np.linspace(-math.pi, math.pi, 41)
    least = min(energy(np.array([a, b, c])) for a in grid for b in grid for c in grid)
    assert min(energy(t) for t in points) < least + 0.01


def test_workers_side_by_side_do_not_keep_a_coordinate_from_moving() -> None:
    for workers in (1, 4, 9):
        optimizer = AQGD(ANGLES, seed=2, rate=0.5, tolerance=0.0)
        running = list(optimizer.ask(workers))
        for _ in range(500):
            done = running.pop(0)
            optimizer.tell([done.result(energy(np.array(list(done.config.values()))))])
            running += optimizer.ask()
        t = optimizer._x * 2 * math.pi - math.pi
        assert np.abs(gradient(t)).max() < 0.1


def test_failures_trials_from_elsewhere_and_no_choice() -> None:
    optimizer = AQGD(ANGLES, seed=0)
    known = Trial(number=-1, config={"t0": 1.0, "t1": 2.0, "t2": -1.0}, state="ok",
                  feedback=Feedback(objectives={"value": 0.0}))  # fmt: skip
    optimizer.tell([known])
    assert list(optimizer.propose(0).values()) == pytest.approx([1.0, 2.0, -1.0])
    for _ in range(7):
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(Feedback(status="failed"))])
    assert list(optimizer.propose(7).values()) == pytest.approx([1.0, 2.0, -1.0])
    fixed = AQGD(Space(a=Fixed(1)))
    for candidate in fixed.ask(3):
        fixed.tell([candidate.result(0.0)])
    assert fixed.ask()[0].config == {"a": 1}


def test_replay_in_another_order_with_strays_gives_the_same_state() -> None:
    first = AQGD(mixed_space(), seed=1)
    told, running = [], list(first.ask(5))
    for step in range(120):
        done = running.pop((step * 7) % 5)
        told.append(done.result(float(step * 7919 % 101)))
        first.tell(told[-1:])
        running += first.ask()
    second = AQGD(mixed_space(), seed=1)
    second.tell(reversed(told))
    second.tell(c.begun() for c in running)
    for number in (125, 126, 150):
        assert second.propose(number) == first.propose(number)


def test_wrong_options_are_explained() -> None:
    wrong: dict[str, Any]
    for wrong in ({"rate": 0.0}, {"momentum": 1.0}, {"tolerance": -1.0}, {"averaging": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AQGD(ANGLES, **wrong)
