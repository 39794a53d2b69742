import numpy as np
import pytest
from scipy.optimize import minimize

from sharpen.search.gp.optimize import minimize_all


def rosenbrock(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gap, slack = x[:, 1:] - x[:, :-1] ** 2, 1 - x[:, :-1]
    gradient = np.zeros_like(x)
    gradient[:, :-1] += -400 * gap * x[:, :-1] - 2 * slack
    gradient[:, 1:] += 200 * gap
    return (100 * gap**2 + slack**2).sum(1), gradient


def starts(count: int, d: int, low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (count, d))


def test_finds_minima_of_a_curved_valley_from_all_starts() -> None:
    x, f = minimize_all(
        rosenbrock,
        starts(8, 5, 0, 2),
        np.zeros(5),
        np.full(5, 2.0),
        evaluations=400,
        tolerance=1e-14,
    )
    np.testing.assert_allclose(x, 1, atol=1e-4)
    assert f.max() < 1e-8


def test_minima_at_bounds_are_those_of_scipy() -> None:
    low, high = np.full(5, -2.0), np.full(5, 0.5)
    x, f = minimize_all(rosenbrock, starts(6, 5, 0, 0.5), low, high, evaluations=300)
    peer = minimize(
        lambda z: tuple(v[0] for v in rosenbrock(z[None], np.zeros(1))),
        np.full(5, 0.3),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
    )
    np.testing.assert_allclose(f, peer.fun, atol=1e-6)
    assert ((x >= low) & (x <= high)).all()


def test_restarts_do_not_disturb_each_other() -> None:
    given = starts(5, 4, -1, 2)
    low, high = np.full(4, -2.0), np.full(4, 2.0)
    together = minimize_all(rosenbrock, given, low, high, evaluations=80)
    for i in range(5):
        alone = minimize_all(rosenbrock, given[i : i + 1], low, high, evaluations=80)
        np.testing.assert_allclose(alone[0][0], together[0][i], atol=1e-12)


def test_never_worse_than_the_start_whatever_the_function_does() -> None:
    def wild(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = np.sin(40 * x).sum(1)
        value[x[:, 0] > 0.5] = np.nan
        return value, 40 * np.cos(40 * x)

    given = starts(20, 3, 0, 0.5)
    _, f = minimize_all(wild, given, np.zeros(3), np.ones(3), evaluations=30)
    assert (f <= np.sin(40 * given).sum(1) + 1e-12).all()


def test_evaluations_are_limited_and_a_stationary_start_costs_one() -> None:
    calls = []

    def counted(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(x))
        return rosenbrock(x, rows)

    minimize_all(counted, starts(4, 5, -2, 2), np.full(5, -2.0), np.full(5, 2.0), evaluations=7)
    assert len(calls) == 7
    calls.clear()
    x, f = minimize_all(counted, np.ones((3, 5)), np.full(5, -2.0), np.full(5, 2.0))
    assert calls == [3]
    assert f == pytest.approx(0)
    assert (x == 1).all()


def test_bounds_of_each_restart_may_hold_a_coordinate() -> None:
    given = starts(3, 4, -1, 1)
    low, high = np.full((3, 4), -2.0), np.full((3, 4), 2.0)
    low[1, 2] = high[1, 2] = given[1, 2]
    x, _ = minimize_all(rosenbrock, given, low, high)
    assert x[1, 2] == given[1, 2]
    assert x[0, 2] != given[0, 2]


def test_a_race_leaves_the_better_half_again_and_again() -> None:
    counts = []

    def counted(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts.append(list(rows))
        return rosenbrock(x, rows)

    given = starts(8, 5, -2, 2)
    low, high = np.full(5, -2.0), np.full(5, 2.0)
    x, f = minimize_all(counted, given, low, high, evaluations=30, race=5)
    sizes = [8] * 5 + [4] * 5 + [2] * 5 + [1] * 15
    assert [len(rows) for rows in counts] == sizes[: len(counts)]
    assert len(counts) > 15
    # Each restart goes as it would alone, as long as it goes.
    for count, going in ((5, counts[4]), (10, counts[9]), (30, counts[-1])):
        alone = minimize_all(rosenbrock, given, low, high, evaluations=count)[1]
        assert set(going) >= set(np.argsort(alone)[: len(going) // 2])
    assert f[counts[-1][0]] == f.min()
    assert (f <= rosenbrock(given, np.arange(8))[0]).all()
    assert f == pytest.approx(rosenbrock(x, np.arange(8))[0])
