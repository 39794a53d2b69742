import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float
from sharpen.core.space import Space
from sharpen.search.lshade import LSHADE
from sharpen.testing import OptimizerConformance


class TestLSHADE(OptimizerConformance):
    optimizer = LSHADE


def cube(d: int) -> Space:
    return Space({f"x{i}": Float(0, 1) for i in range(d)})


def play(optimizer: LSHADE, function: object, trials: int) -> list[float]:
    values = []
    for _ in range(trials):
        [candidate] = optimizer.ask()
        x = np.array(list(candidate.config.values()))
        values.append(function(x))  # type: ignore[operator]
        optimizer.tell([candidate.result(values[-1])])
    return values


def sphere(x: np.ndarray) -> float:
    return float(((x - 0.3) ** 2).sum())


def test_the_memory_takes_weighted_lehmer_means_in_turn() -> None:
    n = 12
    optimizer = LSHADE(cube(3), seed=0, population=n, memory=3)
    play(optimizer, sphere, n)
    expected_factor, expected_crossover = [0.5] * 3, [0.5] * 3
    for k in range(4):
        optimizer.propose(n * (k + 1))
        np.testing.assert_allclose(optimizer._memory_factor, expected_factor, rtol=1e-12)
        np.testing.assert_allclose(optimizer._memory_crossover, expected_crossover, rtol=1e-12)
        factor, crossover = optimizer._factor.copy(), optimizer._crossover.copy()
        parents = optimizer._keys[:, 1].copy()
        gain = parents - np.array(play(optimizer, sphere, n))
        won = gain > 0
        assert won.any()
        w = gain[won]
        expected_factor[k % 3] = (w * factor[won] ** 2).sum() / (w * factor[won]).sum()
        expected_crossover[k % 3] = (w * crossover[won] ** 2).sum() / (w * crossover[won]).sum()


def test_an_entry_whose_crossovers_were_all_zero_stays_at_zero() -> None:
    optimizer = LSHADE(cube(2), memory=1)
    optimizer.propose(0)
    half, gain = np.array([0.5, 0.6]), np.array([1.0, 2.0])
    optimizer._learn(half, np.zeros(2), gain)
    optimizer._learn(half, half, gain)
    assert optimizer._centres(np.random.default_rng(0))[1] < 0
    optimizer._x, optimizer._ranked = np.random.default_rng(0).random((5, 2)), np.arange(5)
    for seed in range(20):
        point, _, crossover = optimizer._child(2, np.random.default_rng(seed))
        assert crossover == 0
        assert (point != optimizer._x[2]).sum() <= 1


def test_the_population_shrinks_linearly_to_four_with_the_budget() -> None:
    optimizer = LSHADE(cube(2), seed=1, population=36, budget=600)
    sizes = {0: 36}
    for done in range(1, 601):
        play(optimizer, sphere, 1)
        optimizer.propose(done)
        if optimizer._first == done:
            sizes[done] = len(optimizer._x)
    for done, size in sizes.items():
        assert size == round(36 - 32 * done / 600)
    assert len(sizes) > 20
    assert len(optimizer._archive) <= round(2.6 * sizes[max(sizes)])


def test_without_a_budget_the_population_stays() -> None:
    optimizer = LSHADE(cube(2), seed=1)
    play(optimizer, sphere, 200)
    optimizer.propose(200)
    assert len(optimizer._x) == 36


def test_it_solves_a_multimodal_function_and_refuses_no_memory() -> None:
    def rastrigin(x: np.ndarray) -> float:
        z = 5 * x - 2
        return float(10 * len(z) + (z**2 - 10 * np.cos(2 * np.pi * z)).sum())

    for seed in range(2):
        assert (
            min(play(LSHADE(cube(4), seed=seed, budget=3000), rastrigin, 3000)) < 0.1
        )  # the second best minimum is 0.995
    with pytest.raises(ConfigError, match="memory"):
        LSHADE(cube(2), memory=0)
