from typing import Any

import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float
from sharpen.core.space import Space
from sharpen.search.adam_spsa import AdamSPSA
from sharpen.testing import OptimizerConformance


class TestAdamSPSA(OptimizerConformance):
    optimizer = AdamSPSA


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(0, 1) for i in range(d)})


def play(optimizer: AdamSPSA, function: Any, trials: int) -> np.ndarray:
    points = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        points.append(np.array(list(candidate.config.values())))
        optimizer.tell([candidate.result(function(points[-1]))])
    optimizer.propose(10**6)
    return np.array(points)


def test_steps_follow_the_formulas() -> None:
    weights = np.array([3.0, -1.0, 0.5])
    gains: dict[str, Any] = {"a": 0.03, "alpha": 0.7, "c": 0.05, "gamma": 0.1}
    optimizer = AdamSPSA(cube(3), seed=3, beta1=0.9, beta2=0.8, decay=0.3, **gains)
    x, mean, square = np.full(3, 0.5), np.zeros(3), np.zeros(3)
    for k in range(8):
        plus, minus = play(optimizer, lambda p: float(weights @ p), 2)
        g = weights @ (plus - minus) / (plus - minus)
        beta1 = 0.9 / (k + 1) ** 0.3
        mean = beta1 * mean + (1 - beta1) * g
        square = 0.8 * square + 0.2 * g**2
        step = mean / (1 - beta1 ** (k + 1)) / (np.sqrt(square / (1 - 0.8 ** (k + 1))) + 1e-8)
        x = np.clip(x - 0.03 / (k + 1) ** 0.7 * step, 0, 1)
        np.testing.assert_allclose(optimizer._x, x, atol=1e-9)


def test_it_finds_the_way_through_noise() -> None:
    rng = np.random.default_rng(0)
    optimizer = AdamSPSA(cube(6), seed=1, resamplings=2)
    play(optimizer, lambda x: float(((x - 0.3) ** 2).sum() + rng.normal(0, 0.02)), 800)
    assert np.abs(optimizer._x - 0.3).max() < 0.15


def test_wrong_options_are_explained() -> None:
    for wrong in ({"beta1": 1.0}, {"beta2": -0.1}, {"decay": -1.0}, {"c": 0.0}, {"a": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AdamSPSA(cube(2), **wrong)  # type: ignore[arg-type]
