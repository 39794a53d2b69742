import itertools
import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.bcoder import (
    BCoderConfig,
    bcoder_phi_loss,
    bcoder_theta_loss,
    program_score,
    state_values,
    token_advantages,
)
from sharpen.core.errors import ConfigError
from sharpen.testing.align import logp_of, rollout_batch

ACTIONS, DEPTH, GAMMA = 3, 3, 0.9
RAW = BCoderConfig(gamma=GAMMA, softabs="none", advantage_weight=0.0, cross_entropy_weight=0.0)
"""Values as they are, and the Bellman error alone."""


class _Tree:
    """All programs of three tokens, a reward for each, and a fixed policy q to follow."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.paths = list(itertools.product(range(ACTIONS), repeat=DEPTH))
        self.states = [p for d in range(DEPTH) for p in itertools.product(range(ACTIONS), repeat=d)]
        self.reward = torch.randn(len(self.paths), generator=generator, dtype=torch.float64)
        self.q = torch.rand(len(self.states), ACTIONS, generator=generator, dtype=torch.float64)
        self.follow = self.q.argmax(1)
        count = len(self.paths)
        actions = torch.tensor(self.paths)
        mask = torch.ones(count, DEPTH + 1, dtype=torch.bool)
        mask[:, 0] = False
        self.batch = RolloutBatch(
            input_ids=torch.cat([torch.zeros(count, 1, dtype=torch.int64), actions], dim=1),
            attention_mask=torch.ones_like(mask),
            action_mask=mask,
            logp_old=torch.zeros(count, DEPTH + 1, dtype=torch.float64),
            reward=self.reward,
            group_id=torch.zeros(count, dtype=torch.int64),
            finish_reason=["stop"] * count,
            meta=[{}] * count,
            version=torch.zeros(count, dtype=torch.int64),
        )
        index = {state: i for i, state in enumerate(self.states)}
        self.at = torch.tensor([[index[p[:d]] for d in range(DEPTH)] for p in self.paths])
        """[paths, DEPTH] the state before each action."""
        self.actions = actions

    def spread(self, table: Tensor) -> Tensor:
        """[paths, DEPTH + 1] of a table over states."""
        found = table[self.at]
        return torch.cat([torch.zeros_like(found[:, :1]), found], dim=1)

    def spread_actions(self, table: Tensor) -> Tensor:
        """[paths, DEPTH + 1] of a table over states and actions."""
        found = table[self.at, self.actions]
        return torch.cat([torch.zeros_like(found[:, :1]), found], dim=1)

    def exact(self, follow: Tensor | None) -> Tensor:
        """Q by recursion: the given action now, then those of ``follow``; None is the best."""
        table = torch.zeros(len(self.states), ACTIONS, dtype=torch.float64)

        def value(path: tuple[int, ...]) -> float:
            if len(path) == DEPTH:
                return float(self.reward[self.paths.index(path)])
            state = self.states.index(path)
            for action in range(ACTIONS):
                after = (*path, action)
                discount = 1.0 if len(after) == DEPTH else GAMMA
                table[state, action] = discount * value(after)
            best = int(table[state].argmax() if follow is None else follow[state])
            return float(table[state, best])

        value(())
        return table


def _swept(tree: _Tree, table: Tensor, operator: Literal["conservative", "optimal"]) -> Tensor:
    """The operator applied to Q, read off the gradient of the loss: -2 (target - Q) / (N T)."""
    greedy = tree.follow if operator == "conservative" else table.argmax(1)
    base = table.gather(1, greedy[:, None])
    leaf = tree.spread_actions(table).requires_grad_()
    value = tree.spread(base.squeeze(1))
    loss = bcoder_theta_loss(
        torch.zeros_like(leaf),
        tree.batch,
        replace(RAW, operator=operator),
        advantage=leaf - value,
        raw_value=value,
        greedy_advantage=torch.zeros_like(value),
    ).loss
    (gradient,) = torch.autograd.grad(loss, leaf)
    target = leaf.detach() - gradient * len(tree.paths) * DEPTH / 2
    found = torch.zeros_like(table)
    found[tree.at, tree.actions] = target[:, 1:]
    return found


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_the_conservative_operator_reaches_the_value_of_the_greedified_policy(seed: int) -> None:
    """In depth + 1 sweeps exactly; then implied rewards are the true ones."""
    tree = _Tree(seed)
    table = torch.zeros(len(tree.states), ACTIONS, dtype=torch.float64)
    for _ in range(DEPTH + 1):
        table = _swept(tree, table, "conservative")
    torch.testing.assert_close(table, tree.exact(tree.follow), rtol=0, atol=1e-12)
    assert bool((table <= tree.exact(None) + 1e-12).all())
    value = table.gather(1, tree.follow[:, None]).squeeze(1)
    scores = program_score(
        tree.spread_actions(table) - tree.spread(value),
        tree.spread(value),
        tree.batch.action_mask,
        RAW,
        greedy_advantage=torch.zeros(len(tree.paths), DEPTH + 1, dtype=torch.float64),
    )
    torch.testing.assert_close(scores, tree.reward, rtol=0, atol=1e-12)


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000))
def test_the_optimal_operator_reaches_the_best_value(seed: int) -> None:
    tree = _Tree(seed)
    table = torch.zeros(len(tree.states), ACTIONS, dtype=torch.float64)
    for _ in range(DEPTH + 1):
        table = _swept(tree, table, "optimal")
    torch.testing.assert_close(table, tree.exact(None), rtol=0, atol=1e-12)


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000))
def test_a_sweep_brings_any_two_tables_nearer_by_the_discount(seed: int) -> None:
    tree, generator = _Tree(seed), torch.Generator().manual_seed(seed + 1)
    tables = torch.randn(2, len(tree.states), ACTIONS, generator=generator, dtype=torch.float64)
    swept = [_swept(tree, table, "conservative") for table in tables]
    apart = float((tables[0] - tables[1]).abs().max())
    assert float((swept[0] - swept[1]).abs().max()) <= GAMMA * apart + 1e-12


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_the_policy_of_q_is_that_of_the_language_model(alpha: float) -> None:
    """softmax(Q / alpha) at any value of the state, and advantages are never positive."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 11, generator=generator)
    config = BCoderConfig(alpha=alpha)
    advantage = token_advantages(logits, logits.amax(1, keepdim=True), config)
    value = state_values(torch.randn(5, 1, generator=generator), config)
    policy = torch.softmax((advantage + value) / alpha, dim=1)
    torch.testing.assert_close(policy, torch.softmax(logits, dim=1), rtol=0, atol=1e-6)
    assert bool((advantage <= 0).all()) and bool((advantage.amax(1) == 0).all())


def test_values_are_bounded_by_the_best_return_and_reach_it() -> None:
    raw = torch.linspace(-30, 30, 601, dtype=torch.float64)
    values = state_values(raw)
    assert float(values.max()) == pytest.approx(1.0) == float(state_values(torch.zeros(1)))
    slope = torch.diff(values)[[0, -1]] / 0.1
    assert slope.tolist() == pytest.approx([0.5, -0.5], abs=1e-6)
    printed = state_values(raw, BCoderConfig(softabs="as_printed"))
    assert float(printed.max()) == pytest.approx(1 - 2 * math.log(2)) and float(printed.max()) < 0
    assert torch.equal(state_values(raw, BCoderConfig(softabs="none")), raw)


def _reference(
    batch: RolloutBatch, advantage: Tensor, value: Tensor, follow: Tensor, gamma: float
) -> float:
    """Mean over rows of the mean squared Bellman error over actions."""
    total = 0.0
    assert batch.token_reward is not None
    for i in range(batch.num_rows):
        at = np.flatnonzero(batch.action_mask[i].numpy())
        errors = []
        for k, t in enumerate(at):
            target = float(batch.token_reward[i, t])
            if k == len(at) - 1:
                target += float(batch.reward[i])
            else:
                target += gamma * float(follow[i, at[k + 1]])
            errors.append((target - float(advantage[i, t] + value[i, t])) ** 2)
        total += float(np.mean(errors)) if errors else 0.0
    return total / batch.num_rows


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    operator=st.sampled_from(["conservative", "optimal"]),
    reduce=st.sampled_from(["seq", "sum"]),
)
def test_both_stages_are_loops_over_actions(
    seed: int, operator: Literal["conservative", "optimal"], reduce: Literal["seq", "sum"]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = rollout_batch(5, 8, generator)
    logp = logp_of(5, 8, generator)
    advantage, greedy = -logp_of(5, 8, generator).abs(), -logp_of(5, 8, generator).abs()
    raw = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    config = BCoderConfig(gamma=0.95, operator=operator, imitation_reduce=reduce)
    value = state_values(raw, config)
    found = bcoder_phi_loss(raw, batch, config, advantage=advantage).loss.item()
    assert found == pytest.approx(_reference(batch, advantage, value, value, 0.95), rel=1e-9)
    follow = value + greedy if operator == "conservative" else value
    expected = _reference(batch, advantage, value, follow, 0.95)
    right = [i for i in range(5) if batch.meta[i]["ground_truth"]]
    for i in right:
        kept = batch.action_mask[i]
        divisor = max(1, int(kept.sum())) if reduce == "seq" else 1
        own = 0.1 * float(advantage[i][kept].abs().sum()) - 0.5 * float(logp[i][kept].sum())
        expected += own / divisor / len(right)
    theta = bcoder_theta_loss(
        logp, batch, config, advantage=advantage, raw_value=raw, greedy_advantage=greedy
    )
    assert theta.loss.item() == pytest.approx(expected, rel=1e-9)


def test_wrong_programs_are_not_imitated_and_targets_have_no_gradient() -> None:
    generator = torch.Generator().manual_seed(4)
    batch = rollout_batch(4, 8, generator)
    logp = logp_of(4, 8, generator).requires_grad_()
    greedy = logp_of(4, 8, generator).requires_grad_()
    out = bcoder_theta_loss(
        logp,
        batch,
        advantage=-torch.ones(4, 8, dtype=torch.float64),
        raw_value=torch.zeros(4, 8, dtype=torch.float64),
        greedy_advantage=greedy,
    )
    gradient, of_target = torch.autograd.grad(out.loss, (logp, greedy), allow_unused=True)
    assert of_target is None
    wrong = ~batch.ground_truth
    assert bool(gradient[batch.ground_truth].any()) and not bool(gradient[wrong].any())


def test_bad_options_are_refused() -> None:
    for wrong in (
        {"gamma": 0.0},
        {"alpha": 0.0},
        {"advantage_weight": -1.0},
        {"operator": "greedy"},
        {"softabs": "abs"},
        {"imitation_reduce": "token"},
    ):
        with pytest.raises(ConfigError, match="BCoderConfig"):
            BCoderConfig(**wrong)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(4)
    batch = rollout_batch(2, 5, generator)
    with pytest.raises(ConfigError, match="needs greedy_advantage"):
        bcoder_theta_loss(
            logp_of(2, 5, generator), batch, advantage=batch.logp_old, raw_value=batch.logp_old
        )
