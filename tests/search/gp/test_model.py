import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern

from sharpen.core.errors import ConfigError
from sharpen.search.gp.hyper import LogPosterior, fit
from sharpen.search.gp.model import GaussianProcess, Hyperparameters, Moments

P = 3
LENGTHSCALES = torch.tensor([0.3, 0.8, 1.5], dtype=torch.float64)
HYPER = Hyperparameters(lengthscales=LENGTHSCALES, scale=1.7, noise=1e-3)


def data(n: int = 25, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, P))
    return torch.from_numpy(x), torch.from_numpy(np.sin(5 * x).sum(1) + x[:, 0] * x[:, 1])


def reference(kernel: str, x: torch.Tensor, y: torch.Tensor, noise: Any) -> Any:
    scales = LENGTHSCALES.numpy()
    kind = Matern(scales, nu=2.5) if kernel == "matern52" else RBF(scales)
    model = GaussianProcessRegressor(ConstantKernel(1.7) * kind, alpha=noise, optimizer=None)
    return model.fit(x.numpy(), y.numpy())


@pytest.mark.parametrize("kernel", ["matern52", "rbf"])
@pytest.mark.parametrize("known", [False, True])
def test_posterior_and_evidence_are_those_of_scikit_learn(kernel: str, known: bool) -> None:
    x, y = data()
    noise = torch.linspace(0.001, 0.1, len(x), dtype=torch.float64) if known else None
    model = GaussianProcess(x, y, HYPER, kernel=kernel, noise=noise, mean=0.0)
    total = 1e-3 + (0.0 if noise is None else noise.numpy())
    peer = reference(kernel, x, y, total)
    at, _ = data(40, 1)
    mean, variance = model.posterior(at)
    peer_mean, peer_cov = peer.predict(at.numpy(), return_cov=True)
    np.testing.assert_allclose(mean, peer_mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(variance, np.diag(peer_cov), rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.covariance(at, at), peer_cov, rtol=0, atol=1e-8)
    evidence = peer.log_marginal_likelihood_value_
    assert float(model.log_likelihood()) == pytest.approx(evidence, abs=1e-8)


def test_the_mean_is_the_likeliest_under_its_prior() -> None:
    x, y = data()
    model = GaussianProcess(x, y + 5, HYPER)

    def score(mean: float) -> float:
        given = GaussianProcess(x, y + 5, HYPER, mean=mean)
        return float(given.log_likelihood()) - mean**2 / 2

    best = float(model.mean)
    assert score(best) > max(score(best - 1e-3), score(best + 1e-3))


@pytest.mark.parametrize("known", [False, True])
def test_gradient_of_the_density_is_that_of_finite_differences(known: bool) -> None:
    x, y = data()
    noise = torch.linspace(0.001, 0.1, len(x), dtype=torch.float64) if known else None
    density = LogPosterior(x, y, np.array([0, 1, 0]), noise=noise)
    theta = np.array([[-1.0, -0.5, 0.3, -3.0], [0.5, -2.0, -0.2, -8.0]])
    value, gradient = density(theta)
    for j in range(theta.shape[1]):
        step = np.zeros(4)
        step[j] = 1e-5
        slope = (density(theta + step)[0] - density(theta - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-6, atol=1e-6)
    assert np.isfinite(value).all()


def test_the_density_is_evidence_and_priors() -> None:
    x, y = data()
    density = LogPosterior(x, y, np.arange(3))
    theta = np.array([[-1.0, -0.4, 0.2, 0.3, -4.0]])
    hyper = Hyperparameters(
        lengthscales=torch.from_numpy(np.exp(theta[0, :3])),
        scale=math.exp(0.3),
        noise=math.exp(-4.0),
    )
    model = GaussianProcess(x, y, hyper)
    centre = math.sqrt(2) - 3 + math.log(3) / 2
    away = theta[0, :3] - centre
    prior = -away @ np.linalg.inv(3 * (0.2 * np.eye(3) + 0.8)) @ away / 2 - 0.3**2 / 2
    prior += math.log(math.log(1 + (0.2 / math.exp(-4.0)) ** 2)) - float(model.mean) ** 2 / 2
    expected = float(model.log_likelihood()) + prior
    assert density(theta)[0][0] == pytest.approx(-expected, abs=1e-9)


def test_a_fit_is_a_maximum_and_finds_lengthscales_and_noise() -> None:
    rng = np.random.default_rng(3)
    x = rng.random((120, 2))
    truth = Hyperparameters(lengthscales=torch.tensor([0.2, 2.0], dtype=torch.float64), noise=0.01)
    base = GaussianProcess(torch.from_numpy(x), torch.zeros(120, dtype=torch.float64), truth)
    y = torch.linalg.cholesky(
        base.covariance(base.features, base.features) * 0
        + torch.from_numpy(Matern([0.2, 2.0], nu=2.5)(x))
        + 0.01 * torch.eye(120, dtype=torch.float64)
    ) @ torch.from_numpy(rng.normal(size=120))
    [found] = fit(torch.from_numpy(x), y, np.arange(2), evaluations=200)
    assert 0.1 < float(found.lengthscales[0]) < 0.4
    assert float(found.lengthscales[1]) > 0.8
    assert 0.005 < found.noise < 0.02
    theta = np.log([*found.lengthscales.tolist(), found.scale, found.noise])
    density = LogPosterior(torch.from_numpy(x), y, np.arange(2))
    value, gradient = density(theta[None])
    assert np.abs(gradient).max() < 0.05
    nearby = density(theta + 0.1 * rng.normal(size=(50, 4)))[0]
    assert value[0] < nearby.min()


def test_noise_vanishes_where_there_is_none_and_is_not_learnt_where_it_is_known() -> None:
    x, y = data(60)
    y = (y - y.mean()) / y.std()
    assert fit(x, y, np.arange(3))[0].noise < 1e-4
    shaken = y + 0.3 * torch.from_numpy(np.random.default_rng(0).normal(size=60))
    assert fit(x, shaken, np.arange(3))[0].noise > 0.02
    [known] = fit(
        x,
        shaken,
        np.arange(3),
        noise=torch.full((60,), 0.09, dtype=torch.float64),
        learn_noise=False,
    )
    assert known.noise == pytest.approx(1e-8)


def test_appending_is_conditioning_on_all_at_once() -> None:
    x, y = data(30)
    noise = torch.linspace(0.001, 0.05, 30, dtype=torch.float64)
    whole = GaussianProcess(x, y, HYPER, noise=noise)
    parts = GaussianProcess(x[:20], y[:20], HYPER, noise=noise[:20])
    parts = parts.append(x[20:29], y[20:29], noise[20:29]).append(x[29:], y[29:], noise[29:])
    at, _ = data(10, 2)
    for got, expected in zip(parts.posterior(at), whole.posterior(at), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)
    assert float(parts.log_likelihood()) == pytest.approx(float(whole.log_likelihood()), abs=1e-9)


def test_columns_are_processes_of_their_own() -> None:
    x, y = data(15)
    base = GaussianProcess(x, y, HYPER)
    extra, _ = data(2, 5)
    outcomes = torch.tensor([[0.1, -1.0, 2.0], [0.5, 0.2, 0.0]], dtype=torch.float64)
    many = base.append(extra, outcomes)
    at, _ = data(6, 2)
    mean, variance = many.posterior(at)
    assert mean.shape == (6, 3)
    for k in range(3):
        one = base.append(extra, outcomes[:, k])
        np.testing.assert_allclose(mean[:, k], one.posterior(at)[0], atol=1e-10)
        np.testing.assert_allclose(variance, one.posterior(at)[1], atol=1e-12)


def test_leave_one_out_is_prediction_without_the_point() -> None:
    x, y = data(12)
    model = GaussianProcess(x, y, HYPER, mean=0.2)
    mean, variance = model.leave_one_out()
    for i in range(12):
        rest = [j for j in range(12) if j != i]
        other = GaussianProcess(x[rest], y[rest], HYPER, mean=0.2)
        m, v = other.posterior(x[i : i + 1])
        assert float(mean[i]) == pytest.approx(float(m[0]), abs=1e-9)
        assert float(variance[i]) == pytest.approx(float(v[0]) + HYPER.noise, abs=1e-9)


def test_gradients_of_the_posterior() -> None:
    x, y = data(15)
    model = GaussianProcess(x, y, HYPER)
    at = data(4, 7)[0].requires_grad_()
    assert torch.autograd.gradcheck(model.posterior, at, atol=1e-6)
    others = data(5, 8)[0]
    assert torch.autograd.gradcheck(lambda z: model.covariance(z, others), at, atol=1e-6)


def test_repeated_points_need_jitter_and_nan_is_an_error() -> None:
    x, y = data(10)
    hyper = Hyperparameters(lengthscales=LENGTHSCALES, noise=0.0)
    twice = GaussianProcess(torch.cat([x, x]), torch.cat([y, y]), hyper)
    np.testing.assert_allclose(twice.posterior(x)[0], y, atol=1e-3)
    with pytest.raises(ConfigError, match="not positive definite"):
        GaussianProcess(x * math.nan, y, hyper)


def moments_by_differences(model: GaussianProcess, others: torch.Tensor | None) -> None:
    at = np.random.default_rng(9).random((4, model.features.shape[1]))
    found = Moments(model, others)(at)
    mean, variance = model.posterior(torch.from_numpy(at))
    np.testing.assert_allclose(found.mean, mean.reshape(4, -1), atol=1e-12)
    np.testing.assert_allclose(found.variance, variance, atol=1e-12)
    if others is not None:
        expected = model.covariance(torch.from_numpy(at), others)
        np.testing.assert_allclose(found.covariance, expected, atol=1e-12)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=v.shape) for v in (found.mean, found.variance, found.covariance)]

    def total(points: np.ndarray) -> float:
        new = Moments(model, others)(points)
        parts = zip(weights, (new.mean, new.variance, new.covariance), strict=True)
        return float(sum((w * v).sum() for w, v in parts))

    by_points = found.back(weights[0], weights[1], weights[2] if others is not None else None)
    for i, j in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[i, j] = 1e-6
        change = (total(at + step) - total(at - step)) / 2e-6
        assert by_points[i, j] == pytest.approx(change, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kernel", ["matern52", "rbf"])
@pytest.mark.parametrize("is_warped", [False, True])
@pytest.mark.parametrize("columns", [0, 3])
def test_moments_are_the_posterior_and_give_its_derivatives(
    kernel: str, is_warped: bool, columns: int
) -> None:
    x, y = data(12)
    if columns:
        y = y[:, None] * torch.arange(1, columns + 1)
    warp = (
        torch.tensor([[0.7, 1.0, 2.0], [1.5, 1.0, 0.8]], dtype=torch.float64) if is_warped else None
    )
    lengthscales = torch.tensor([0.3, 0.6, 1.2], dtype=torch.float64)
    hyper = Hyperparameters(lengthscales=lengthscales, scale=1.5, noise=0.01, warp=warp)
    model = GaussianProcess(x, y, hyper, kernel=kernel)
    moments_by_differences(model, None)
    moments_by_differences(model, data(5, 4)[0])


def test_two_kernels_are_fitted_at_once_as_each_is_alone() -> None:
    x, y = data(25)
    y = (y - y.mean()) / y.std()
    together = fit(x, y, np.arange(3), kernels=("matern52", "rbf"))
    for kernel, found in zip(("matern52", "rbf"), together, strict=True):
        [alone] = fit(x, y, np.arange(3), kernels=(kernel,))
        np.testing.assert_allclose(found.lengthscales, alone.lengthscales, rtol=1e-3)
        assert found.scale == pytest.approx(alone.scale, rel=1e-3)
    density = LogPosterior(x, y, np.arange(3), kernels=("matern52", "rbf"))
    rows = np.array([0, 2, 3])
    theta = density.starts[rows] + 0.1
    value, gradient = density(theta, rows)
    for kernel, part in (("matern52", slice(0, 1)), ("rbf", slice(1, 3))):
        expected = LogPosterior(x, y, np.arange(3), kernels=(kernel,))(theta[part])
        np.testing.assert_allclose(value[part], expected[0])
        np.testing.assert_allclose(gradient[part], expected[1])
