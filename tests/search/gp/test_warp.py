import numpy as np
import pytest
import torch
from scipy.stats import beta

from sharpen.search.gp.hyper import LogPosterior, fit
from sharpen.search.gp.model import GaussianProcess, Hyperparameters
from sharpen.search.gp.warp import warp, warp_slopes


def test_the_warp_is_the_distribution_of_kumaraswamy() -> None:
    u = torch.linspace(0.01, 0.99, 30, dtype=torch.float64)
    a, b = torch.tensor(2.3, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    # If V is Beta(1, b), V^(1/a) has that distribution.
    np.testing.assert_allclose(warp(u, a, b), beta.cdf(u.numpy() ** 2.3, 1, 0.7), rtol=1e-12)
    one = torch.ones(()).double()
    assert torch.equal(warp(u, one, one), u)
    ends = warp(torch.tensor([0.0, 1.0]).double(), a, b)
    np.testing.assert_allclose(ends, [0, 1], atol=1e-4)


def test_slopes_are_those_of_autograd() -> None:
    u = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    a = torch.full_like(u, 1.7).requires_grad_()
    b = torch.full_like(u, 0.4).requires_grad_()
    by_a, by_b = torch.autograd.grad(warp(u, a, b).sum(), (a, b))
    got_a, got_b = warp_slopes(u, a.detach(), b.detach())
    np.testing.assert_allclose(got_a, by_a, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(got_b, by_b, rtol=1e-9, atol=1e-13)


def test_the_gradient_of_the_density_is_that_of_differences() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((12, 3)))
    y = torch.from_numpy(rng.normal(size=12))
    density = LogPosterior(x, y, np.array([0, 1, 1]), warped=np.array([0, 2]))
    theta = np.concatenate([rng.normal(size=(3, 2)), rng.normal(size=(3, 6)) * 0.5], 1)
    theta[:, 3] -= 3
    _, gradient = density(theta)
    for k in range(8):
        step = np.zeros(8)
        step[k] = 1e-6
        slope = (density(theta + step)[0] - density(theta - step)[0]) / 2e-6
        np.testing.assert_allclose(gradient[:, k], slope, rtol=2e-5, atol=1e-5)


def test_a_warped_process_is_a_plain_one_of_warped_points() -> None:
    x = torch.from_numpy(np.random.default_rng(1).random((9, 2)))
    y = torch.sin(5 * x).sum(1)
    shape = torch.tensor([[2.0, 1.0], [0.5, 1.0]], dtype=torch.float64)
    scales = torch.tensor([0.3, 0.6], dtype=torch.float64)
    got = GaussianProcess(x, y, Hyperparameters(lengthscales=scales, warp=shape, noise=1e-4))
    plain = GaussianProcess(
        warp(x, shape[0], shape[1]), y, Hyperparameters(lengthscales=scales, noise=1e-4)
    )
    at = torch.rand(5, 2, generator=torch.manual_seed(0)).double()
    expected = plain.posterior(warp(at, shape[0], shape[1]))
    for mine, theirs in zip(got.posterior(at), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    at.requires_grad_()
    assert torch.autograd.gradcheck(got.posterior, at, atol=1e-6)
    grown = got.append(at.detach()[:2], torch.zeros(2).double())
    assert float(grown.posterior(at.detach()[:1])[0]) == pytest.approx(0, abs=1e-2)


def test_a_learnt_warp_predicts_better_where_the_objective_is_bent() -> None:
    x = torch.linspace(0, 1, 15, dtype=torch.float64)[:, None]
    at = torch.linspace(0.11, 0.99, 200, dtype=torch.float64)[:, None]

    def bent(u: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.sin(9 * u[:, 0] ** 0.2)
        return found

    scores, hypers = [], []
    for warped in (None, np.array([0])):
        hypers += fit(x, bent(x), np.zeros(1, dtype=np.int64), warped=warped)
        mean, variance = GaussianProcess(x, bent(x), hypers[-1]).posterior(at)
        z = (mean - bent(at)) / variance.sqrt()
        scores.append(float((-(z**2) - variance.log()).mean() / 2))
    assert scores[1] > scores[0] + 1.0  # in nats a point
    assert hypers[1].warp is not None
    assert float(hypers[1].warp[0, 0]) < 0.7  # steep at the lower end


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_the_warp_is_that_of_botorch() -> None:
    transforms = pytest.importorskip("botorch.models.transforms.input")
    a, b = torch.tensor([[2.0, 0.6], [0.5, 1.4]], dtype=torch.float64)
    cube = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    peer = transforms.Warp(d=2, indices=[0, 1], bounds=cube).double()
    peer.concentration1.data, peer.concentration0.data = a, b
    at = torch.rand(20, 2, generator=torch.manual_seed(0)).double()
    np.testing.assert_allclose(warp(at, a, b), peer(at).detach(), atol=1e-6)
