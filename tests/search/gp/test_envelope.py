import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from sharpen.search.gp.envelope import log_expected_rise
from sharpen.search.gp.normal import log_h_values


def rise(a: np.ndarray, b: np.ndarray) -> float:
    return float(log_expected_rise(a[None], b[None])[0][0])


@pytest.mark.parametrize("seed", range(6))
def test_is_the_integral_over_the_normal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=12), rng.normal(size=12)
    a[3], b[3] = a[7] + 0.1, b[7]  # parallel lines
    crossings = [(a[i] - a[j]) / (b[j] - b[i]) for i in range(12) for j in range(i) if b[i] != b[j]]
    edges = sorted({-12.0, 12.0, *(c for c in crossings if abs(c) < 12)})
    exact = sum(
        quad(lambda z: float((a + b * z).max()) * norm.pdf(z), lo, hi, epsabs=1e-14)[0]
        for lo, hi in itertools.pairwise(edges)
    )
    assert math.exp(rise(a, b)) == pytest.approx(exact - a.max(), abs=1e-10)


def test_agrees_with_a_million_draws() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=30), 0.5 * rng.normal(size=30)
    z = rng.normal(size=10**6)
    best = np.full(len(z), -np.inf)
    for height, slope in zip(a, b, strict=True):
        best = np.maximum(best, height + slope * z)
    error = best.std() / 1000
    assert math.exp(rise(a, b)) == pytest.approx(best.mean() - a.max(), abs=3 * error)


def test_two_lines_have_a_closed_form_however_small_it_is() -> None:
    for gap in (0.0, 1.0, 30.0):
        value = rise(np.array([0.0, -gap]), np.array([0.2, 1.2]))
        assert value == pytest.approx(float(log_h_values(np.array([-gap]))[0]), abs=1e-12)


def test_lines_that_never_cross_on_top_rise_by_nothing() -> None:
    assert rise(np.array([1.0, 0.0]), np.array([0.3, 0.3])) == -math.inf
    assert rise(np.array([1.0, 1.0, 1.0]), np.array([0.3, 0.3, 0.3])) == -math.inf


def test_three_lines_through_one_point_count_the_middle_one_for_nothing() -> None:
    outer = rise(np.array([0.0, 0.0]), np.array([-1.0, 1.0]))
    assert rise(np.array([0.0, 0.0, 0.0]), np.array([-1.0, 0.2, 1.0])) == pytest.approx(outer)


def check_gradients(a: np.ndarray, b: np.ndarray) -> None:
    _, by_height, by_slope = log_expected_rise(a, b)
    for row in range(len(a)):
        for k in range(a.shape[1]):
            step = np.zeros_like(a)
            step[row, k] = 1e-6
            for found, ahead, behind in (
                (by_height, (a + step, b), (a - step, b)),
                (by_slope, (a, b + step), (a, b - step)),
            ):
                change = log_expected_rise(*ahead)[0][row] - log_expected_rise(*behind)[0][row]
                assert found[row, k] == pytest.approx(change / 2e-6, rel=1e-6, abs=1e-6)


def test_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(2)
    check_gradients(rng.normal(size=(3, 8)), rng.normal(size=(3, 8)))


def test_gradient_keeps_its_precision_where_the_rise_is_tiny() -> None:
    a, b = np.array([[0.0, -12.0, -13.0, -14.0]]), np.array([[0.1, 1.0, -0.9, 0.3]])
    assert log_expected_rise(a, b)[0][0] < -70  # of the rise itself no digit is left beside max a
    check_gradients(a, b)
