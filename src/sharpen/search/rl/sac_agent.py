"""Soft actor-critic in gymnasium environments with actions that are real numbers.

Tuomas Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018, algorithm 1::

    u = tanh(z),  z = m(s) + sd(s) n,  n ~ N(0, 1)
    log p(u) = log N(z) - sum log(1 - tanh(z)^2)
    y        = r + g (1 - terminated) (min Q'(s', u') - alpha log p(u'))
    descend L_Q, L_pi and L_alpha (:mod:`sharpen.search.rl.losses`), then Q' <- (1 - t) Q' + t Q

One gradient step an environment step. The first `warmup` steps act uniformly.

Differs from the paper: none.

Time O(batch x network) a step; memory O(memory x observation).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, TrainingError
from sharpen.core.space import random_stream
from sharpen.search.rl.agents import Agent
from sharpen.search.rl.checks import check_at_least, check_positive, check_shares, check_widths
from sharpen.search.rl.environments import EnvironmentMaker, Environments
from sharpen.search.rl.losses import actor_loss, critic_loss, soft_target, temperature_loss
from sharpen.search.rl.networks import Networks, descend, one_thread

__all__ = ["SACConfig", "squashed", "train_sac"]

_LOG_SD = (-20.0, 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SACConfig:
    """Options of SAC in environments."""

    num_envs: int = 1
    """Copies of the environment."""

    learning_rate: float = 1e-3
    """Of Adam, for actor, critics and temperature."""

    batch: int = 128
    """Steps of a gradient step."""

    memory: int = 1_000_000
    """Most steps that are remembered."""

    warmup: int = 500
    """Steps that act uniformly, before learning."""

    discount: float = 0.99
    """g."""

    smoothing: float = 0.005
    """t."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the layers of actor and critics."""

    def __post_init__(self) -> None:
        kind, counts = "SACConfig", ("num_envs", "batch", "memory", "warmup")
        check_at_least(kind, 1, **{name: getattr(self, name) for name in counts})
        check_positive(kind, learning_rate=self.learning_rate)
        check_shares(kind, discount=self.discount, smoothing=self.smoothing)
        check_widths(kind, self.hidden)


def squashed(outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """[B, size] drawn actions in [-1, 1] and [B] their log-density.

    Args:
        outputs: [B, 2 size] means, then logarithms of standard deviations.
        noise: [B, size] normal numbers.
    """
    means, log_sd = outputs.chunk(2, dim=1)
    log_sd = log_sd.clamp(*_LOG_SD)
    z = means + log_sd.exp() * noise
    # log(1 - tanh(z)^2) without a logarithm of 0.
    slope = 2 * (math.log(2) - z - torch.nn.functional.softplus(-2 * z))
    each = -(noise**2) / 2 - math.log(2 * math.pi) / 2 - log_sd - slope
    return torch.tanh(z), each.sum(dim=1)


class _Memory:
    """The last steps, in arrays that grow as they fill."""

    def __init__(self, most: int, observation_size: int, action_size: int) -> None:
        self.most, self.count, self._next = most, 0, 0
        # observation, action, reward, terminated, what it led to
        self._widths = (observation_size, action_size, 1, 1, observation_size)
        self._rows = np.empty((0, sum(self._widths)), dtype=np.float32)

    def add(self, *parts: npt.NDArray[Any]) -> None:
        for row in np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1):
            if self._next == len(self._rows) < self.most:
                size = min(max(2 * len(self._rows), 1024), self.most)
                grown = np.empty((size, self._rows.shape[1]), dtype=np.float32)
                grown[: len(self._rows)] = self._rows
                self._rows = grown
            self._rows[self._next] = row
            self._next = (self._next + 1) % self.most
            self.count = min(self.count + 1, self.most)

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        rows = torch.from_numpy(self._rows[rng.integers(self.count, size=size)])
        ends = np.cumsum(self._widths)
        return tuple(rows[:, end - n : end] for end, n in zip(ends, self._widths, strict=True))


class _Learner:
    """Actor, critics and temperature, and one step of learning."""

    def __init__(self, inputs: int, size: int, config: SACConfig, seed: int) -> None:
        rng, hidden, dtype = random_stream(seed, 2**62), config.hidden, torch.float32
        self.config, self.size = config, size
        self.actor = Networks(
            1, inputs, 2 * size, hidden, rng, last_gain=0.01, activation="relu", dtype=dtype
        )
        self.critics = Networks(2, inputs + size, 1, hidden, rng, activation="relu", dtype=dtype)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = torch.zeros((), requires_grad=True)
        rate = config.learning_rate
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=rate, fused=True)
        self.critic_adam = torch.optim.Adam(self.critics.parameters(), lr=rate, fused=True)
        self.temperature_adam = torch.optim.Adam([self.log_temperature], lr=rate, fused=True)

    def learn(self, batch: tuple[Tensor, ...], rng: np.random.Generator) -> None:
        seen, acted, rewards, terminated, led_to = batch
        noise = torch.from_numpy(rng.standard_normal((2, len(seen), self.size), dtype=np.float32))
        temperature = self.log_temperature.detach().exp()
        with torch.no_grad():
            following, log_p = squashed(self.actor(led_to[None])[0], noise[0])
            target = soft_target(
                rewards[:, 0],
                terminated[:, 0],
                _q(self.targets, led_to, following),
                log_p,
                discount=self.config.discount,
                temperature=temperature,
            )
        loss = critic_loss(_q(self.critics, seen, acted), target)
        if not bool(torch.isfinite(loss)):
            raise TrainingError("the loss of SAC's critics is not finite. Lower learning_rate.")
        descend(self.critic_adam, loss)
        drawn, log_p = squashed(self.actor(seen[None])[0], noise[1])
        self.critics.requires_grad_(False)
        descend(self.actor_adam, actor_loss(_q(self.critics, seen, drawn), log_p, temperature))
        self.critics.requires_grad_(True)
        loss = temperature_loss(self.log_temperature, log_p, -float(self.size))
        descend(self.temperature_adam, loss)
        with torch.no_grad():
            for old, new in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                old.lerp_(new, self.config.smoothing)


def _q(critics: Networks, observations: Tensor, actions: Tensor) -> Tensor:
    """[2, B] both critics."""
    x = torch.cat([observations, actions], dim=1)
    found: Tensor = critics(x.expand(2, -1, -1))[:, :, 0]
    return found


def train_sac(env: EnvironmentMaker, steps: int, seed: int, config: SACConfig) -> Agent:
    """Train; see :func:`~sharpen.search.rl.agents.train_agent`."""
    copies = Environments(env, config.num_envs, seed)
    try:
        if copies.form.levels:
            raise ConfigError("SAC acts in Box spaces only; use algorithm='ppo' for levels.")
        with one_thread():
            return _train(copies, steps, seed, config)
    finally:
        copies.close()


def _train(copies: Environments, steps: int, seed: int, config: SACConfig) -> Agent:
    rng, size = random_stream(seed, 0), copies.form.size
    learner = _Learner(copies.observation_size, size, config, seed)
    memory = _Memory(config.memory, copies.observation_size, size)
    history: list[tuple[int, float]] = []
    layers = learner.actor.arrays()
    agent = Agent(algorithm="sac", layers=layers, activation="relu", form=copies.form)
    for begun in range(0, steps, config.num_envs):
        seen = copies.observations.copy()
        if begun < config.warmup:
            acted = rng.uniform(-1, 1, size=(config.num_envs, size)).astype(np.float32)
        else:
            acted = agent.choose(seen, rng).astype(np.float32)
        finished = len(copies.finished)
        led_to, rewards, terminated, _ = copies.step(acted)
        memory.add(seen, acted, rewards, terminated, led_to)
        if begun + config.num_envs > config.warmup:
            for _ in range(config.num_envs):
                learner.learn(memory.draw(config.batch, rng), rng)
        if len(copies.finished) > finished:
            history.append((begun + config.num_envs, float(np.mean(copies.finished[-100:]))))
    copied = [(w.copy(), b.copy()) for w, b in layers]
    return replace(agent, layers=copied, returns=tuple(history))
