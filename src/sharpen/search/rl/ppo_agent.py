"""Proximal policy optimization in gymnasium environments, with copies side by side.

John Schulman, Filip Wolski, Prafulla Dhariwal, Alec Radford and Oleg Klimov, "Proximal Policy
Optimization Algorithms", 2017, algorithm 1 and equation 9; advantages by generalized estimation
(Schulman et al., ICLR 2016)::

    rollout: T steps in each of N copies, by pi_old
    A_t     = GAE(g, l),  target_t = A_t + V(s_t)
    L       = L_clip(A normalized in each minibatch) + c_v mean (V - target)^2 - c_e mean H
    theta  <- Adam(grad L, cut to a norm), several epochs of minibatches

Levels by softmax, reals by normal distributions whose spread does not depend on the state. c_e
falls to 0 along the training, as does the learning rate.

Differs from the paper: the annealing, the normalized advantages and the cut gradient, as in its
authors' code. Acting is done by NumPy on the same weights, which for a few rows is quicker.

Time O(epochs x network) a step; memory O(T N).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpen.core.errors import TrainingError
from sharpen.core.space import random_stream
from sharpen.search.rl.agents import Agent
from sharpen.search.rl.checks import check_at_least, check_positive, check_shares, check_widths
from sharpen.search.rl.environments import ActionForm, EnvironmentMaker, Environments
from sharpen.search.rl.losses import clipped_loss, gae
from sharpen.search.rl.networks import Networks, minibatches, one_thread

__all__ = ["PPOConfig", "train_ppo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOConfig:
    """Options of PPO in environments."""

    num_envs: int = 8
    """N, copies of the environment."""

    rollout: int = 128
    """T, steps of each copy between two rounds of learning."""

    learning_rate: float = 3e-4
    """Of Adam, at the start."""

    epochs: int = 4
    """Passes over a rollout."""

    minibatch: int = 64
    """Steps of a gradient step."""

    clip: float = 0.2
    """By how much a probability may change in a round."""

    discount: float = 0.99
    """g."""

    trace: float = 0.95
    """l."""

    entropy: float = 0.01
    """c_e at the start."""

    value: float = 0.5
    """c_v."""

    gradient_norm: float = 0.5
    """Longer gradients are cut to it."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the layers of policy and critic."""

    def __post_init__(self) -> None:
        kind, counts = "PPOConfig", ("num_envs", "rollout", "epochs", "minibatch")
        check_at_least(kind, 1, **{name: getattr(self, name) for name in counts})
        check_positive(
            kind,
            learning_rate=self.learning_rate,
            clip=self.clip,
            gradient_norm=self.gradient_norm,
        )
        check_shares(kind, discount=self.discount, trace=self.trace)
        check_widths(kind, self.hidden)


class _Policy(torch.nn.Module):
    """Actor and critic, and what a distribution of actions is."""

    def __init__(self, inputs: int, form: ActionForm, config: PPOConfig, seed: int) -> None:
        super().__init__()
        rng, dtype = random_stream(seed, 2**62), torch.float32
        outputs = sum(form.levels) or form.size
        self.form = form
        hidden = config.hidden
        self.actor = Networks(1, inputs, outputs, hidden, rng, last_gain=0.01, dtype=dtype)
        self.critic = Networks(1, inputs, 1, hidden, rng, dtype=dtype)
        self.log_sd = torch.nn.Parameter(torch.zeros(0 if form.levels else form.size))

    def log_prob_and_entropy(self, x: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """[B] and [B] of [B, inputs] observations and [B, size] actions."""
        outputs = self.actor(x[None])[0]
        if not self.form.levels:
            z = (actions - outputs) * torch.exp(-self.log_sd)
            each = -(z**2) / 2 - self.log_sd - math.log(2 * math.pi) / 2
            entropy = (self.log_sd + 0.5 + math.log(2 * math.pi) / 2).sum()
            return each.sum(1), entropy.expand(len(x))
        log_probs, entropies, start = [], [], 0
        for k, count in enumerate(self.form.levels):
            log_p = torch.log_softmax(outputs[:, start : start + count], dim=1)
            log_probs.append(log_p.gather(1, actions[:, k : k + 1])[:, 0])
            entropies.append(-(log_p.exp() * log_p).sum(1))
            start += count
        return torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0)

    def values(self, x: Tensor) -> Tensor:
        """[...] of [..., inputs] observations."""
        found: Tensor = self.critic(x.reshape(1, -1, x.shape[-1]))[0, :, 0]
        return found.reshape(x.shape[:-1])


def train_ppo(env: EnvironmentMaker, steps: int, seed: int, config: PPOConfig) -> Agent:
    """Train; see :func:`~sharpen.search.rl.agents.train_agent`."""
    copies = Environments(env, config.num_envs, seed)
    try:
        with one_thread():
            return _train(copies, steps, seed, config)
    finally:
        copies.close()


def _train(copies: Environments, steps: int, seed: int, config: PPOConfig) -> Agent:
    rng, form = random_stream(seed, 0), copies.form
    policy = _Policy(copies.observation_size, form, config, seed)
    adam = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
    layers = policy.actor.arrays()
    log_sd = None if form.levels else policy.log_sd.detach().numpy()
    agent = Agent(algorithm="ppo", layers=layers, activation="tanh", form=form, log_sd=log_sd)
    history: list[tuple[int, float]] = []
    shape = (config.rollout, config.num_envs)
    seen = np.empty((*shape, copies.observation_size), dtype=np.float32)
    led_to = np.empty_like(seen)
    acted: Any = np.empty((*shape, form.size), dtype=np.int64 if form.levels else np.float32)
    rewards, terminated, ended = (np.empty(shape, dtype=np.float32) for _ in range(3))
    rounds = math.ceil(steps / (config.rollout * config.num_envs))
    for turn in range(rounds):
        for t in range(config.rollout):
            seen[t] = copies.observations
            acted[t] = agent.choose(seen[t], rng)
            led_to[t], rewards[t], terminated[t], ended[t] = copies.step(acted[t])
        left = 1 - turn / rounds
        adam.param_groups[0]["lr"] = config.learning_rate * left
        with torch.no_grad():
            values = policy.values(torch.from_numpy(seen))
            advantages = gae(
                torch.from_numpy(rewards),
                values,
                policy.values(torch.from_numpy(led_to)),
                torch.from_numpy(terminated),
                torch.from_numpy(ended),
                discount=config.discount,
                trace=config.trace,
            )
        rollout = (
            torch.from_numpy(seen.reshape(-1, seen.shape[-1])),
            torch.from_numpy(acted.reshape(-1, form.size)),
            advantages.reshape(-1),
            (advantages + values).reshape(-1),
        )
        _improve(policy, adam, rollout, config, config.entropy * left, rng)
        done = (turn + 1) * config.rollout * config.num_envs
        if copies.finished:
            history.append((done, float(np.mean(copies.finished[-100:]))))
    return replace(
        agent,
        layers=[(w.copy(), b.copy()) for w, b in layers],
        log_sd=None if log_sd is None else log_sd.copy(),
        returns=tuple(history),
    )


def _improve(
    policy: _Policy,
    adam: torch.optim.Optimizer,
    rollout: tuple[Tensor, Tensor, Tensor, Tensor],
    config: PPOConfig,
    entropy_weight: float,
    rng: np.random.Generator,
) -> None:
    """Several epochs over a rollout of observations, actions, advantages and value targets."""
    x, actions, advantages, targets = rollout
    with torch.no_grad():
        old, _ = policy.log_prob_and_entropy(x, actions)
    parameters = list(policy.parameters())
    for _ in range(config.epochs):
        for rows in minibatches(rng, len(x), config.minibatch):
            advantage = advantages[rows]
            if len(rows) > 1:
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            log_p, entropy = policy.log_prob_and_entropy(x[rows], actions[rows])
            loss = clipped_loss(log_p, old[rows], advantage, config.clip).mean()
            loss = loss + config.value * ((policy.values(x[rows]) - targets[rows]) ** 2).mean()
            loss = loss - entropy_weight * entropy.mean()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_norm)
            if not bool(torch.isfinite(norm)):
                raise TrainingError(
                    "the gradient of PPO is not finite. Lower learning_rate, or scale the "
                    "environment's observations and rewards."
                )
            adam.step()
