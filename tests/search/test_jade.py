import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Fixed, Float
from sharpen.core.space import Space
from sharpen.search.de import drawn_back
from sharpen.search.jade import JADE, _gain
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestJADE(OptimizerConformance):
    optimizer = JADE


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(0, 1) for i in range(d)})


def vector(config: dict[str, float]) -> np.ndarray:
    return np.array(list(config.values()))


def play(optimizer: JADE, function: object, trials: int) -> list[Trial]:
    told = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        told.append(candidate.result(function(vector(candidate.config))))  # type: ignore[operator]
        optimizer.tell(told[-1:])
    return told


def sphere(x: np.ndarray) -> float:
    return float(((x - 0.3) ** 2).sum())


def test_means_of_the_parameters_follow_what_improved() -> None:
    n = 8
    optimizer = JADE(cube(3), seed=0, population=n, learning_rate=0.2)
    play(optimizer, sphere, n)
    optimizer.propose(n)
    factor, crossover = optimizer._factor.copy(), optimizer._crossover.copy()
    parents = optimizer._keys[:, 1].copy()
    told = play(optimizer, sphere, n)
    children = np.array([t.values["value"] for t in told])
    won = children < parents
    assert 0 < won.sum() < n
    optimizer.propose(2 * n)
    mean = (factor[won] ** 2).sum() / factor[won].sum()
    assert optimizer._mu_factor == pytest.approx(0.8 * 0.5 + 0.2 * mean, rel=1e-12)
    assert optimizer._mu_crossover == pytest.approx(0.8 * 0.5 + 0.2 * crossover[won].mean())
    assert len(optimizer._archive) == won.sum()
    np.testing.assert_allclose(optimizer._keys[:, 1], np.minimum(parents, children))


def test_a_child_steps_to_one_of_the_best_and_along_a_difference() -> None:
    n = 6
    optimizer = JADE(cube(4), seed=3, population=n, best=0.3)
    play(optimizer, sphere, n)
    optimizer.propose(n)
    x = optimizer._x
    best = np.argsort(optimizer._keys[:, 1])[:2]
    for i in range(n):
        factor, child = optimizer._factor[i], optimizer._points[i]
        mutants = [
            drawn_back(x[i] + factor * (x[b] - x[i]) + factor * (x[r1] - x[r2]), x[i])
            for b in best
            for r1 in range(n)
            for r2 in range(n)
            if len({i, r1, r2}) == 3
        ]
        assert any(((child == x[i]) | np.isclose(child, m, atol=1e-14)).all() for m in mutants)
        assert 0 < factor <= 1
        assert 0 <= optimizer._crossover[i] <= 1


def test_the_archive_holds_no_more_than_the_population() -> None:
    optimizer = JADE(cube(3), seed=0, population=10)
    play(optimizer, sphere, 400)
    optimizer.propose(400)
    assert len(optimizer._archive) == 10


def test_replay_in_another_order_with_strays_gives_the_same_state() -> None:
    first = JADE(mixed_space(), seed=1, population=6)
    told, running = [], list(first.ask(9))
    for step in range(70):
        done = running.pop((step * 5) % 9)
        told.append(done.result(float(step * 7919 % 101)))
        first.tell(told[-1:])
        running += first.ask()
    second = JADE(mixed_space(), seed=1, population=6)
    second.tell(reversed(told))
    second.tell(c.begun() for c in running)
    for number in (79, 80, 90):
        assert second.propose(number) == first.propose(number)
    np.testing.assert_array_equal(second._x, first._x)
    assert second._mu_factor == first._mu_factor


def test_trials_from_elsewhere_compete_with_the_first_generation() -> None:
    optimizer = JADE(cube(2), seed=0, population=5)
    feedback = Feedback(objectives={"value": -1.0})
    optimizer.tell(
        [Trial(number=-1, config={"x0": 0.5, "x1": 0.25}, state="ok", feedback=feedback)]
    )
    play(optimizer, sphere, 5)
    optimizer.propose(5)
    assert len(optimizer._x) == 5
    assert [0.5, 0.25] in optimizer._x.tolist()


def test_gain_of_becoming_feasible_is_the_largest_of_the_others() -> None:
    old = np.array([[0.0, 5.0], [1.0, 7.0], [1.0, 4.0]])
    new = np.array([[0.0, 2.0], [0.0, 100.0], [1.0, 3.0]])
    assert _gain(old, new).tolist() == [3.0, 3.0, 1.0]
    assert _gain(old[1:2], new[1:2]).tolist() == [1.0]


def test_it_solves_a_multimodal_function() -> None:
    def rastrigin(x: np.ndarray) -> float:
        z = 5 * x - 2
        return float(10 * len(z) + (z**2 - 10 * np.cos(2 * np.pi * z)).sum())

    for seed in range(3):
        told = play(JADE(cube(4), seed=seed), rastrigin, 4000)
        assert min(t.values["value"] for t in told) < 0.1  # the second best minimum is 0.995


def test_failures_only_no_choice_and_wrong_options_are_no_surprise() -> None:
    optimizer = JADE(cube(2), population=4)
    for _ in range(20):
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(Feedback(status="failed"))])
    fixed = JADE(Space(a=Fixed(1)), population=4)
    assert play(fixed, lambda x: 0.0, 12)[-1].config == {"a": 1}
    for wrong in ({"population": 3}, {"best": 0.0}, {"learning_rate": 2.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            JADE(cube(2), **wrong)
