"""Side by side with BoTorch and GPyTorch, at equal hyper-parameters."""

from typing import Any

import numpy as np
import pytest
import torch

from sharpen.search.gp.acquisition import (
    constrained,
    knowledge_gradient,
    log_expected_improvement,
    log_feasibility,
    log_probability_of_improvement,
    max_value_entropy,
    upper_confidence_bound,
)
from sharpen.search.gp.model import GaussianProcess, Hyperparameters

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

SCALES = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
NOISE = 1e-3


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((12, 2)))
    return x, torch.sin(5 * x).sum(1), torch.from_numpy(rng.random((30, 2)))


def ours(shift: float = 0.0) -> GaussianProcess:
    x, y, _ = data()
    hyper = Hyperparameters(lengthscales=SCALES[0], scale=1.4, noise=0.0)
    noise = torch.full((12,), NOISE, dtype=torch.float64)
    return GaussianProcess(x, y + shift, hyper, noise=noise, mean=0.0)


def theirs(outputs: tuple[float, ...] = (0.0,)) -> Any:
    pytest.importorskip("botorch")
    from botorch.models import ModelListGP, SingleTaskGP
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.means import ZeroMean

    x, y, _ = data()
    models = []
    for shift in outputs:
        kernel = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=2)).double()
        kernel.outputscale = 1.4
        kernel.base_kernel.lengthscale = SCALES
        targets = (y + shift)[:, None]
        noise = torch.full_like(targets, NOISE)
        model = SingleTaskGP(
            x,
            targets,
            noise,
            covar_module=kernel,
            mean_module=ZeroMean(),
            outcome_transform=None,
        )
        models.append(model.eval())
    return models[0] if len(models) == 1 else ModelListGP(*models)


def test_posteriors_are_alike() -> None:
    peer = theirs()
    at = data()[2]
    with torch.no_grad():
        posterior = peer.posterior(at)
    mean, variance = ours().posterior(at)
    np.testing.assert_allclose(mean, posterior.mean[:, 0], atol=1e-6)
    np.testing.assert_allclose(variance, posterior.variance[:, 0], atol=1e-6)


def test_acquisition_functions_are_alike() -> None:
    peer = theirs()
    from botorch.acquisition.analytic import LogExpectedImprovement, UpperConfidenceBound

    at = data()[2]
    with torch.no_grad():
        log_ei = LogExpectedImprovement(peer, best_f=-1.2, maximize=False)(at[:, None])
        ucb = UpperConfidenceBound(peer, beta=4.0, maximize=False)(at[:, None])
    near = log_ei > -30  # beyond, the peer's clamp of small variances shows
    got = log_expected_improvement(ours(), -1.2)(at)
    np.testing.assert_allclose(got[near], log_ei[near], atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(upper_confidence_bound(ours(), 4.0)(at), ucb, atol=1e-6)


def test_constrained_improvement_is_alike() -> None:
    peer = theirs((0.0, 0.5))
    from botorch.acquisition.analytic import LogConstrainedExpectedImprovement

    at = data()[2]
    both = LogConstrainedExpectedImprovement(
        peer, best_f=-1.2, objective_index=0, constraints={1: (None, 0.2)}, maximize=False
    )
    with torch.no_grad():
        expected = both(at[:, None])
    parts = [log_expected_improvement(ours(), -1.2), log_feasibility(ours(0.5), 0.2)]
    near = expected > -30
    got = constrained(parts)(at)
    np.testing.assert_allclose(got[near], expected[near], atol=1e-3, rtol=1e-4)


def test_max_value_entropy_is_alike() -> None:
    peer = theirs()
    from botorch.acquisition.max_value_entropy_search import qMaxValueEntropy

    minima = torch.tensor([-2.2, -1.9, -1.8], dtype=torch.float64)
    at = data()[2]
    entropy = qMaxValueEntropy(peer, torch.rand(50, 2).double(), maximize=False)
    entropy.posterior_max_values = -minima[:, None]
    with torch.no_grad():
        expected = entropy(at[:, None])
    got = max_value_entropy(ours(), minima)(at)
    # The peer integrates over the noisy outcome on a grid of quantiles; ours is without noise.
    np.testing.assert_allclose(got, expected, atol=0.05)


def test_a_model_handed_over_has_the_same_posterior() -> None:
    pytest.importorskip("botorch")
    from sharpen.search.gp.bridge import to_botorch

    x, y, at = data()
    noise = torch.linspace(1e-3, 1e-2, 12, dtype=torch.float64)
    for kernel in ("matern52", "rbf"):
        hyper = Hyperparameters(lengthscales=SCALES[0], scale=1.4, noise=1e-4)
        model = GaussianProcess(x, y, hyper, noise=noise, kernel=kernel)
        for negate in (False, True):
            with torch.no_grad():
                theirs = to_botorch(model, negate=negate).posterior(at)
            mean, variance = model.posterior(at)
            sign = -1 if negate else 1
            np.testing.assert_allclose(sign * theirs.mean[:, 0], mean, atol=1e-6)
            np.testing.assert_allclose(theirs.variance[:, 0], variance, atol=1e-6)


def test_probability_of_improvement_is_alike() -> None:
    peer = theirs()
    from botorch.acquisition.analytic import LogProbabilityOfImprovement

    at = data()[2]
    with torch.no_grad():
        expected = LogProbabilityOfImprovement(peer, best_f=-1.2, maximize=False)(at[:, None])
    near = expected > -30
    got = log_probability_of_improvement(ours(), -1.2)(at)
    np.testing.assert_allclose(got[near], expected[near], atol=1e-3, rtol=1e-4)


def test_noisy_max_value_entropy_is_alike() -> None:
    peer = theirs()
    from botorch.acquisition.max_value_entropy_search import qLowerBoundMaxValueEntropy

    minima = torch.tensor([-2.2, -1.9, -1.8], dtype=torch.float64)
    at = data()[2]
    entropy = qLowerBoundMaxValueEntropy(peer, torch.rand(50, 2).double(), maximize=False)
    entropy.posterior_max_values = -minima[:, None]
    with torch.no_grad():
        expected = entropy(at[:, None])
    got = max_value_entropy(ours(), minima, noise=NOISE)(at)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_knowledge_gradient_on_a_fine_grid_is_alike() -> None:
    pytest.importorskip("botorch")
    from botorch.acquisition.knowledge_gradient import qKnowledgeGradient
    from botorch.sampling import SobolQMCNormalSampler

    from sharpen.search.gp.bridge import to_botorch

    x = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None] ** 1.5
    hyper = Hyperparameters(lengthscales=torch.tensor([0.3]).double(), scale=1.4, noise=0.02)
    model = GaussianProcess(x, torch.sin(7 * x[:, 0]), hyper, mean=0.0)
    grid = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    peer = to_botorch(model, negate=True)
    sampler = SobolQMCNormalSampler(torch.Size([128]), seed=0)
    best = -model.posterior(grid)[0].min()
    gain = qKnowledgeGradient(peer, num_fantasies=128, sampler=sampler, current_value=best)
    at = torch.tensor([[0.2], [0.7]], dtype=torch.float64)
    got = knowledge_gradient(model, grid, noise=hyper.noise, with_point=False)(at).exp()
    for i in range(len(at)):
        # Each fantasy's best point on the grid, as the one-shot optimization would find it.
        with torch.no_grad():
            fantasies = peer.fantasize(at[i : i + 1], sampler)
            best_of = fantasies.posterior(grid).mean[..., 0].argmax(-1)
            whole = torch.cat([at[i : i + 1], grid[best_of]])
            expected = float(gain(whole[None]))
        assert float(got[i]) == pytest.approx(expected, rel=0.05, abs=1e-4)


def test_predictive_entropy_is_finite_and_largest_near_sampled_minima() -> None:
    pytest.importorskip("botorch")
    from sharpen.search.gp.bridge import predictive_entropy

    model, at = ours(), data()[2]
    places = at[:3] * 0.1 + 0.85
    got = predictive_entropy(model, places)(torch.cat([at, places + 0.01]))
    assert got.isfinite().all()
    assert got[-3:].mean() > got[:-3].mean()
