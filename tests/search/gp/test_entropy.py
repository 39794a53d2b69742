import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from sharpen.search.gp import entropy
from sharpen.search.gp.acquisition import knowledge_gradient, max_value_entropy
from sharpen.search.gp.entropy import joint_entropy, sample_optima
from sharpen.search.gp.model import GaussianProcess, Hyperparameters
from sharpen.search.gp.thompson import sample_paths

NOISE = 0.05


def points(n: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((n, 2)))


def model() -> GaussianProcess:
    x = points(8, 0)
    scales = torch.full((2,), 0.4, dtype=torch.float64)
    hyper = Hyperparameters(lengthscales=scales, noise=1e-6)
    return GaussianProcess(x, torch.sin(6 * x).sum(1), hyper, mean=0.0)


def cut_variance(mean: float, sd: float, least: float) -> float:
    """Variance of a normal that is known to be above ``least``, by quadrature."""
    end = max(mean, least) + 12 * sd
    mass, first, second = (
        quad(lambda y, k=k: y**k * norm.pdf(y, mean, sd), least, end, epsabs=1e-14)[0]
        for k in range(3)
    )
    return second / mass - (first / mass) ** 2


def test_joint_entropy_follows_from_conditioning_and_quadrature() -> None:
    gp, at, places = model(), points(6, 3), points(2, 4)
    values = torch.tensor([-2.1, -1.9], dtype=torch.float64)
    got = joint_entropy(gp, places, values, noise=NOISE)(at)
    before = gp.posterior(at)[1] + NOISE
    for i in range(len(at)):
        total = 0.0
        for place, value in zip(places, values, strict=True):
            told = gp.append(place[None], value[None])
            mean, variance = told.posterior(at[i : i + 1])
            cut = cut_variance(float(mean), math.sqrt(float(variance)), float(value))
            total += 0.25 * math.log(float(before[i]) / (cut + NOISE))
        assert float(got[i]) == pytest.approx(total, abs=2e-5)


def test_noisy_mes_follows_from_the_variance_of_a_cut_normal() -> None:
    gp, at = model(), points(6, 3)
    minima = torch.tensor([-2.5, -2.1], dtype=torch.float64)
    got = max_value_entropy(gp, minima, noise=NOISE)(at)
    mean, variance = gp.posterior(at)
    for m, v, value in zip(mean.tolist(), variance.tolist(), got.tolist(), strict=True):
        cuts = [cut_variance(m, math.sqrt(v), least) for least in minima.tolist()]
        expected = np.mean([0.5 * math.log((v + NOISE) / (cut + NOISE)) for cut in cuts])
        assert value == pytest.approx(float(expected), abs=1e-6)


def test_optima_are_minima_of_drawn_functions() -> None:
    gp, raw = model(), points(300, 5)
    places, values = sample_optima(gp, raw, 12, np.random.default_rng(0), in_cube=True)
    paths = sample_paths(gp, np.random.default_rng(0), 12)
    np.testing.assert_allclose(paths(places).diagonal(), values, atol=1e-10)
    everywhere = paths(points(4000, 6)).min(0).values
    assert (values <= everywhere + 1e-3).all()
    assert ((places >= 0) & (places <= 1)).all()
    kept, _ = sample_optima(gp, raw, 12, np.random.default_rng(0), in_cube=False)
    assert all((raw == place).all(1).any() for place in kept)


def test_several_paths_follow_the_posterior() -> None:
    gp, at = model(), points(3, 7)
    drawn = torch.cat(
        [sample_paths(gp, np.random.default_rng(seed), 200)(at) for seed in range(20)], 1
    )
    mean, variance = gp.posterior(at)
    error = (variance / drawn.shape[1]).sqrt()
    assert ((drawn.mean(1) - mean).abs() < 5 * error + 1e-3).all()
    np.testing.assert_allclose(drawn.var(1), variance, rtol=0.15)


def test_gradients_are_those_of_finite_differences() -> None:
    values = torch.tensor([-2.1, -1.9], dtype=torch.float64)
    at = points(5, 8).requires_grad_()
    for noise in (0.0, NOISE):
        wanted = joint_entropy(model(), points(2, 4), values, noise=noise)
        assert torch.autograd.gradcheck(wanted, at, atol=1e-5, rtol=1e-3)
        told = max_value_entropy(model(), values - 0.3, noise=noise)
        assert torch.autograd.gradcheck(told, at, atol=1e-5, rtol=1e-3)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_joint_entropy_is_that_of_botorch(monkeypatch: pytest.MonkeyPatch) -> None:
    search = pytest.importorskip("botorch.acquisition.joint_entropy_search")
    from botorch.models.utils.gpytorch_modules import MIN_INFERRED_NOISE_LEVEL

    from sharpen.search.gp.bridge import to_botorch

    # BoTorch predicts a measurement's noise by the mean of all, those of the minima too; here all
    # are as small as it takes those to be.
    least = MIN_INFERRED_NOISE_LEVEL
    x, y = model().features, model().targets
    noise = torch.full((8,), least, dtype=torch.float64)
    hyper = Hyperparameters(lengthscales=model().hyper.lengthscales, noise=0.0)
    gp = GaussianProcess(x, y, hyper, noise=noise, mean=0.0)
    at, places = points(20, 3), points(3, 4)
    values = torch.tensor([-2.1, -1.9, -2.4], dtype=torch.float64)
    peer = search.qJointEntropySearch(to_botorch(gp, negate=True), places, -values[:, None])
    monkeypatch.setattr(entropy, "_CONDITION_NOISE", least)
    got = joint_entropy(gp, places, values, noise=least)(at)
    np.testing.assert_allclose(got, peer(at[:, None]).detach(), atol=1e-4)


def test_a_set_with_drawn_minima_holds_nearly_all_of_the_knowledge_gradient() -> None:
    rng = np.random.default_rng(0)
    x, raw, at = points(12, 1), points(256, 2), points(40, 3)
    y = torch.sin(5 * x).sum(1) + 0.1 * torch.from_numpy(rng.normal(size=12))
    scales = torch.tensor([0.3, 0.5], dtype=torch.float64)
    gp = GaussianProcess(
        x, (y - y.mean()) / y.std(), Hyperparameters(lengthscales=scales, noise=0.02)
    )
    optima, _ = sample_optima(gp, torch.cat([x, raw]), 16, rng, in_cube=True)
    best = raw[gp.posterior(raw)[0].argsort()[:50]]
    axis = torch.linspace(0, 1, 50, dtype=torch.float64)
    fine = knowledge_gradient(gp, torch.cartesian_prod(axis, axis), noise=0.02)(at).exp()
    got = knowledge_gradient(gp, torch.cat([x, optima, best]), noise=0.02)(at).exp()
    without = knowledge_gradient(gp, torch.cat([x, best]), noise=0.02)(at).exp()
    large = fine > 0.3 * fine.max()
    assert np.corrcoef(fine, got)[0, 1] > 0.97
    assert float((got / fine)[large].median()) == pytest.approx(1, abs=0.2)
    assert float((got - fine).abs().mean()) < float((without - fine).abs().mean())
