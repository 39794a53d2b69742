import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from sharpen.search.gp.acquisition import (
    constrained,
    knowledge_gradient,
    log_expected_improvement,
    log_feasibility,
    max_value_entropy,
    noisy_expected_improvement,
    sample_minima,
    upper_confidence_bound,
)
from sharpen.search.gp.model import GaussianProcess, Hyperparameters

NOISE = 0.05


def points(n: int, seed: int, p: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((n, p)))


def model(noise: float = 1e-6, p: int = 2, n: int = 8) -> GaussianProcess:
    x = points(n, 0, p)
    y = torch.sin(6 * x).sum(1)
    scales = torch.full((p,), 0.4, dtype=torch.float64)
    return GaussianProcess(x, y, Hyperparameters(lengthscales=scales, noise=noise))


def after(gp: GaussianProcess, x: torch.Tensor, y: float) -> GaussianProcess:
    return gp.append(x[None], torch.tensor([y], dtype=torch.float64))


def test_log_ei_is_the_logarithm_of_the_integral() -> None:
    gp, at = model(), points(20, 1)
    best = -1.0
    mean, variance = gp.posterior(at)
    got = log_expected_improvement(gp, best)(at)
    for m, v, value in zip(mean.tolist(), variance.tolist(), got.tolist(), strict=True):
        sd = math.sqrt(v)
        exact, _ = quad(
            lambda y, m=m, sd=sd: (best - y) * norm.pdf(y, m, sd),
            best - 20 * sd,
            best,
            epsabs=0,
            epsrel=1e-12,
            points=sorted({min(m, best), best - sd}),
        )
        if exact > 1e-200:
            assert math.exp(value) == pytest.approx(exact, rel=1e-9, abs=1e-10)


def test_log_ei_still_points_uphill_where_ei_underflows() -> None:
    scales = torch.tensor([0.2], dtype=torch.float64)
    x = torch.tensor([[0.4], [0.5]], dtype=torch.float64)
    gp = GaussianProcess(
        x,
        torch.tensor([3.0, 3.0], dtype=torch.float64),
        Hyperparameters(lengthscales=scales, noise=1e-8),
    )
    at = torch.tensor([[0.49]], dtype=torch.float64, requires_grad=True)
    value = log_expected_improvement(gp, -3.0)(at)
    value.sum().backward()
    assert float(value.detach()) < -800  # exp of it is 0
    assert at.grad is not None
    assert 1 < abs(float(at.grad)) < 1e12


def test_ei_of_sampled_outcomes_is_their_mean() -> None:
    gp, at, extra = model(), points(5, 1), points(1, 9)
    outcomes = torch.tensor([[-1.0, 0.0, 0.5]], dtype=torch.float64)
    best = torch.tensor([-1.2, -1.0, -0.9], dtype=torch.float64)
    many = log_expected_improvement(gp.append(extra, outcomes), best)(at).exp()
    each = [
        log_expected_improvement(gp.append(extra, outcomes[:, k]), best[k])(at).exp()
        for k in range(3)
    ]
    np.testing.assert_allclose(many, sum(each) / 3, rtol=1e-10)


def test_noisy_ei_is_ei_without_noise() -> None:
    gp, at = model(noise=0.0), points(30, 1)
    best = float(gp.posterior(gp.features)[0].min())
    got = noisy_expected_improvement(gp, gp.features, 0.0)(at)
    expected = log_expected_improvement(gp, best)(at)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def gain_by_hand(
    gp: GaussianProcess, x: torch.Tensor, places: torch.Tensor, before: float, draws: int
) -> tuple[float, float]:
    """Mean and standard error of the gain in the best posterior mean, by conditioning."""
    mean, variance = gp.posterior(x[None])
    sd = math.sqrt(float(variance) + NOISE)
    # Means after a measurement are linear in it, so two conditionings give them all.
    low, high = (
        after(gp, x, float(mean) + sign * sd).posterior(places)[0].detach().numpy()
        for sign in (-1, 1)
    )
    z = np.random.default_rng(5).normal(size=draws)
    lines = (low + high) / 2 + (high - low) / 2 * z[:, None]
    gain = before - lines.min(1)
    return float(gain.mean()), float(gain.std() / math.sqrt(draws))


def given(gp: GaussianProcess) -> GaussianProcess:
    """The same model with its mean held, as an acquisition function has it."""
    return GaussianProcess(gp.features, gp.targets, gp.hyper, mean=float(gp.mean))


def test_noisy_ei_agrees_with_a_million_draws() -> None:
    gp = given(model(noise=NOISE))
    before = float(gp.posterior(gp.features)[0].min())
    for x in points(4, 3):
        got = noisy_expected_improvement(gp, gp.features, NOISE)(x[None]).exp()
        places = torch.cat([gp.features, x[None]])
        mean, error = gain_by_hand(gp, x, places, before, 10**6)
        assert float(got) == pytest.approx(mean, abs=3 * error)


def test_kg_is_that_of_brute_force_on_a_grid() -> None:
    gp = given(model(noise=NOISE, p=1, n=5))
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    before = float(gp.posterior(grid)[0].min())
    acquisition = knowledge_gradient(gp, grid, noise=NOISE, with_point=False)
    for x in (0.1, 0.45, 0.9):
        at = torch.tensor([x], dtype=torch.float64)
        mean, variance = gp.posterior(at[None])
        sd = math.sqrt(float(variance) + NOISE)
        low, high = (
            after(gp, at, float(mean) + sign * sd).posterior(grid)[0].numpy() for sign in (-1, 1)
        )
        z = np.linspace(-9, 9, 20_001)
        lines = (low + high) / 2 + (high - low) / 2 * z[:, None]
        exact = float(np.trapezoid((before - lines.min(1)) * norm.pdf(z), z))
        assert float(acquisition(at[None]).exp()) == pytest.approx(exact, rel=1e-5)


def test_mes_is_the_entropy_that_a_known_minimum_takes() -> None:
    gp, at = model(), points(6, 4)
    minima = torch.tensor([-2.5, -2.1], dtype=torch.float64)
    got = max_value_entropy(gp, minima)(at)
    mean, variance = gp.posterior(at)
    for m, v, value in zip(mean.tolist(), variance.tolist(), got.tolist(), strict=True):
        sd, total = math.sqrt(v), 0.0
        for least in minima.tolist():
            mass = norm.sf(least, m, sd)

            def density(y: float, m: float = m, sd: float = sd, mass: float = mass) -> float:
                return float(norm.pdf(y, m, sd) / mass)

            entropy, _ = quad(
                lambda y, density=density: -density(y) * math.log(density(y)),
                least,
                max(m, least) + 12 * sd,
                epsabs=1e-13,
                points=[max(m, least)],
            )
            total += (0.5 * math.log(2 * math.pi * math.e * v) - entropy) / 2
        assert value == pytest.approx(total, abs=1e-8)


def test_sampled_minima_are_below_what_is_known_and_follow_the_posterior() -> None:
    gp = model()
    drawn = sample_minima(
        gp, torch.cat([gp.features, points(50, 3)]), 500, np.random.default_rng(0)
    )
    assert float(drawn.max()) <= float(gp.targets.min()) + 0.01
    one = points(1, 3)
    alone = sample_minima(gp, one, 20_000, np.random.default_rng(0))
    mean, variance = gp.posterior(one)
    assert float(alone.mean()) == pytest.approx(float(mean), abs=0.03 * math.sqrt(float(variance)))
    assert float(alone.std()) == pytest.approx(math.sqrt(float(variance)), rel=0.02)


def test_ucb_feasibility_and_constraints_are_their_formulas() -> None:
    gp, at = model(), points(7, 5)
    mean, variance = gp.posterior(at)
    sd = variance.sqrt()
    np.testing.assert_allclose(upper_confidence_bound(gp, 4.0)(at), 2 * sd - mean)
    share = log_feasibility(gp, 0.3)
    np.testing.assert_allclose(share(at).exp(), norm.cdf((0.3 - mean) / sd), rtol=1e-10)
    ei = log_expected_improvement(gp, -1.0)
    np.testing.assert_allclose(constrained([ei, share, share])(at), ei(at) + 2 * share(at))


@pytest.mark.parametrize(
    "make",
    [
        lambda gp: log_expected_improvement(gp, -1.5),
        lambda gp: upper_confidence_bound(gp, 2.0),
        lambda gp: max_value_entropy(gp, torch.tensor([-2.5, -2.1], dtype=torch.float64)),
        lambda gp: log_feasibility(gp, 0.1),
        lambda gp: noisy_expected_improvement(gp, gp.features, NOISE),
        lambda gp: knowledge_gradient(gp, points(9, 8), noise=NOISE),
        lambda gp: knowledge_gradient(gp, points(9, 8), noise=NOISE, with_point=False),
    ],
)
def test_gradients_are_those_of_finite_differences(
    make: Callable[..., Callable[..., object]],
) -> None:
    at = points(5, 6).requires_grad_()
    assert torch.autograd.gradcheck(make(model(noise=NOISE)), at, atol=1e-5, rtol=1e-4)
