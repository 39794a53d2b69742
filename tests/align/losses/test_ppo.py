from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharpen.align.advantages import gae, kl_penalty, token_rewards, whiten
from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.base import mean_metrics
from sharpen.align.losses.ppo import PPOLossConfig, ppo_loss
from sharpen.core.errors import ConfigError
from sharpen.testing.align import logp_of, rollout_batch


def _case(seed: int) -> tuple[RolloutBatch, Tensor, Tensor]:
    """Rollouts, log-probabilities and values of now; ratios on both sides of the clip."""
    generator = torch.Generator().manual_seed(seed)
    batch = rollout_batch(6, 8, generator)
    logp = batch.logp_old + 0.4 * torch.randn(6, 8, generator=generator, dtype=torch.float64)
    assert batch.values is not None
    values = batch.values + 0.4 * torch.randn(6, 8, generator=generator, dtype=torch.float64)
    return batch, logp.requires_grad_(), values.requires_grad_()


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_whole_of_ppo_is_a_numpy_reference(seed: int) -> None:
    """From rewards to the loss: KL in the reward, GAE, whitening, both clips; loops over tokens."""
    beta, gamma, trace, clip_r, eps, eps_v, c_v, c_h = 0.05, 0.97, 0.9, 0.8, 0.2, 0.3, 0.1, 0.01
    batch, logp, values = _case(seed)
    entropy = -logp * logp.exp()
    mask = batch.action_mask
    assert batch.values is not None and batch.ref_logp is not None
    kl = kl_penalty(batch.logp_old, batch.ref_logp, mask)
    rewards = token_rewards(batch.reward, mask, kl=kl, beta=beta, clip=clip_r)
    estimated = gae(rewards, batch.values, mask, gamma=gamma, trace=trace)
    ready = replace(batch, advantage=whiten(estimated.advantage, mask), returns=estimated.returns)
    config = PPOLossConfig(clip=eps, value_clip=eps_v, value_coef=c_v, entropy_coef=c_h)
    found = ppo_loss(logp, ready, config, values=values, entropy=entropy)

    logp, values, entropy = logp.detach(), values.detach(), entropy.detach()
    advantages, returns, rows = [], [], []
    for i in range(6):
        at = np.flatnonzero(mask[i].numpy())
        later = 0.0
        row_a, row_r = {}, {}
        for k in reversed(range(len(at))):
            t = at[k]
            r = -beta * float(batch.logp_old[i, t] - batch.ref_logp[i, t])
            if k == len(at) - 1:
                r += float(np.clip(batch.reward[i].item(), -clip_r, clip_r))
            v = float(batch.values[i, t])
            after = float(batch.values[i, at[k + 1]]) if k + 1 < len(at) else 0.0
            later = r + gamma * after - v + gamma * trace * later
            row_a[t], row_r[t] = later, later + v
        for t in at:
            advantages.append(row_a[t])
            returns.append(row_r[t])
            rows.append((i, t))
    white = np.array(advantages)
    white = (white - white.mean()) / np.sqrt(white.var(ddof=1) + 1e-8)
    policy = value = bonus = 0.0
    for (i, t), a, target in zip(rows, white, returns, strict=True):
        ratio = np.exp(float(logp[i, t] - batch.logp_old[i, t]))
        policy += max(-a * ratio, -a * np.clip(ratio, 1 - eps, 1 + eps))
        v, old = float(values[i, t]), float(batch.values[i, t])
        near = np.clip(v, old - eps_v, old + eps_v)
        value += 0.5 * max((v - target) ** 2, (near - target) ** 2)
        bonus += float(entropy[i, t])
    expected = (policy + c_v * value - c_h * bonus) / len(rows)
    assert found.loss.item() == pytest.approx(expected, rel=1e-9)


def test_gradients_are_finite_differences() -> None:
    batch, logp, values = _case(1)

    def loss(logp: Tensor, values: Tensor) -> Tensor:
        return ppo_loss(
            logp, batch, PPOLossConfig(entropy_coef=0.1), values=values, entropy=-logp * logp.exp()
        ).loss

    assert torch.autograd.gradcheck(loss, (logp, values))


def test_a_ratio_beyond_the_clip_gets_no_gradient_where_it_would_go_further() -> None:
    batch, _, values = _case(2)
    mask = batch.action_mask
    ratio = torch.tensor([1.5, 0.5], dtype=torch.float64)
    for advantage, stopped in ((1.0, [True, False]), (-1.0, [False, True])):
        for value, is_stopped in zip(ratio, stopped, strict=True):
            logp = (batch.logp_old + value.log()).requires_grad_()
            ready = replace(batch, advantage=torch.full_like(batch.logp_old, advantage))
            out = ppo_loss(logp, ready, PPOLossConfig(value_coef=0.0), values=values)
            (gradient,) = torch.autograd.grad(out.loss, logp)
            assert bool((gradient[mask] == 0).all()) == is_stopped
            means = mean_metrics(out.metrics)
            assert means["clip_low"] + means["clip_high"] == float(is_stopped)
            assert means["ratio"] == pytest.approx(float(value))


def test_no_step_from_the_old_policy_and_critic_clips_nothing() -> None:
    batch, _, _ = _case(3)
    assert batch.values is not None
    means = mean_metrics(ppo_loss(batch.logp_old, batch, values=batch.values).metrics)
    assert (means["ratio"], means["clip_low"], means["clip_high"], means["old_kl"]) == (1, 0, 0, 0)


def test_what_is_missing_is_named() -> None:
    batch, logp, values = _case(4)
    for change, message in (
        ({"advantage": None}, "have no advantages"),
        ({"returns": None}, "values and returns"),
        ({"values": None}, "values and returns"),
    ):
        with pytest.raises(ConfigError, match=message):
            ppo_loss(logp, replace(batch, **change), values=values)
    with pytest.raises(ConfigError, match="needs entropies"):
        ppo_loss(logp, batch, PPOLossConfig(entropy_coef=0.1), values=values)
    for wrong in ({"clip": 0.0}, {"clip": 1.0}, {"value_clip": 0.0}, {"value_coef": -1.0}):
        with pytest.raises(ConfigError, match="PPOLossConfig"):
            PPOLossConfig(**wrong)


def test_the_old_log_probabilities_are_not_in_the_graph() -> None:
    batch, _, values = _case(5)
    logp = logp_of(6, 8, torch.Generator().manual_seed(0)).requires_grad_()
    advantage = (logp * 2).requires_grad_()
    out = ppo_loss(logp, replace(batch, advantage=advantage), values=values)
    assert torch.autograd.grad(out.loss, advantage, allow_unused=True) == (None,)
