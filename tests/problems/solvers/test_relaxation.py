"""Solvers against dense loops, and the published counts."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from sharpen.core.errors import ConfigError, DataError
from sharpen.problems.solvers import sor, ssor_cg
from sharpen.problems.solvers.sequences import draw_system, laplacian


@pytest.fixture(params=["1", "0"], ids=["native", "twin"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "0":
        monkeypatch.setenv("SHARPEN_NATIVE", "0")
    return str(request.param)


def random_system(n: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.3)
    spd = dense @ dense.T + n * np.eye(n) * 0.3
    return spd, rng.standard_normal(n)


@pytest.mark.parametrize("omega", [0.5, 1.0, 1.5, 1.9])
def test_sor_counts_the_iterations_of_its_formula(path: str, omega: float) -> None:
    for seed in range(3):
        a, b = random_system(12, seed)
        solution = sor(scipy.sparse.csr_array(a), b, omega, tolerance=1e-6)
        step = np.diag(np.diag(a)) / omega + np.tril(a, -1)
        x, count, first = np.zeros(12), 0, np.linalg.norm(b)
        while np.linalg.norm(b - a @ x) >= 1e-6 * first:
            x = x + np.linalg.solve(step, b - a @ x)
            count += 1
        assert (solution.iterations, solution.converged) == (count, True)
        np.testing.assert_allclose(solution.x, x, rtol=1e-9, atol=1e-12)
        assert solution.residual == pytest.approx(np.linalg.norm(b - a @ x) / first, rel=1e-6)


@pytest.mark.parametrize("omega", [0.5, 1.0, 1.5, 1.9])
@pytest.mark.parametrize("order", ["lexicographic", "red-black"])
def test_ssor_cg_counts_the_iterations_of_its_formula(path: str, omega: float, order: Any) -> None:
    a = laplacian(5).toarray() + 0.1 * np.eye(25)
    b = np.random.default_rng(1).standard_normal(25)
    solution = ssor_cg(a, b, omega, tolerance=1e-9, order=order)
    rows = np.arange(25)
    if order == "red-black":
        colour = (rows % 5 + rows // 5) % 2
        rows = np.argsort(colour, kind="stable")
    p = a[np.ix_(rows, rows)]
    d, lower = np.diag(np.diag(p)), np.tril(p, -1)
    m = (d + omega * lower) @ np.linalg.inv(d) @ (d + omega * lower).T / (omega * (2 - omega))
    x, r, count, direction, energy = np.zeros(25), b[rows], 0, np.zeros(25), 1.0
    while np.linalg.norm(b[rows] - p @ x) >= 1e-9 * np.linalg.norm(b):
        z = np.linalg.solve(m, r)
        direction = z + (r @ z / energy if count else 0.0) * direction
        energy = r @ z
        alpha = energy / (direction @ p @ direction)
        x, r, count = x + alpha * direction, r - alpha * (p @ direction), count + 1
    assert solution.iterations == count
    np.testing.assert_allclose(solution.x[rows], x, rtol=1e-7, atol=1e-9)


def test_the_published_counts_are_met() -> None:
    a = laplacian(10)
    b = draw_system(a, 0.0, np.random.default_rng(0)).b
    counts = [sor(a, b, omega).iterations for omega in (1.0, 1.2, 1.4, 1.5604, 1.6, 1.8, 1.95)]
    lows, highs = (151, 105, 60, 39, 39, 84, 360), (204, 134, 83, 39, 42, 87, 366)
    assert all(low <= count <= high for low, count, high in zip(lows, counts, highs, strict=True))


def test_red_black_sor_solves_the_same_system() -> None:
    a = laplacian(8)
    b = np.arange(64.0)
    for omega in (1.0, 1.5):
        one, other = (sor(a, b, omega, order=o) for o in ("lexicographic", "red-black"))  # type: ignore[arg-type]
        assert one.converged
        assert other.converged
        np.testing.assert_allclose(one.x, other.x, rtol=1e-5)
    with pytest.raises(ConfigError, match="no two colours"):
        sor(np.ones((3, 3)) + np.eye(3), np.ones(3), 1.0, order="red-black")


def test_a_start_at_the_solution_takes_no_iteration_and_limits_are_kept(path: str) -> None:
    a, b = random_system(6, 1)
    x = np.linalg.solve(a, b)
    for solve in (sor, ssor_cg):
        near = solve(a, b, 1.0, x0=x, tolerance=2.0)
        assert (near.iterations, near.converged) == (0, True)
        none = solve(a, np.zeros(6), 1.0)
        assert (none.iterations, none.converged, none.x.any()) == (0, True, False)
        short = solve(a, b, 1.0, max_iterations=2, tolerance=1e-15)
        assert (short.iterations, short.converged) == (2, False)


def test_what_diverges_or_is_not_definite_has_not_converged(path: str) -> None:
    wild = np.array([[1.0, 50.0], [50.0, 1.0]])
    diverged = sor(wild, np.ones(2), 1.5)
    assert not diverged.converged
    assert diverged.iterations < 10_000
    assert not ssor_cg(-wild, np.ones(2), 1.5).converged


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"omega": 2.0}, ConfigError, "between 0 and 2"),
        ({"omega": 0.0}, ConfigError, "between 0 and 2"),
        ({"omega": float("nan")}, ConfigError, "between 0 and 2"),
        ({"tolerance": 0.0}, ConfigError, "must be positive"),
        ({"order": "random"}, ConfigError, "lexicographic or red-black"),
        ({"b": np.ones(3)}, DataError, r"must have the shape \(2,\)"),
        ({"b": np.array([1.0, np.nan])}, DataError, "not finite"),
        ({"matrix": np.ones((2, 3))}, DataError, "must be square"),
        ({"matrix": np.array([[0.0, 1], [1, 1]])}, DataError, "zero on its diagonal, in row 0"),
        ({"matrix": np.array([[np.inf, 1], [1, 1]])}, DataError, "not finite"),
    ],
)
def test_systems_that_make_no_sense_are_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"matrix": np.eye(2), "b": np.ones(2), "omega": 1.0, **change}
    with pytest.raises(error, match=message):
        sor(given.pop("matrix"), given.pop("b"), given.pop("omega"), **given)
