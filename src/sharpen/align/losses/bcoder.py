"""B-Coder: value-based learning from programs that anyone wrote.

Zishun Yu et al., "B-Coder: Value-Based Deep Reinforcement Learning for Program Synthesis", ICLR
2024, arXiv 2310.03173, sections 4 and 5. With the policy's logits l, a temperature c, and h(t) the
token that the frozen checkpoint finds likeliest at t::

    A(s_t, a) = c (l[a] - max_b l[b])  <= 0                 softmax((A + V) / c) = softmax(l)
    V(s)      = U - softabs(raw value)                      no more than the best return U
    target_t  = r_t + g stopgrad (A(s_{t+1}, h(t+1)) + V(s_{t+1})),   r_T at the end
    L_Q       = (1/N) sum_i (1/T_i) sum_t (target_t - A(s_t, a_t) - V(s_t))^2

    phi    A of the frozen checkpoint, where A(s, h) = 0; the value V_phi is learnt;  L = L_Q
    theta  A of the policy, raw value = V_phi (frozen) + V_r (starts at 0);
           L = L_Q + b_adv mean |A(s_t, a_t)| + b_ce mean -log pi(a_t), both on right programs only

The operator asks for Q at the checkpoint's choice (``conservative``), not at the best action of Q
itself (``optimal``), which overestimates what it has not seen.

Of a program: reward of a token r~ = A(s_t, a_t) + V(s_t) - g V(s_{t+1}), and score sum_t r~. It
ranks programs where there is no test. The exact form has A(s_{t+1}, h(t+1)) + V(s_{t+1}) in place
of V(s_{t+1}).

Differs from the paper: softabs is (softplus(x) + softplus(-x)) / 2 - ln 2, 0 at 0; the paper prints
+ ln 2, by which no value reaches U (``softabs="as_printed"``). The two terms on right programs are
means over a program's tokens; the paper prints a sum for the first (``imitation_reduce="sum"``).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from sharpen.align.advantages import next_action, token_rewards
from sharpen.align.batch import RolloutBatch
from sharpen.align.losses.base import Counts, LossOut, aggregate, masked, measured, sequence_sum
from sharpen.align.options.losses import BCoderConfig
from sharpen.core.errors import ConfigError

__all__ = [
    "BCoderConfig",
    "bcoder_phi_loss",
    "bcoder_theta_loss",
    "program_score",
    "state_values",
    "token_advantages",
]


def token_advantages(
    logit: Tensor, max_logit: Tensor, config: BCoderConfig = BCoderConfig()
) -> Tensor:
    """A of tokens from their logits and the largest ones, all of one shape."""
    return config.alpha * (logit - max_logit)


def state_values(raw: Tensor, config: BCoderConfig = BCoderConfig()) -> Tensor:
    """V of raw values, of the same shape; raw values near 0 are near the best return."""
    if config.softabs == "none":
        return raw
    shift = -math.log(2) if config.softabs == "zero_at_zero" else math.log(2)
    return config.max_return - ((F.softplus(raw) + F.softplus(-raw)) / 2 + shift)


def bcoder_phi_loss(
    raw_value: Tensor,
    batch: RolloutBatch,
    config: BCoderConfig = BCoderConfig(),
    counts: Counts | None = None,
    *,
    advantage: Tensor,
) -> LossOut:
    """Stage phi: the value that goes with the frozen checkpoint's advantages.

    Args:
        raw_value: [N, T] of the state before each token, with a gradient.
        batch: programs and their rewards.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.
        advantage: [N, T] A of each token by the checkpoint.
    """
    counts = counts or Counts.of(batch)
    value = state_values(raw_value, config)
    target = _targets(value, batch, config)
    return _td(advantage.detach() + value, target, batch, counts)


def bcoder_theta_loss(
    logp: Tensor,
    batch: RolloutBatch,
    config: BCoderConfig = BCoderConfig(),
    counts: Counts | None = None,
    *,
    advantage: Tensor,
    raw_value: Tensor,
    greedy_advantage: Tensor | None = None,
) -> LossOut:
    """Stage theta: the policy itself.

    Args:
        logp: [N, T] log-probability of each token by the policy.
        batch: programs and their rewards; ``meta["ground_truth"]`` marks the right ones.
        config: see there.
        counts: denominators of the global batch; None are the batch's own.
        advantage: [N, T] A of each token by the policy, with a gradient.
        raw_value: [N, T] V_phi (without gradient) + V_r (with one) of the state before each token.
        greedy_advantage: [N, T] A by the policy of the token that the checkpoint finds likeliest
            there; for the conservative operator.

    Raises:
        ConfigError: the conservative operator has no ``greedy_advantage``.
    """
    counts = counts or Counts.of(batch)
    value = state_values(raw_value, config)
    follow = value
    if config.operator == "conservative":
        if greedy_advantage is None:
            raise ConfigError(
                "operator='conservative' needs greedy_advantage, the policy's advantage of the "
                "checkpoint's likeliest tokens."
            )
        follow = value + greedy_advantage
    td = _td(advantage + value, _targets(follow, batch, config), batch, counts)
    right = batch.action_mask & batch.ground_truth[:, None]
    sums = sequence_sum(
        config.advantage_weight * advantage.abs() - config.cross_entropy_weight * logp, right
    )
    if config.imitation_reduce == "seq":
        sums = sums / right.sum(1).clamp(min=1)
    imitation = sums.sum() / max(1, counts.ground_truth)
    numbers = measured(
        {
            "right_advantage": (masked(advantage.detach(), right).sum(), right.sum()),
            "right_nll": (-masked(logp.detach(), right).sum(), right.sum()),
        }
    )
    return LossOut(loss=td.loss + imitation, metrics=td.metrics | numbers)


def program_score(
    advantage: Tensor,
    raw_value: Tensor,
    mask: Tensor,
    config: BCoderConfig = BCoderConfig(),
    *,
    greedy_advantage: Tensor | None = None,
) -> Tensor:
    """[N] the sum of the rewards that Q implies: higher for programs that are likelier right.

    Args:
        advantage: [N, T] A of each token by the policy.
        raw_value: [N, T] of the state before each token.
        mask: [N, T] actions.
        config: see there.
        greedy_advantage: [N, T] as in :func:`bcoder_theta_loss`, for the exact form; None takes V
            of the next state for Q at the checkpoint's choice.
    """
    value = state_values(raw_value, config)
    follow = value if greedy_advantage is None else value + greedy_advantage
    implied = advantage + value - config.gamma * next_action(follow, mask)
    return sequence_sum(implied, mask)


def _targets(follow: Tensor, batch: RolloutBatch, config: BCoderConfig) -> Tensor:
    """[N, T] r_t + g Q(s_{t+1}, h(t+1)); what follows the last action is worth 0."""
    mask = batch.action_mask
    rewards = token_rewards(batch.reward, mask, extra=batch.token_reward)
    return rewards + config.gamma * next_action(follow.detach(), mask)


def _td(q: Tensor, target: Tensor, batch: RolloutBatch, counts: Counts) -> LossOut:
    mask = batch.action_mask
    squares = (target - q).square()
    tokens = mask.sum()
    return LossOut(
        loss=aggregate(squares, mask, "seq", counts),
        metrics=measured(
            {
                "td_error": (masked(squares.detach(), mask).sum(), tokens),
                "q": (masked(q.detach(), mask).sum(), tokens),
            }
        ),
    )
