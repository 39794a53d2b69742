"""How much better each action was than expected: from rewards to advantages.

R_i is the reward of completion i of group g (all completions of one prompt), t counts the actions
of a row from 1 to T, log pi_old is by the policy that generated and log pi_ref by the reference.
kl_t = log pi_old(a_t) - log pi_ref(a_t), and b is the weight of this penalty.

Of a whole completion::

    REINFORCE  A = R - baseline
    ReMax      A = R - R(greedy completion)                    (Li et al., 2023, algorithm 1)
    RLOO       R <- R - b sum_t kl_t;  A = R - mean of the other R in the group
                                                               (Ahmadian et al., 2024, section 3.3)
    GRPO       A = (R - mean_g) / (std_g + 1e-4)               (Shao et al., 2024, section 4.1.2)
    Dr. GRPO   A = R - mean_g                                  (Liu et al., 2025, section 3.2)

Spread over tokens, with an effect of the penalty on what comes after ("to_go") or on its own token
alone ("step", what the released ReMax code does)::

    A_t = g^(T - t + 1) A - b kl_t                             step
    A_t = g^(T - t + 1) A - b sum_{u >= t} g^(u - t) kl_u      to_go

By a critic V, for PPO (Schulman et al., 2016, equation 16)::

    r_t = -b kl_t + 1[t = T] clip(R, -c, c)
    d_t = r_t + g V_{t+1} - V_t
    A_t = d_t + g l A_{t+1},   returns = A + V

Only actions count as steps: tokens between them (answers of a tool) are passed over. Everything is
plain arithmetic on the tensors' own type, without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from sharpen.align.options.methods import REMAX_PAPER, Baseline, KLReturn
from sharpen.core.errors import ConfigError

__all__ = [
    "REMAX_PAPER",
    "Baseline",
    "CriticAdvantages",
    "KLReturn",
    "Moments",
    "baseline_of",
    "gae",
    "grpo",
    "kl_penalty",
    "missing_eos_penalty",
    "moments",
    "next_action",
    "remax",
    "rloo",
    "spread",
    "token_rewards",
    "whiten",
    "whiten_rewards",
    "zero_std",
]

GROUP_EPSILON: Final = 1e-4
_WHITEN_EPSILON: Final = 1e-8


def baseline_of(
    kind: Baseline,
    reward: Tensor,
    *,
    group_id: Tensor | None = None,
    greedy_reward: Tensor | None = None,
    ema: float | None = None,
    total: Callable[[Moments], Moments] | None = None,
) -> Tensor:
    """[N] what to expect of each completion before it is seen.

    Args:
        kind: ``greedy`` is the reward of the greedy completion (ReMax); ``leave_one_out`` the mean
            of the other completions of the prompt (RLOO), 0 where there is no other; ``mean`` that
            of the whole batch, the completion included; ``ema`` a running mean over batches.
        reward: [N].
        group_id: [N], for ``leave_one_out``.
        greedy_reward: [N], for ``greedy``.
        ema: the running mean before this batch, for ``ema``.
        total: for ``mean``, moments of the global batch from those of this part; default they are
            the same.

    Raises:
        ConfigError: what the kind needs is missing.
    """
    if kind == "none":
        return torch.zeros_like(reward)
    if kind == "mean":
        return torch.full_like(reward, _over_all(reward, total).mean)
    if kind == "greedy" and greedy_reward is not None:
        return greedy_reward
    if kind == "ema" and ema is not None:
        return torch.full_like(reward, ema)
    if kind == "leave_one_out" and group_id is not None:
        index, sums, sizes = _groups(reward, group_id)
        others = sizes[index] - 1
        return torch.where(others > 0, (sums[index] - reward) / others.clamp(min=1), 0.0)
    needs = {"greedy": "greedy_reward", "ema": "ema", "leave_one_out": "group_id"}
    if kind not in needs:
        raise ConfigError(
            f"baseline={kind!r} must be 'greedy', 'leave_one_out', 'mean', 'ema' or 'none'."
        )
    raise ConfigError(f"baseline={kind!r} needs {needs[kind]}, which is missing.")


def spread(
    advantage: Tensor,
    mask: Tensor,
    *,
    kl: Tensor | None = None,
    beta: float = 0.0,
    gamma: float = 1.0,
    kl_return: KLReturn = "to_go",
) -> Tensor:
    """[N, T] advantages of tokens from those of whole completions [N]; 0 where no action is.

    Args:
        advantage: [N].
        mask: [N, T] actions.
        kl: [N, T] kl_t of each action; None for no penalty.
        beta: weight of the penalty.
        gamma: discount of a step; the last action is one step before the reward.
        kl_return: see the module.

    Raises:
        ConfigError: ``kl_return`` is neither of the two.
    """
    if kl_return not in ("step", "to_go"):
        raise ConfigError(f"kl_return={kl_return!r} must be 'step' or 'to_go'.")
    steps_left = mask.flip(1).cumsum(1).flip(1)
    found = advantage[:, None] * gamma ** steps_left.to(advantage.dtype)
    if kl is not None and beta:
        penalty = beta * kl.masked_fill(~mask, 0.0)
        found = found - (_to_go(penalty, mask, gamma) if kl_return == "to_go" else penalty)
    return found.masked_fill(~mask, 0.0)


def remax(
    reward: Tensor,
    greedy_reward: Tensor,
    mask: Tensor,
    *,
    kl: Tensor | None = None,
    beta: float = 0.05,
    gamma: float = 1.0,
    clip: float | None = None,
    kl_return: KLReturn = "to_go",
) -> Tensor:
    """[N, T] advantages of ReMax; ``**REMAX_PAPER`` are the settings of its released code.

    Args:
        reward: [N] of the sampled completions.
        greedy_reward: [N] of the greedy completions of the same prompts.
        mask: [N, T] actions.
        kl: as in :func:`spread`, with ``beta``, ``gamma`` and ``kl_return``.
        beta: see there.
        gamma: see there.
        clip: the difference of the rewards is kept within ± this; None for no bound.
        kl_return: see there.
    """
    difference = reward - baseline_of("greedy", reward, greedy_reward=greedy_reward)
    if clip is not None:
        difference = difference.clamp(-clip, clip)
    return spread(difference, mask, kl=kl, beta=beta, gamma=gamma, kl_return=kl_return)


def kl_penalty(logp_old: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """[N, T] kl_t; 0 where no action is."""
    return (logp_old - ref_logp).masked_fill(~mask, 0.0)


def rloo(
    reward: Tensor,
    group_id: Tensor,
    *,
    kl: Tensor | None = None,
    beta: float = 0.05,
    normalize: bool = False,
    total: Callable[[Moments], Moments] | None = None,
) -> Tensor:
    """[N] advantages of RLOO; 0 for a completion that is alone in its group.

    Args:
        reward: [N].
        group_id: [N].
        kl: [N, T] kl_t, 0 where no action is; None for no penalty.
        beta: weight of the penalty.
        normalize: shift and scale over the batch to mean 0 and (unbiased) deviation 1.
        total: for ``normalize``, moments of the global batch from those of this part; default they
            are the same.
    """
    if kl is not None and beta:
        reward = reward - beta * kl.sum(1)
    index, _, sizes = _groups(reward, group_id)
    advantage = reward - baseline_of("leave_one_out", reward, group_id=group_id)
    advantage = advantage.masked_fill(sizes[index] < 2, 0.0)
    if normalize:
        found = _over_all(advantage, total)
        if found.count > 1:
            advantage = (advantage - found.mean) / (math.sqrt(found.variance) + GROUP_EPSILON)
    return advantage


def grpo(
    reward: Tensor,
    group_id: Tensor,
    *,
    scale: Literal["group", "batch", "none"] = "group",
    total: Callable[[Moments], Moments] | None = None,
) -> Tensor:
    """[N] advantages of GRPO; 0 where a group has one completion or equal rewards.

    Args:
        reward: [N].
        group_id: [N].
        scale: what the difference from the group's mean is divided by: the unbiased deviation in
            the group or in the whole batch (plus 1e-4), or nothing (Dr. GRPO: dividing makes
            prompts whose rewards hardly differ count as much as the others).
        total: for ``batch``, moments of the global batch from those of this part; default they are
            the same.

    Raises:
        ConfigError: ``scale`` is none of these.
    """
    index, sums, sizes = _groups(reward, group_id)
    advantage = reward - (sums / sizes)[index]
    if scale == "group":
        return advantage / (_group_std(reward, group_id)[index] + GROUP_EPSILON)
    if scale == "batch":
        deviation = math.sqrt(_over_all(reward, total).variance)
        return advantage / (deviation + GROUP_EPSILON)
    if scale != "none":
        raise ConfigError(f"scale={scale!r} must be 'group', 'batch' or 'none'.")
    return advantage


def zero_std(reward: Tensor, group_id: Tensor) -> Tensor:
    """Boolean [N]: rows of groups whose rewards are all equal, which teach nothing.

    DAPO's dynamic sampling (Yu et al., 2025, section 3.2) drops them:
    ``batch.select((~zero_std(batch.reward, batch.group_id)).nonzero().squeeze(1))``.
    """
    index, _, _ = _groups(reward, group_id)
    return torch.isclose(_group_std(reward, group_id), reward.new_zeros(()))[index]


def token_rewards(
    reward: Tensor,
    mask: Tensor,
    *,
    kl: Tensor | None = None,
    beta: float = 0.05,
    clip: float | None = None,
    extra: Tensor | None = None,
) -> Tensor:
    """[N, T] r_t of PPO: the penalty of each action, and the reward at the last one.

    Args:
        reward: [N].
        mask: [N, T] actions; the reward of a row without any is lost.
        kl: [N, T] kl_t; None for no penalty.
        beta: weight of the penalty.
        clip: the reward is kept within ± this; None for no bound.
        extra: [N, T] rewards of single tokens.
    """
    if clip is not None:
        reward = reward.clamp(-clip, clip)
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    found = reward[:, None] * last
    if kl is not None:
        found = found - beta * kl
    if extra is not None:
        found = found + extra
    return found.masked_fill(~mask, 0.0)


def missing_eos_penalty(reward: Tensor, truncated: Tensor, penalty: float) -> Tensor:
    """[N] rewards, less ``penalty`` where the completion was cut off before its end."""
    return torch.where(truncated, reward - penalty, reward)


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticAdvantages:
    """What :func:`gae` finds; both are 0 where no action is."""

    advantage: Tensor
    """[N, T]."""
    returns: Tensor
    """[N, T] advantage + value: what the critic should have said."""


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, trace: float = 0.95
) -> CriticAdvantages:
    """Generalized advantage estimates; the state after the last action is worth 0.

    Args:
        rewards: [N, T] r_t.
        values: [N, T] V of the state before each token.
        mask: [N, T] actions.
        gamma: discount g.
        trace: l; 1 gives the reward to go less the value, 0 the one-step error.
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    advantage = torch.zeros_like(values)
    later = values.new_zeros(values.shape[0])
    next_value = torch.zeros_like(later)
    for t in range(values.shape[1] - 1, -1, -1):
        acts = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        later = torch.where(acts, delta + gamma * trace * later, later)
        next_value = torch.where(acts, values[:, t], next_value)
        advantage[:, t] = later
    advantage = advantage.masked_fill(~mask, 0.0)
    return CriticAdvantages(advantage=advantage, returns=advantage + values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Count, sum and sum of squares of numbers; those of parts add up to those of the whole."""

    count: float
    total: float
    squares: float

    def __add__(self, other: Moments) -> Moments:
        """Of both together."""
        return Moments(
            count=self.count + other.count,
            total=self.total + other.total,
            squares=self.squares + other.squares,
        )

    @property
    def mean(self) -> float:
        """0 of no number."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """Unbiased; 0 of fewer than two numbers."""
        if self.count < 2:
            return 0.0
        return max(0.0, (self.squares - self.total * self.mean) / (self.count - 1))


def moments(values: Tensor, mask: Tensor) -> Moments:
    """Of the masked values, summed in float64."""
    kept = values.masked_fill(~mask, 0.0).double()
    count, total, squares = torch.stack(
        [mask.sum().double(), kept.sum(), kept.square().sum()]
    ).tolist()
    return Moments(count=count, total=total, squares=squares)


def _over_all(values: Tensor, total: Callable[[Moments], Moments] | None) -> Moments:
    mine = moments(values, torch.ones_like(values, dtype=torch.bool))
    return mine if total is None else total(mine)


def whiten(
    values: Tensor, mask: Tensor, *, over: Moments | None = None, shift_mean: bool = True
) -> Tensor:
    """Masked values with mean 0 and unbiased variance 1; 0 elsewhere.

    Args:
        values: [N, T].
        mask: [N, T]; padding takes no part.
        over: moments of the global batch, where this is a part of it.
        shift_mean: whether the mean becomes 0; without, only the scale changes.
    """
    found = moments(values, mask) if over is None else over
    scaled = (values - found.mean) / math.sqrt(found.variance + _WHITEN_EPSILON)
    if not shift_mean:
        scaled = scaled + found.mean
    return scaled.masked_fill(~mask, 0.0)


def whiten_rewards(rewards: Tensor, mask: Tensor, *, over: Moments | None = None) -> Tensor:
    """[N, T] token rewards with variance 1 and their mean kept (an option of PPO)."""
    return whiten(rewards, mask, over=over, shift_mean=False)


def next_action(values: Tensor, mask: Tensor) -> Tensor:
    """[N, T] the value at the next action of the row; 0 after the last one."""
    width = values.shape[1]
    columns = torch.arange(width, device=values.device).expand_as(mask)
    own = torch.where(mask, columns, width)
    first_from = own.flip(1).cummin(1).values.flip(1)
    after = torch.cat([first_from[:, 1:], first_from.new_full((len(mask), 1), width)], dim=1)
    return torch.cat([values, values.new_zeros(len(mask), 1)], dim=1).gather(1, after)


def _to_go(values: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """[N, T]: sum_{u >= t} g^(u - t) values_u over the actions of a row."""
    if gamma == 1:
        return values.flip(1).cumsum(1).flip(1)
    return gae(values, torch.zeros_like(values), mask, gamma=gamma, trace=1.0).advantage


def _groups(reward: Tensor, group_id: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The number of each row's group, and sums and sizes of the groups."""
    _, index = torch.unique(group_id, return_inverse=True)
    count = int(index.max()) + 1 if len(index) else 0
    sums = reward.new_zeros(count).index_add_(0, index, reward)
    sizes = reward.new_zeros(count).index_add_(0, index, torch.ones_like(reward))
    return index, sums, sizes


def _group_std(reward: Tensor, group_id: Tensor) -> Tensor:
    """Unbiased deviation of each group; 0 of a group of one."""
    index, sums, sizes = _groups(reward, group_id)
    from_mean = reward - (sums / sizes)[index]
    squares: Tensor = torch.zeros_like(sums).index_add_(0, index, from_mean.square())
    deviation: Tensor = (squares / (sizes - 1).clamp(min=1)).sqrt()
    return deviation
