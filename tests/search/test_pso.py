from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Float
from sharpen.core.space import Space, random_stream
from sharpen.search.pso import PSO
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestPSO(OptimizerConformance):
    optimizer = PSO


class TestGlobal(OptimizerConformance):
    @staticmethod
    def optimizer(*given: Any, **options: Any) -> PSO:
        return PSO(*given, topology="global", **options)


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(0, 1) for i in range(d)})


def sphere(x: np.ndarray) -> float:
    return float(((x - 0.3) ** 2).sum())


def play(optimizer: PSO, trials: int) -> np.ndarray:
    points = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        points.append(np.array(list(candidate.config.values())))
        optimizer.tell([candidate.result(sphere(points[-1]))])
    return np.array(points)


@pytest.mark.parametrize("topology", ["ring", "global"])
def test_positions_follow_the_equations(topology: Any) -> None:
    n, d, w, c = 5, 3, 0.7298, 1.49618
    optimizer = PSO(cube(d), seed=4, population=n, topology=topology)
    x = [play(optimizer, n)]
    v = np.zeros((n, d))
    for i in range(n):
        rng = random_stream(4, i)
        begin = rng.random(d) if i else np.full(d, 0.5)
        np.testing.assert_allclose(x[0][i], begin, atol=1e-15)
        v[i] = (rng.random(d) - begin) / 2
    best, value = x[0].copy(), np.array([sphere(p) for p in x[0]])
    for g in range(1, 8):
        x.append(play(optimizer, n))
        for i in range(n):
            near = [i, (i - 1) % n, (i + 1) % n] if topology == "ring" else list(range(n))
            leader = best[min(near, key=lambda k: value[k])]
            r1, r2 = random_stream(4, g * n + i).random((2, d))
            v[i] = w * v[i] + c * r1 * (best[i] - x[-2][i]) + c * r2 * (leader - x[-2][i])
            v[i] = np.clip(v[i], -1, 1)
            expected = x[-2][i] + v[i]
            outside = (expected < 0) | (expected > 1)
            expected = np.where(expected < 0, -expected, expected)
            expected = np.where(expected > 1, 2 - expected, expected)
            v[i][outside] *= -1
            np.testing.assert_allclose(x[-1][i], expected, atol=1e-12)
        for i in range(n):
            if sphere(x[-1][i]) <= value[i]:
                best[i], value[i] = x[-1][i], sphere(x[-1][i])


def test_replay_in_another_order_with_strays_gives_the_same_state() -> None:
    first = PSO(mixed_space(), seed=1, population=6)
    told, running = [], list(first.ask(8))
    for step in range(60):
        done = running.pop((step * 5) % 8)
        told.append(done.result(float(step * 7919 % 101)))
        first.tell(told[-1:])
        running += first.ask()
    second = PSO(mixed_space(), seed=1, population=6)
    second.tell(reversed(told))
    second.tell(c.begun() for c in running)
    for number in (68, 69, 80):
        assert second.propose(number) == first.propose(number)
    np.testing.assert_array_equal(second._v, first._v)


def test_a_particle_that_somebody_moved_goes_on_from_there() -> None:
    optimizer = PSO(cube(2), seed=0, population=3)
    play(optimizer, 3)
    before = optimizer.propose(3)
    start = np.array([list(optimizer.history[0].config.values())])[0]
    for number, config in ((3, {"x0": 0.9, "x1": 0.8}), (4, None), (5, None)):
        config = config or optimizer.propose(number)
        feedback = Feedback(objectives={"value": 1.0})
        optimizer.tell([Trial(number=number, config=config, state="ok", feedback=feedback)])
    optimizer.propose(6)
    assert before != {"x0": 0.9, "x1": 0.8}
    np.testing.assert_allclose(optimizer._x[0], [0.9, 0.8])
    np.testing.assert_allclose(optimizer._v[0], np.array([0.9, 0.8]) - start, atol=1e-15)


def test_the_swarm_remembers_trials_from_elsewhere() -> None:
    optimizer = PSO(cube(2), seed=0, population=4, topology="global")
    feedback = Feedback(objectives={"value": -5.0})
    config = {"x0": 0.125, "x1": 0.75}
    optimizer.tell([Trial(number=-1, config=config, state="ok", feedback=feedback)])
    play(optimizer, 4)
    optimizer.propose(4)
    np.testing.assert_allclose(optimizer._best[optimizer._leader[2]], [0.125, 0.75])


def test_it_converges_and_wrong_options_are_explained() -> None:
    for seed in range(3):
        points = play(PSO(cube(4), seed=seed), 1200)
        assert min(sphere(p) for p in points) < 1e-6
    for wrong in ({"population": 1}, {"topology": "star"}, {"inertia": 1.0}, {"attraction": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            PSO(cube(2), **wrong)
