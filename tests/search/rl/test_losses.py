"""Advantages and losses beside their formulas, written out in float64 NumPy."""

import math

import numpy as np
import pytest
import torch

from sharpen.search.rl.losses import (
    actor_loss,
    clipped_loss,
    critic_loss,
    gae,
    soft_target,
    temperature_loss,
)
from sharpen.search.rl.sac_agent import squashed

RNG = np.random.default_rng(3)


def t(x: object) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x, dtype=np.float64))


def test_gae_is_the_sum_of_discounted_temporal_differences() -> None:
    steps, copies, g, trace = 30, 3, 0.97, 0.9
    r, v, following = (RNG.normal(size=(steps, copies)) for _ in range(3))
    ended = RNG.random((steps, copies)) < 0.15
    terminated = ended & (RNG.random((steps, copies)) < 0.5)
    found = gae(*map(t, (r, v, following, terminated, ended)), discount=g, trace=trace).numpy()
    for c in range(copies):
        for k in range(steps):
            expected, weight = 0.0, 1.0
            for j in range(k, steps):
                bootstrap = 0.0 if terminated[j, c] else g * following[j, c]
                expected += weight * (r[j, c] + bootstrap - v[j, c])
                weight *= g * trace
                if ended[j, c]:
                    break
            assert found[k, c] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_gae_with_trace_one_is_the_return_less_the_value() -> None:
    r, v = RNG.normal(size=(2, 12, 1))
    following = np.concatenate([v[1:], [[0.0]]])
    last = np.zeros((12, 1))
    last[-1] = 1
    found = gae(*map(t, (r, v, following, last, last)), discount=0.9, trace=1.0).numpy()
    returns = [sum(0.9**j * r[k + j, 0] for j in range(12 - k)) for k in range(12)]
    np.testing.assert_allclose(found[:, 0], np.array(returns) - v[:, 0], rtol=1e-12)


def test_clipped_loss_and_its_gradient_by_cases() -> None:
    log_p = t(RNG.normal(size=200) * 0.5).requires_grad_()
    old, a = RNG.normal(size=(2, 200)) * 0.5
    loss = clipped_loss(log_p, t(old), t(a), 0.2)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert log_p.grad is not None
    for lp, o, adv, found, slope in zip(
        log_p.detach().numpy(), old, a, loss.detach().numpy(), log_p.grad.numpy(), strict=True
    ):
        ratio = math.exp(lp - o)
        is_cut = (adv > 0 and ratio > 1.2) or (adv < 0 and ratio < 0.8)
        bound = 1.2 if ratio > 1.2 else 0.8
        assert found == pytest.approx(-(bound if is_cut else ratio) * adv, rel=1e-12)
        assert slope == pytest.approx(0.0 if is_cut else -ratio * adv, rel=1e-12, abs=1e-15)


def test_losses_of_sac_by_their_formulas() -> None:
    n, alpha, g = 40, 0.3, 0.99
    r, log_p, next_log_p = RNG.normal(size=(3, n))
    q, next_q = RNG.normal(size=(2, 2, n))
    done = (RNG.random(n) < 0.3).astype(float)
    y = r + g * (1 - done) * (np.minimum(*next_q) - alpha * next_log_p)
    found = soft_target(
        t(r), t(done), t(next_q), t(next_log_p), discount=g, temperature=alpha
    ).numpy()
    np.testing.assert_allclose(found, y, rtol=1e-13)
    expected = sum(0.5 * np.mean((one - y) ** 2) for one in q)
    assert float(critic_loss(t(q), t(y))) == pytest.approx(expected, rel=1e-13)
    expected = np.mean(alpha * log_p - np.minimum(*q))
    assert float(actor_loss(t(q), t(log_p), alpha)) == pytest.approx(expected, rel=1e-13)
    log_alpha = torch.tensor(math.log(alpha), dtype=torch.float64, requires_grad=True)
    loss = temperature_loss(log_alpha, t(log_p), -2.0)
    assert loss.item() == pytest.approx(-math.log(alpha) * np.mean(log_p - 2.0), rel=1e-12)
    loss.backward()  # type: ignore[no-untyped-call]
    assert log_alpha.grad is not None
    # More entropy than the target's (log p below -target) lowers the temperature.
    assert log_alpha.grad.item() == pytest.approx(-np.mean(log_p - 2.0), rel=1e-12)


def test_a_squashed_density_integrates_to_one_and_is_the_drawn_ones() -> None:
    outputs = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
    z = np.linspace(-9, 9, 20001)
    noise = (z - 0.4) / math.exp(-0.7)
    u, log_p = squashed(outputs.expand(len(z), 2), t(noise)[:, None])
    np.testing.assert_allclose(u[:, 0].numpy(), np.tanh(z), rtol=1e-12)
    mass = np.trapezoid(np.exp(log_p.numpy()), u[:, 0].numpy())
    assert mass == pytest.approx(1.0, abs=1e-6)
    _, far = squashed(torch.tensor([[60.0, -1.0]]), torch.zeros(1, 1))
    assert torch.isfinite(far).all()
