import math

import numpy as np
import torch

from sharpen.search.gp.model import GaussianProcess, Hyperparameters
from sharpen.search.gp.thompson import sample_path


def test_paths_have_the_posterior_s_mean_and_covariance() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((6, 2)))
    hyper = Hyperparameters(
        lengthscales=torch.tensor([0.4, 0.7], dtype=torch.float64), scale=1.5, noise=0.01
    )
    model = GaussianProcess(x, torch.sin(5 * x).sum(1), hyper)
    at = torch.from_numpy(rng.random((4, 2)))
    paths = torch.stack([sample_path(model, rng, 256)(at) for _ in range(3000)])
    mean, variance = model.posterior(at)
    error = (variance / 3000).sqrt()
    assert ((paths.mean(0) - mean).abs() < 4.5 * error).all()
    covariance = model.covariance(at, at)
    bound = 4.5 * math.sqrt(2 / 3000) * float(variance.max())
    assert ((torch.cov(paths.T) - covariance).abs() < bound).all()


def test_a_path_goes_through_noiseless_data_and_has_gradients() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.random((5, 1)))
    hyper = Hyperparameters(lengthscales=torch.tensor([0.3], dtype=torch.float64), noise=1e-10)
    model = GaussianProcess(x, torch.cos(3 * x[:, 0]), hyper, kernel="rbf")
    path = sample_path(model, rng)
    np.testing.assert_allclose(path(x), model.targets, atol=1e-4)
    at = torch.from_numpy(rng.random((3, 1))).requires_grad_()
    assert torch.autograd.gradcheck(path, at, atol=1e-5)
