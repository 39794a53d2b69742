import itertools

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from sharpen.core.collections import Permutation, Subset
from sharpen.core.neighbors import another, reflected
from sharpen.core.parameters import Bool, Categorical, Fixed, Float, Int
from sharpen.core.space import Space
from sharpen.search.variation import (
    active_columns,
    crossed,
    mutated,
    order_crossover,
    polynomial_mutation,
    simulated_binary_crossover,
    stepped,
)
from sharpen.testing.search import mixed_space

RNG = np.random.default_rng


def test_sbx_children_spread_by_the_papers_distribution() -> None:
    low, high, eta = np.full(4000, 0.499), np.full(4000, 0.501), 5.0
    children = simulated_binary_crossover(RNG(0), low, high, eta)
    beta = np.abs(children - 0.5) / 0.001  # far from the bounds

    def cdf(b: np.ndarray) -> np.ndarray:
        return np.where(b <= 1, 0.5 * b ** (eta + 1), 1 - 0.5 * np.maximum(b, 1) ** -(eta + 1))

    assert kstest(beta, cdf).pvalue > 1e-3
    assert abs((children > 0.5).mean() - 0.5) < 0.03


def test_sbx_stays_inside_and_equal_parents_have_an_equal_child() -> None:
    rng = RNG(1)
    a, b = rng.random((2, 3000))
    children = simulated_binary_crossover(rng, a, b, 1.0)
    assert ((children >= 0) & (children <= 1)).all()
    edge = simulated_binary_crossover(rng, np.zeros(500), np.full(500, 0.1), 1.0)
    assert (edge[edge < 0.05] < 0.05).all()
    assert edge.min() >= 0
    np.testing.assert_array_equal(simulated_binary_crossover(rng, a, a, 15.0), a)


def test_polynomial_mutation_steps_by_the_papers_distribution() -> None:
    eta = 20.0
    step = polynomial_mutation(RNG(2), np.full(4000, 0.5), eta) - 0.5

    def cdf(s: np.ndarray) -> np.ndarray:
        return np.where(s < 0, 0.5 * (1 + s) ** (eta + 1), 1 - 0.5 * (1 - s) ** (eta + 1))

    assert kstest(step, cdf).pvalue > 1e-3
    assert (polynomial_mutation(RNG(3), np.zeros(500), 1.0) >= 0).all()
    assert (polynomial_mutation(RNG(3), np.ones(500), 1.0) <= 1).all()


def test_order_crossover_is_a_slice_of_one_and_the_order_of_the_other() -> None:
    def reference(first: list[int], second: list[int], begin: int, end: int) -> list[int]:
        n = len(first)
        child: list[int | None] = [None] * n
        child[begin:end] = first[begin:end]
        source = [second[(end + k) % n] for k in range(n)]
        source = [item for item in source if item not in first[begin:end]]
        for k in range(n):
            place = (end + k) % n
            if child[place] is None:
                child[place] = source.pop(0)
        return [item for item in child if item is not None]

    rng, n = RNG(4), 6
    for _ in range(60):
        a, b = rng.random((2, n))
        first, second = np.argsort(a).tolist(), np.argsort(b).tolist()
        child = np.argsort(order_crossover(rng, a, b)).tolist()
        assert any(
            child == reference(first, second, begin, end)
            for begin, end in itertools.combinations(range(n + 1), 2)
        )


@pytest.mark.parametrize(
    "parameter",
    [
        Categorical("a", "b", "c", weights=[1, 5, 2]),
        Categorical(1, True, "1"),
        Bool(),
        Permutation(4),
        Subset(5, min=1, max=3),
        Subset(3, min=2, max=2),
    ],
)
def test_another_value_is_never_the_same_and_every_neighbour_is_found(parameter: object) -> None:
    rng = RNG(5)
    for value in parameter.values_on_grid(10):  # type: ignore[attr-defined]
        u = np.array(parameter.encode(value))  # type: ignore[attr-defined]
        found = [parameter.decode(another(parameter, rng, u)) for _ in range(200)]  # type: ignore[arg-type, attr-defined]
        assert all(f != value or isinstance(f, bool) != isinstance(value, bool) for f in found)
        for other in found:
            parameter.check(other)  # type: ignore[attr-defined]
    if isinstance(parameter, Categorical):
        counts = [sum(f is c or f == c for f in found) for c in parameter.choices[:-1]]
        assert chisquare(counts[:2]).pvalue > 1e-3


def test_a_subset_of_all_items_that_must_all_stay_is_left_alone() -> None:
    u = np.array([0.75, 0.75])
    np.testing.assert_array_equal(another(Subset(2, min=2, max=2), RNG(0), u), u)


def test_crossing_mutating_and_stepping_give_allowed_points_of_every_kind() -> None:
    space, rng = mixed_space(), RNG(6)
    for seed in range(40):
        a, b = space.encode(space.sample(2, seed=seed)).x
        for point in (
            crossed(space, rng, a, b),
            mutated(space, rng, a, 1.0),
            stepped(space, rng, a, active_columns(space, a), 0.3),
        ):
            assert ((point >= 0) & (point <= 1)).all()
            space.decode(point[None])
        child, columns = crossed(space, rng, a, b), space.columns["chosen"]
        assert ((child == a) | (child == b))[columns].all()


def test_a_step_of_an_integer_is_one_at_least_and_bounds_reflect() -> None:
    space, rng = Space(n=Int(0, 9), x=Float(0, 1), c=Fixed(3)), RNG(7)
    start = space.encode([{"n": 4, "x": 0.5, "c": 3}]).x[0]
    moved = [space.decode(stepped(space, rng, start, ["n"], 1e-3)[None])[0] for _ in range(50)]
    assert {m["n"] for m in moved} == {3, 5}
    assert all(m["x"] == 0.5 for m in moved)
    np.testing.assert_allclose(
        reflected(np.array([-0.3, 0.4, 1.2, 2.3, -1.4])), [0.3, 0.4, 0.8, 0.3, 0.6]
    )


def test_a_rate_of_zero_mutates_nothing_and_names_are_those_active() -> None:
    space = mixed_space()
    for config in space.sample(20, seed=3):
        point = space.encode([config]).x[0]
        np.testing.assert_array_equal(mutated(space, RNG(0), point, 0.0), point)
        assert active_columns(space, point) == [n for n in config if n != "version"]
