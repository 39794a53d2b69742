from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.parameters import Fixed, Float
from sharpen.core.space import Space
from sharpen.search.spsa import SPSA
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import mixed_space


class TestSPSA(OptimizerConformance):
    optimizer = SPSA


class TestSecondOrder(OptimizerConformance):
    @staticmethod
    def optimizer(*given: Any, **options: Any) -> SPSA:
        return SPSA(*given, second_order=True, blocking=True, resamplings=2, **options)


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(0, 1) for i in range(d)})


def vector(config: dict[str, Any]) -> np.ndarray:
    return np.array(list(config.values()))


def play(optimizer: SPSA, function: Any, trials: int) -> np.ndarray:
    points = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        points.append(vector(candidate.config))
        optimizer.tell([candidate.result(function(points[-1]))])
    optimizer.propose(10**6)
    return np.array(points)


def test_a_step_follows_the_estimate_of_one_pair() -> None:
    weights = np.array([3.0, -1.0, 0.5])
    optimizer = SPSA(cube(3), seed=4, a=0.02, c=0.1, alpha=0.5, gamma=0.2, stability=3)
    expected = np.full(3, 0.5)
    for k in range(6):
        plus, minus = play(optimizer, lambda x: float(weights @ x), 2)
        c = 0.1 / (k + 1) ** 0.2
        np.testing.assert_allclose((plus + minus) / 2, expected, atol=1e-12)
        direction = (plus - minus) / (2 * c)
        np.testing.assert_allclose(np.abs(direction), 1, atol=1e-12)
        estimate = (weights @ (plus - minus)) / (2 * c * direction)
        expected = expected - 0.02 / (3 + k + 1) ** 0.5 * estimate
        np.testing.assert_allclose(optimizer._x, expected, atol=1e-12)
        expected = np.clip(expected, 0.1 / (k + 2) ** 0.2, 1 - 0.1 / (k + 2) ** 0.2)


def test_estimates_are_unbiased_for_the_gradient_and_the_hessian_of_a_quadratic() -> None:
    hessian = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 2.0]])
    slope = np.array([1.0, -2.0, 0.5])
    gradients, hessians = [], []
    for seed in range(1500):
        optimizer = SPSA(cube(3), seed=seed, second_order=True, a=1e-9)
        seen: list[Any] = []
        optimizer._step_by = lambda g, seen=seen: seen.append(g) or g * 0  # type: ignore[method-assign, misc]
        play(optimizer, lambda x: float(slope @ (x - 0.5) + (x - 0.5) @ hessian @ (x - 0.5) / 2), 4)
        gradients.append(seen[0])
        hessians.append(optimizer._hessian)
    np.testing.assert_allclose(np.mean(gradients, axis=0), slope, atol=0.2)
    np.testing.assert_allclose(np.mean(hessians, axis=0), hessian, atol=0.5)


def test_the_first_step_is_calibrated_and_more_pairs_make_it_steady() -> None:
    for scale in (1e-6, 1e6):
        optimizer = SPSA(cube(5), seed=1, step=0.07)
        play(optimizer, lambda x, s=scale: s * float(((x - 0.2) ** 2).sum()), 2)
        assert np.abs(optimizer._x - 0.5).mean() == pytest.approx(0.07, rel=1e-6)
    spread = {}
    for pairs in (1, 16):
        ends = []
        for seed in range(12):
            optimizer = SPSA(cube(5), seed=seed, a=0.01, resamplings=pairs, stability=0)
            play(optimizer, lambda x: float((x**2).sum()), 2 * pairs)
            ends.append(optimizer._x)
        spread[pairs] = np.std(ends, axis=0).mean()
    assert spread[16] < 0.5 * spread[1]


def test_blocking_never_accepts_a_worse_point() -> None:
    def rugged(x: np.ndarray) -> float:
        return float(((x - 0.3) ** 2).sum() + 0.05 * np.sin(40 * x).sum())

    optimizer = SPSA(cube(3), seed=2, blocking=True, step=0.3)
    accepted = []
    for _ in range(150):
        play(optimizer, rugged, 1)
        accepted.append((optimizer._loss, tuple(optimizer._x)))
    losses = [loss for loss, _ in accepted]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == rugged(np.array(accepted[-1][1]))
    assert len(set(losses)) < 45  # of 50 steps some were taken back


def test_it_finds_the_way_through_noise_with_workers_side_by_side() -> None:
    rng = np.random.default_rng(0)
    for workers in (1, 5):
        optimizer = SPSA(cube(6), seed=1, budget=600, resamplings=2)
        running = list(optimizer.ask(workers))
        for _ in range(600):
            done = running.pop(0)
            value = float(((vector(done.config) - 0.3) ** 2).sum() + rng.normal(0, 0.02))
            optimizer.tell([done.result(value)])
            running += optimizer.ask()
        assert np.abs(optimizer._x - 0.3).max() < 0.12


def test_the_second_order_makes_axes_of_different_scale_alike() -> None:
    def valley(x: np.ndarray) -> float:
        return float(100 * (x[0] - 0.4) ** 2 + (x[1] - 0.7) ** 2)

    ends = {}
    for second in (False, True):
        ends[second] = np.median([
            abs(optimizer._x[1] - 0.7)
            for seed in range(7)
            for optimizer in [SPSA(cube(2), seed=seed, budget=400, second_order=second)]
            if play(optimizer, valley, 400) is not None
        ])  # fmt: skip
    assert ends[True] < ends[False] / 2


def test_failed_pairs_are_left_out_and_it_starts_at_what_is_known() -> None:
    optimizer = SPSA(cube(2), seed=0)
    known = Trial(number=-1, config={"x0": 0.8, "x1": 0.3}, state="ok",
                  feedback=Feedback(objectives={"value": 0.0}))  # fmt: skip
    optimizer.tell([known])
    for outcome in (Feedback(status="failed"), 1.0):
        [candidate] = optimizer.ask()
        optimizer.tell([candidate.result(outcome)])
    optimizer.propose(9)
    np.testing.assert_allclose(optimizer._x, [0.8, 0.3])
    assert optimizer._k == 0
    assert play(SPSA(Space(a=Fixed(1))), lambda x: 0.0, 5).shape == (5, 1)


def test_a_flat_function_moves_nothing_and_the_gain_is_calibrated_later() -> None:
    optimizer = SPSA(cube(2), seed=0)
    play(optimizer, lambda x: 1.0, 6)
    np.testing.assert_allclose(optimizer._x, 0.5)
    assert optimizer._gain is None
    play(optimizer, lambda x: float(x.sum()), 2)
    assert optimizer._gain is not None


def test_replay_in_another_order_with_strays_gives_the_same_state() -> None:
    options: dict[str, Any]
    for options in ({}, {"blocking": True}, {"second_order": True, "resamplings": 2}):
        first = SPSA(mixed_space(), seed=1, **options)
        told, running = [], list(first.ask(5))
        for step in range(60):
            done = running.pop((step * 7) % 5)
            told.append(done.result(float(step * 7919 % 101)))
            first.tell(told[-1:])
            running += first.ask()
        second = SPSA(mixed_space(), seed=1, **options)
        second.tell(reversed(told))
        second.tell(c.begun() for c in running)
        for number in (65, 66, 80):
            assert second.propose(number) == first.propose(number)


def test_wrong_options_are_explained() -> None:
    wrong: dict[str, Any]
    for wrong in (
        *({"a": 0.0}, {"step": 2.0}, {"c": 0.3}, {"alpha": -1.0}),
        *({"gamma": -1.0}, {"noise": -1.0}, {"resamplings": 0}),
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SPSA(cube(2), **wrong)
