import math
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.search.gp.bayes import averaged, sample
from sharpen.search.gp.hyper import LogPosterior


def density(n: int = 7, **options: Any) -> LogPosterior:
    x = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    y = torch.sin(7 * x[:, 0]) + 0.2 * torch.cos(40 * x[:, 0])
    y = (y - y.mean()) / y.std()
    return LogPosterior(x, y, np.zeros(1, dtype=np.int64), integrated_mean=True, **options)


def test_draws_have_the_moments_of_the_posterior_by_quadrature() -> None:
    posterior = density()
    axes = [
        np.linspace(low, high, count)
        for low, high, count in zip(posterior.low, posterior.high, (70, 45, 60), strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    value = np.concatenate([posterior(part)[0] for part in np.array_split(grid, 40)])
    weight = np.exp(value.min() - value)
    weight /= weight.sum()
    mean = weight @ grid
    sd = np.sqrt(weight @ (grid - mean) ** 2)
    draws = sample(
        posterior,
        posterior.starts[0],
        np.random.default_rng(0),
        chains=100,
        steps=80,
        burn_in=30,
    )
    assert draws.shape == (5000, 3)
    by_chain = draws.reshape(50, 100, 3).mean(0)
    error = by_chain.std(0) / math.sqrt(100)
    assert (np.abs(draws.mean(0) - mean) < 4 * error + 0.02 * sd).all()
    assert (error < 0.1 * sd).all()
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.1)


def test_the_integrated_mean_is_the_likelihood_of_a_process_with_a_random_mean() -> None:
    posterior = density()
    theta = np.array([[-1.0, 0.3, -4.0], [0.2, -0.5, -6.0]])
    value, gradient = posterior(theta)
    x, y = posterior._x, posterior._y
    for row, got in zip(theta, value, strict=True):
        r = math.sqrt(5) * (x - x.T).abs() / math.exp(row[0])
        k = math.exp(row[1]) * (1 + r + r * r / 3) * torch.exp(-r) + 1
        k += math.exp(row[2]) * torch.eye(len(y), dtype=torch.float64)
        normal = torch.distributions.MultivariateNormal(torch.zeros(len(y)).double(), k)
        prior = (row[0] - posterior.lengthscale_prior.centre) ** 2 / 6 + row[1] ** 2 / 2
        prior -= math.log(math.log(1 + (0.2 / math.exp(row[2])) ** 2))
        assert got == pytest.approx(prior - float(normal.log_prob(y)), abs=1e-8)
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-6
        slope = (posterior(theta + step)[0] - posterior(theta - step)[0]) / 2e-6
        np.testing.assert_allclose(gradient[:, k], slope, rtol=1e-5, atol=1e-6)


def test_noise_that_is_not_learnt_stays() -> None:
    posterior = density(learn_noise=False)
    draws = sample(posterior, posterior.starts[1], np.random.default_rng(1), chains=5, steps=4)
    assert (draws[:, 1 + 1] == posterior.low[2]).all()
    assert len(np.unique(draws[:, 0])) == 5
    assert ((draws >= posterior.low) & (draws <= posterior.high)).all()


def test_acquisitions_are_averaged_as_numbers_or_as_logarithms() -> None:
    at = torch.rand(4, 2).double()
    parts = [lambda x: x[:, 0], lambda x: x[:, 1]]
    np.testing.assert_allclose(averaged(parts, is_log=False)(at), at.mean(1))
    np.testing.assert_allclose(averaged(parts, is_log=True)(at).exp(), at.exp().mean(1))
