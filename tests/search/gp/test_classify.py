import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern

from sharpen.search.gp.classify import (
    _covariance,
    fit_success,
    log_evidence,
    log_success,
    success_model,
)
from sharpen.search.gp.model import Hyperparameters

HYPER = Hyperparameters(
    lengthscales=torch.tensor([0.3, 0.8], dtype=torch.float64), scale=6.0, noise=0.0
)


def data(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    x = np.random.default_rng(0).random((n, 2))
    y = np.where(x[:, 0] + 0.3 * np.sin(9 * x[:, 1]) > 0.55, -1.0, 1.0)
    return torch.from_numpy(x), torch.from_numpy(y)


@pytest.mark.parametrize("kernel", ["matern52", "rbf"])
def test_evidence_and_latent_posterior_are_those_of_scikit_learn(kernel: str) -> None:
    x, y = data()
    kind = {"matern52": Matern([0.3, 0.8], nu=2.5), "rbf": RBF([0.3, 0.8])}[kernel]
    peer = GaussianProcessClassifier(
        ConstantKernel(6.0) * kind, optimizer=None, max_iter_predict=200
    ).fit(x.numpy(), y.numpy())
    covariance = _covariance(x, HYPER.lengthscales, HYPER.scale, kernel)
    evidence = peer.log_marginal_likelihood()
    assert float(log_evidence(covariance, y)) == pytest.approx(evidence, abs=1e-6)
    at = torch.from_numpy(np.random.default_rng(1).random((20, 2)))
    mean, variance = success_model(x, y, HYPER, kernel=kernel).posterior(at)
    peer_mean, peer_variance = peer.latent_mean_and_variance(at.numpy())
    np.testing.assert_allclose(mean, peer_mean, atol=1e-5)
    np.testing.assert_allclose(variance, peer_variance, atol=1e-5)


def test_probability_is_near_the_integral_of_the_logistic_function() -> None:
    x, y = data()
    model = success_model(x, y, HYPER)
    at = torch.from_numpy(np.random.default_rng(1).random((10, 2)))
    mean, variance = model.posterior(at)
    for m, v, got in zip(mean, variance, log_success(model)(at).exp(), strict=True):
        sd = float(v) ** 0.5
        exact, _ = quad(lambda f, m=m, sd=sd: expit(f) * norm.pdf(f, float(m), sd), -40, 40)
        assert float(got) == pytest.approx(exact, abs=0.02)  # MacKay's approximation


def test_gradient_of_the_evidence_follows_the_mode() -> None:
    x, y = data(12)
    theta = torch.tensor([-1.0, -0.5, 0.8], dtype=torch.float64, requires_grad=True)

    def evidence(t: torch.Tensor) -> torch.Tensor:
        return log_evidence(_covariance(x, t[:2].exp(), t[2].exp(), "matern52"), y)

    assert torch.autograd.gradcheck(evidence, theta, atol=1e-6)


def test_a_fit_tells_what_matters_and_where_trials_fail() -> None:
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.random((40, 2)))
    y = torch.where(x[:, 0] > 0.6, -1.0, 1.0).to(torch.float64)
    hyper = fit_success(x, y, np.arange(2))
    assert float(hyper.lengthscales[1]) > 2 * float(hyper.lengthscales[0])
    at = torch.tensor([[0.1, 0.5], [0.95, 0.5], [0.95, 0.0]], dtype=torch.float64)
    chance = log_success(success_model(x, y, hyper))(at).exp()
    assert float(chance[0]) > 0.9
    assert float(chance[1:].max()) < 0.15
    assert torch.autograd.gradcheck(
        log_success(success_model(x, y, hyper)), at.requires_grad_(), atol=1e-6
    )
