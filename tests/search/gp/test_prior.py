import math

import numpy as np
import pytest
import torch

from sharpen.search.gp.prior import LengthscalePrior, noise_misfit, noise_slope


def covariance(count: int, alike: int) -> np.ndarray:
    shared = np.arange(count) < alike
    return 3 * np.where(np.eye(count) > 0, 1.0, 0.8 * np.outer(shared, shared))


@pytest.mark.parametrize(("count", "alike"), [(1, 1), (2, 2), (7, 7), (3, 2), (4, 0)])
def test_it_is_a_normal_whose_first_coordinates_share_four_fifths_of_their_variance(
    count: int, alike: int
) -> None:
    prior = LengthscalePrior(count, alike)
    rng = np.random.default_rng(0)
    away = torch.from_numpy(rng.normal(size=(4, 3, count))).requires_grad_()
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(count, dtype=torch.float64), torch.from_numpy(covariance(count, alike))
    )
    expected = normal.log_prob(torch.zeros(count)) - normal.log_prob(away)
    found = prior.misfit(away)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    (slope,) = torch.autograd.grad(found.sum(), away)
    torch.testing.assert_close(prior.slope(away), slope)
    # The same of arrays, which take less time.
    plain = away.detach().numpy()
    np.testing.assert_allclose(prior.misfit(plain), found.detach())
    np.testing.assert_allclose(prior.slope(plain), slope)


def test_draws_have_its_covariance() -> None:
    drawn = LengthscalePrior(3, 2).draw(np.random.default_rng(1), 40_000)
    assert np.abs(drawn.mean(axis=0)).max() < 4 * math.sqrt(3 / 40_000)
    np.testing.assert_allclose(
        np.cov(drawn.T), covariance(3, 2), atol=4 * 3 * math.sqrt(2 / 40_000)
    )


def test_the_mode_is_that_of_a_log_normal_density() -> None:
    # The mode of LogNormal(m, v) is exp(m - v); here m = sqrt(2) + log(g) / 2 and v = 3.
    assert LengthscalePrior(9).centre == pytest.approx(math.sqrt(2) + math.log(3) - 3)
    assert LengthscalePrior(0).centre == pytest.approx(math.sqrt(2) - 3)


def test_the_density_of_the_noise_is_flat_below_and_falls_with_the_square_above() -> None:
    noise = torch.tensor([1e-8, 1e-4, 0.1, 1.0, 50.0], dtype=torch.float64).requires_grad_()
    density = torch.exp(-noise_misfit(noise.detach()))
    torch.testing.assert_close(density, torch.log(1 + (0.2 / noise.detach()) ** 2))
    assert float(density[0] / density[1]) < 3
    assert float(density[3] / density[4]) == pytest.approx(2500, rel=0.02)
    (slope,) = torch.autograd.grad(noise_misfit(noise).sum(), noise)
    plain = noise.detach().numpy()
    np.testing.assert_allclose(noise_slope(plain), slope)
    np.testing.assert_allclose(np.exp(-noise_misfit(plain)), density)
