"""Advantages against the formulas written out as loops over actions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharpen.align.advantages import (
    REMAX_PAPER,
    Baseline,
    KLReturn,
    Moments,
    baseline_of,
    gae,
    grpo,
    kl_penalty,
    missing_eos_penalty,
    moments,
    next_action,
    remax,
    rloo,
    spread,
    token_rewards,
    whiten,
    whiten_rewards,
    zero_std,
)
from sharpen.align.kl import AdaptiveKL, k1, k3
from sharpen.core.errors import ConfigError
from sharpen.testing.align import rollout_batch, sequences

SEEDS = st.integers(0, 10_000)


def _drawn(seed: int, rows: int = 5, width: int = 9) -> tuple[Tensor, torch.Generator]:
    """A mask with gaps, as of a conversation with tools, and a source of numbers."""
    generator = torch.Generator().manual_seed(seed)
    mask = sequences(rows, width, generator)["action_mask"]
    gaps = torch.rand(rows, width, generator=generator) < 0.7
    return mask & gaps, generator


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _actions(values: Tensor, mask: Tensor) -> list[list[float]]:
    """The values of each row's actions."""
    return [row[kept].tolist() for row, kept in zip(values, mask, strict=True)]


def _close(found: Tensor, mask: Tensor, expected: list[list[float]]) -> None:
    assert not bool(found[~mask].any())
    for ours, theirs in zip(_actions(found, mask), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)


@given(seed=SEEDS, gamma=st.sampled_from([1.0, 0.9]), trace=st.sampled_from([0.0, 0.95, 1.0]))
def test_gae_is_the_recursion_over_actions(seed: int, gamma: float, trace: float) -> None:
    mask, generator = _drawn(seed)
    rewards, values = _normal(generator, 5, 9), _normal(generator, 5, 9)
    expected, returns = [], []
    for r, v in zip(_actions(rewards, mask), _actions(values, mask), strict=True):
        later, row = 0.0, []
        for t in reversed(range(len(r))):
            after = v[t + 1] if t + 1 < len(v) else 0.0
            later = r[t] + gamma * after - v[t] + gamma * trace * later
            row.append(later)
        expected.append(row[::-1])
        returns.append([a + b for a, b in zip(row[::-1], v, strict=True)])
    found = gae(rewards, values, mask, gamma=gamma, trace=trace)
    _close(found.advantage, mask, expected)
    _close(found.returns, mask, returns)


@given(
    seed=SEEDS,
    gamma=st.sampled_from([1.0, 0.9]),
    how=st.sampled_from(["step", "to_go"]),
    clip=st.sampled_from([None, 0.5]),
)
def test_remax_is_its_formula(seed: int, gamma: float, how: KLReturn, clip: float | None) -> None:
    mask, generator = _drawn(seed)
    reward, greedy = _normal(generator, 5), _normal(generator, 5)
    kl = _normal(generator, 5, 9)
    expected = []
    for row in range(5):
        gap = float(reward[row] - greedy[row])
        if clip is not None:
            gap = min(clip, max(-clip, gap))
        penalties = [-0.05 * one for one in _actions(kl, mask)[row]]
        length = len(penalties)
        returns = []
        for t in range(1, length + 1):
            own = penalties[t - 1]
            if how == "to_go":
                own = sum(gamma ** (u - t) * penalties[u - 1] for u in range(t, length + 1))
            returns.append(own + gamma ** (length - t + 1) * gap)
        expected.append(returns)
    found = remax(reward, greedy, mask, kl=kl, gamma=gamma, clip=clip, kl_return=how)
    _close(found, mask, expected)


def test_remax_defaults_are_the_plain_difference_and_the_preset_is_the_papers() -> None:
    mask = torch.tensor([[False, True, True]])
    reward, greedy = torch.tensor([9.0]), torch.tensor([1.0])
    assert remax(reward, greedy, mask).tolist() == [[0.0, 8.0, 8.0]]
    paper = remax(reward, greedy, mask, **REMAX_PAPER)
    assert paper.tolist()[0] == pytest.approx([0.0, 0.99**2 * 5, 0.99 * 5])
    with pytest.raises(ConfigError, match="kl_return='sum'"):
        spread(reward, mask, kl_return="sum")  # type: ignore[arg-type]


@given(seed=SEEDS, normalize=st.booleans())
def test_rloo_compares_with_the_others_after_the_penalty(seed: int, normalize: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, 4, (9,), generator=generator)
    reward, kl = _normal(generator, 9), _normal(generator, 9, 5)
    reduced = [float(reward[i] - 0.05 * kl[i].sum()) for i in range(9)]
    expected = []
    for i in range(9):
        others = [reduced[j] for j in range(9) if j != i and group[j] == group[i]]
        expected.append(reduced[i] - sum(others) / len(others) if others else 0.0)
    if normalize:
        array = np.array(expected)
        expected = ((array - array.mean()) / (array.std(ddof=1) + 1e-4)).tolist()
    found = rloo(reward, group, kl=kl, normalize=normalize)
    assert found.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@given(seed=SEEDS, offset=st.sampled_from([0.0, 1e3]))
def test_grpo_divides_by_the_unbiased_deviation(seed: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, 4, (12,), generator=generator)
    reward = _normal(generator, 12) + offset
    array, groups = reward.numpy(), group.numpy()
    own = [array[groups == one] for one in groups]
    means = np.array([one.mean() for one in own])
    deviations = np.array([one.std(ddof=1) if len(one) > 1 else 0.0 for one in own])
    scales = {"group": deviations + 1e-4, "batch": array.std(ddof=1) + 1e-4, "none": 1.0}
    for scale, divisor in scales.items():
        found = grpo(reward, group, scale=scale)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.numpy(), (array - means) / divisor, rtol=1e-8, atol=1e-8)


def test_groups_without_variance_teach_nothing_and_are_found() -> None:
    reward = torch.tensor([1.0, 1.0, 0.0, 1.0, 5.0], dtype=torch.float64)
    group = torch.tensor([7, 7, 3, 3, 9])
    assert zero_std(reward, group).tolist() == [True, True, False, False, True]
    for scale in ("group", "none"):
        found = grpo(reward, group, scale=scale)  # type: ignore[arg-type]
        assert found[[0, 1, 4]].tolist() == [0.0, 0.0, 0.0]
    assert rloo(reward, group)[[0, 1, 4]].tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="scale='std'"):
        grpo(reward, group, scale="std")  # type: ignore[arg-type]
    assert grpo(reward[:0], group[:0]).shape == (0,)


def test_baselines_by_name() -> None:
    reward = torch.tensor([1.0, 3.0, 5.0, 7.0])
    group = torch.tensor([0, 0, 0, 1])
    greedy = torch.tensor([2.0, 2.0, 2.0, 2.5])
    expected: dict[Baseline, list[float]] = {
        "none": [0, 0, 0, 0],
        "mean": [4, 4, 4, 4],
        "ema": [1.5] * 4,
        "greedy": greedy.tolist(),
        "leave_one_out": [4, 3, 2, 0],
    }
    for kind, values in expected.items():
        found = baseline_of(kind, reward, group_id=group, greedy_reward=greedy, ema=1.5)
        assert found.tolist() == values
    for kind, needed in (("greedy", "greedy_reward"), ("ema", "ema"), ("leave_one_out", "group")):
        with pytest.raises(ConfigError, match=f"needs {needed}"):
            baseline_of(kind, reward)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="baseline='best'"):
        baseline_of("best", reward)  # type: ignore[arg-type]


@given(seed=SEEDS, rows=st.integers(1, 6))
def test_whitening_is_over_actions_alone_and_by_parts(seed: int, rows: int) -> None:
    mask, generator = _drawn(seed, rows)
    values = _normal(generator, rows, 9) * 3 + 2
    kept = values[mask].numpy()
    padded = values.masked_fill(~mask, float("nan"))
    found = moments(padded, mask)
    assert found.count == kept.size
    found_parts = Moments(count=0, total=0, squares=0)
    for row in range(rows):
        found_parts = found_parts + moments(padded[row : row + 1], mask[row : row + 1])
    assert found_parts.variance == pytest.approx(found.variance)
    if kept.size < 2:
        return
    assert found.mean == pytest.approx(kept.mean()) and found.variance == pytest.approx(
        kept.var(ddof=1), rel=1e-9
    )
    white = whiten(padded, mask)
    assert not bool(white[~mask].any())
    np.testing.assert_allclose(
        white[mask].numpy(), (kept - kept.mean()) / np.sqrt(kept.var(ddof=1) + 1e-8), rtol=1e-8
    )
    scaled = whiten_rewards(padded, mask)[mask].numpy()
    assert scaled.mean() == pytest.approx(kept.mean(), rel=1e-9)
    by_parts = torch.cat(
        [whiten(padded[i : i + 1], mask[i : i + 1], over=found) for i in range(rows)]
    )
    torch.testing.assert_close(by_parts, white)


def test_the_reward_comes_with_the_last_action() -> None:
    mask = torch.tensor([[0, 1, 0, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    kl = torch.full((3, 5), 2.0)
    reward = torch.tensor([10.0, -10.0, 3.0])
    found = token_rewards(reward, mask, kl=kl, beta=0.5, clip=4.0)
    assert found.tolist() == [[0, -1, 0, 3, 0], [0, -1, -5, 0, 0], [0, 0, 0, 0, 0]]
    more = token_rewards(reward, mask, extra=torch.ones(3, 5))
    assert more.tolist() == [[0, 1, 0, 11, 0], [0, 1, -9, 0, 0], [0, 0, 0, 0, 0]]


def test_a_cut_off_completion_pays() -> None:
    found = missing_eos_penalty(torch.tensor([1.0, 1.0]), torch.tensor([True, False]), 0.25)
    assert found.tolist() == [0.75, 1.0]


def test_the_next_action_is_found_across_gaps() -> None:
    mask = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    values = torch.tensor([[9.0, 1.0, 9.0, 2.0, 3.0, 9.0]] * 2)
    found = next_action(values, mask)
    assert found[0][mask[0]].tolist() == [2.0, 3.0, 0.0]
    assert not bool(found[1].any())


@given(seed=SEEDS)
def test_the_divergence_of_drawn_actions(seed: int) -> None:
    """k1 and k3 are unbiased for KL(pi || ref), and k3 is never negative."""
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.log_softmax(_normal(generator, 2, 6), dim=1)
    exact = float((p.exp() * (p - q)).sum())
    assert float((p.exp() * k1(p, q)).sum()) == pytest.approx(exact)
    assert float((p.exp() * k3(p, q)).sum()) == pytest.approx(exact)
    assert bool((k3(p, q) >= 0).all())
    batch = rollout_batch(4, 6, generator)
    assert batch.ref_logp is not None
    penalty = kl_penalty(batch.logp_old, batch.ref_logp, batch.action_mask)
    kept = batch.action_mask
    torch.testing.assert_close(penalty[kept], (batch.logp_old - batch.ref_logp)[kept])
    assert not bool(penalty[~kept].any())


def test_the_weight_of_the_penalty_follows_its_target() -> None:
    controller = AdaptiveKL(beta=0.1, target=6.0, horizon=100)
    assert controller.updated(6.0, 50).beta == 0.1
    assert controller.updated(60.0, 50).beta == pytest.approx(0.1 * (1 + 0.5 * 0.2))
    assert controller.updated(0.0, 50).beta == pytest.approx(0.1 * (1 - 0.5 * 0.2))
    assert controller.updated(6.6, 50).beta == pytest.approx(0.1 * (1 + 0.5 * 0.1))
    for wrong in ({"beta": 0.0}, {"target": -1.0}, {"horizon": 0.0}):
        with pytest.raises(ConfigError, match="AdaptiveKL"):
            AdaptiveKL(**wrong)
    # It settles: a policy whose divergence falls as the weight grows ends at the target.
    for _ in range(2000):
        controller = controller.updated(0.6 / controller.beta, 10)
    assert 0.6 / controller.beta == pytest.approx(6.0, rel=1e-2)
    assert math.isfinite(controller.beta)
