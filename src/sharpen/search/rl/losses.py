"""The numbers of reinforcement learning that must be right once: advantages and losses.

John Schulman, Philipp Moritz, Sergey Levine, Michael Jordan and Pieter Abbeel, "High-Dimensional
Continuous Control Using Generalized Advantage Estimation", ICLR 2016, equation 16; John Schulman,
Filip Wolski, Prafulla Dhariwal, Alec Radford and Oleg Klimov, "Proximal Policy Optimization
Algorithms", 2017, equation 7; Tuomas Haarnoja et al., "Soft Actor-Critic Algorithms and
Applications", 2018, equations 5, 9 and 18::

    delta_t = r_t + g (1 - terminated_t) V_{t+1} - V_t
    A_t     = delta_t + g l (1 - ended_t) A_{t+1}
    L_clip  = -mean min(rho A, clip(rho, 1 - e, 1 + e) A),   rho = exp(log p - log p_old)
    y       = r + g (1 - terminated) (min(Q'_1, Q'_2)(s', a') - alpha log p(a' | s'))
    L_Q     = sum over both of 1/2 mean (Q - y)^2
    L_pi    = mean (alpha log p(a | s) - min(Q_1, Q_2)(s, a))
    L_alpha = -mean log alpha (log p + target entropy)

All take and return torch tensors of any float type.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "actor_loss",
    "clipped_loss",
    "critic_loss",
    "gae",
    "soft_target",
    "temperature_loss",
]


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    ended: Tensor,
    *,
    discount: float,
    trace: float,
) -> Tensor:
    """[T, ...] generalized advantage estimates.

    Args:
        rewards: [T, ...] r_t.
        values: [T, ...] V of the state that step t began in.
        next_values: [T, ...] V of the state it led to, before any reset.
        terminated: [T, ...] 1 where that state is final, so that nothing follows.
        ended: [T, ...] 1 where the episode ended there, by a final state or by a limit of time.
        discount: g.
        trace: l.
    """
    deltas = rewards + discount * (1 - terminated) * next_values - values
    found = torch.zeros_like(deltas)
    later = torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        later = deltas[t] + discount * trace * (1 - ended[t]) * later
        found[t] = later
    return found


def clipped_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's loss of each row, of the same shape as the three; their mean is L_clip."""
    ratio = torch.exp(log_prob - old_log_prob)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def soft_target(
    reward: Tensor,
    terminated: Tensor,
    next_q: Tensor,
    next_log_prob: Tensor,
    *,
    discount: float,
    temperature: Tensor | float,
) -> Tensor:
    """[B] y of SAC.

    Args:
        reward: [B].
        terminated: [B] 1 where nothing follows.
        next_q: [2, B] both target critics at the next state and an action drawn there.
        next_log_prob: [B] log-probability of that action.
        discount: g.
        temperature: alpha.
    """
    soft = next_q.min(dim=0).values - temperature * next_log_prob
    return reward + discount * (1 - terminated) * soft


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """L_Q of [2, B] values against [B] targets."""
    return 0.5 * ((q - target) ** 2).mean(dim=1).sum()


def actor_loss(q: Tensor, log_prob: Tensor, temperature: Tensor | float) -> Tensor:
    """L_pi of [2, B] values of drawn actions and their [B] log-probabilities."""
    return (temperature * log_prob - q.min(dim=0).values).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """L_alpha; the gradient reaches ``log_temperature`` alone."""
    return -(log_temperature * (log_prob.detach() + target_entropy)).mean()
