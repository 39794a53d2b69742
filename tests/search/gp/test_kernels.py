import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process.kernels import RBF, Matern

from sharpen.core.errors import ConfigError
from sharpen.search.gp.kernels import (
    KERNELS,
    correlation,
    profile,
    spectral_frequencies,
    squared_distances,
)

REFERENCE = {"matern52": Matern(1.0, nu=2.5), "rbf": RBF(1.0)}


def points(n: int, p: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, p)))


@pytest.mark.parametrize("name", KERNELS)
def test_values_are_those_of_scikit_learn(name: str) -> None:
    a, b = points(20, 3), points(30, 3, 1)
    got = correlation(a, b, profile(name)).numpy()
    np.testing.assert_allclose(got, REFERENCE[name](a.numpy(), b.numpy()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", KERNELS)
def test_slopes_in_the_squared_distance_are_derivatives(name: str) -> None:
    u = torch.linspace(0.01, 20, 50, dtype=torch.float64)
    k, first, second = profile(name)(u)
    step = 1e-4
    above, below = profile(name)(u + step), profile(name)(u - step)
    np.testing.assert_allclose((above[0] - below[0]) / (2 * step), first, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose((above[1] - below[1]) / (2 * step), second, rtol=1e-5, atol=1e-9)
    at_zero = profile(name)(torch.zeros(1, dtype=torch.float64))
    assert float(at_zero[0]) == 1
    assert all(math.isfinite(float(v)) for v in at_zero)
    assert (k > 0).all()


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_in_the_points_is_that_of_finite_differences(name: str) -> None:
    a, b = points(4, 3).requires_grad_(), points(5, 3, 1)
    assert torch.autograd.gradcheck(lambda x: correlation(x, b, profile(name)), a, atol=1e-7)


def test_distances_of_one_point_to_itself_are_zero_and_never_negative() -> None:
    a = 1e3 + points(50, 4)
    u = squared_distances(a, a)
    assert u.min() >= 0
    assert u.diagonal().max() < 1e-8
    exact = ((a[:, None] - a[None]) ** 2).sum(-1)
    np.testing.assert_allclose(u, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", KERNELS)
def test_frequencies_have_the_kernel_as_their_characteristic_function(name: str) -> None:
    omega = spectral_frequencies(name, 200_000, 2, np.random.default_rng(0))
    gap = torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    estimate = float(torch.cos(omega @ gap[0]).mean())
    exact = float(correlation(gap, torch.zeros(1, 2, dtype=torch.float64), profile(name)))
    assert estimate == pytest.approx(exact, abs=4 / math.sqrt(200_000))  # 4 standard errors


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="matern52"):
        profile("matern")
