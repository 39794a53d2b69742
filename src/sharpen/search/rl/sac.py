"""Soft actor-critic over configurations: learns from every trial so far, not from the last alone.

Tuomas Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018, equations 5, 9 and
18, with discount 0; for softmax choices the relaxation of Eric Jang, Shixiang Gu and Ben Poole,
"Categorical Reparameterization with Gumbel-Softmax", ICLR 2017::

    ranges      u = (1 + tanh(m + s n)) / 2,  n ~ N(0, 1): the unit interval, of which every bin of
                a value has its share
    values      one-hot of argmax(logits + Gumbel), with the gradient of softmax(... / tau)
    L_Q         = sum over both of 1/2 mean (Q(a) - r)^2            a, r from the memory
    L_pi        = mean (-alpha h(a) - min(Q_1, Q_2)(a))             a from the policy
    h           = sum of the softmaxes' entropies - log-density of the u
    L_alpha     = log alpha (mean h - target)
    target      = -1 for each range and `exploration` log(levels) for each softmax

Design problems are stateless: the discount is 0, so the critics' target is the reward, there are no
target networks, and the policy is what networks make of nothing. The first `warmup` trials are
uniform. Permutations are ranges, one for each item.

Differs from the paper: that; the softmaxes; and `updates` gradient steps a trial, taken together at
the end of each rollout of `rollout` trials.

Time O(updates x batch x network) a trial; memory O(trials x d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space
from sharpen.search.observations import Bools, Floats
from sharpen.search.rl.checks import check_at_least, check_positive, check_widths
from sharpen.search.rl.choices import Choices
from sharpen.search.rl.losses import actor_loss, critic_loss, temperature_loss
from sharpen.search.rl.networks import Networks, descend
from sharpen.search.rl.policy_gradient import PolicyGradient

__all__ = ["SAC"]

_LOG_SD = (-5.0, 2.0)


class SAC(PolicyGradient):
    """SAC with one agent for the whole configuration; see the module for the method.

    Args:
        space: what to search over.
        objectives: one.
        constraints: any number; see :mod:`sharpen.search.rl.policy_gradient`.
        rollout: trials between two rounds of learning.
        updates: gradient steps a trial.
        warmup: uniform trials at the start.
        learning_rate: of Adam, for actor, critics and temperature.
        batch: trials of a gradient step.
        temperature: alpha at the start, of standardized rewards.
        exploration: the entropy aimed at, as a share of the most, for each softmax.
        relaxation: tau.
        hidden: widths of the networks' layers.
        resolution: most values of a softmax.
        given: see :class:`~sharpen.core.optimizer.Optimizer`.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "sac"
    hyperparameters: ClassVar[Space] = Space(
        rollout=Int(2, 32, log=True),
        learning_rate=Float(1e-4, 3e-2, log=True),
        batch=Int(16, 256, log=True),
        exploration=Float(0.02, 0.9),
        warmup=Int(8, 128, log=True),
    )

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        rollout: int = 8,
        updates: int = 1,
        warmup: int = 64,
        learning_rate: float = 3e-4,
        batch: int = 64,
        temperature: float = 0.1,
        exploration: float = 0.2,
        relaxation: float = 1.0,
        hidden: Sequence[int] = (64, 64),
        resolution: int = 16,
        **given: Any,
    ) -> None:
        check_positive(
            "SAC", learning_rate=learning_rate, temperature=temperature, relaxation=relaxation
        )
        check_at_least("SAC", 1, updates=updates, batch=batch, warmup=warmup)
        if not 0 <= exploration < 1:
            raise ConfigError(f"exploration={exploration} must be at least 0 and below 1 (SAC).")
        check_widths("SAC", hidden)
        self.updates, self.warmup, self.learning_rate = updates, warmup, learning_rate
        self.batch, self.exploration, self.relaxation = batch, exploration, relaxation
        self.temperature = temperature
        self.hidden = tuple(hidden)
        given |= {"rollout": rollout, "resolution": resolution, "ranges": "beta"}
        super().__init__(space, objectives, constraints, **given)
        self._layout = _Layout(self.choices)

    def build(self, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.build`."""
        layout = self._layout
        self.actor = Networks(1, 1, layout.num_outputs, self.hidden, rng, last_gain=0.01)
        self.critics = Networks(2, layout.num_features, 1, self.hidden, rng, activation="relu")
        self.log_temperature = torch.tensor(
            math.log(self.temperature), dtype=torch.float64, requires_grad=True
        )
        self.actor_adam, self.critic_adam, self.temperature_adam = (
            torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
            for parameters in (
                self.actor.parameters(),
                self.critics.parameters(),
                [self.log_temperature],
            )
        )
        softmaxes = sum(math.log(k) for k in layout.softmax_widths)
        self.target_entropy = self.exploration * softmaxes - layout.num_ranges
        self._memory: list[tuple[Floats, Floats]] = []  # features and merit keys

    def outputs(self) -> Tensor:
        """[L] the actor's numbers."""
        found: Tensor = self.actor(torch.ones(1, 1, 1, dtype=torch.float64))[0, 0]
        return found

    def draw(self, numbers: npt.NDArray[np.int64]) -> Floats:
        """See :meth:`PolicyGradient.draw`."""
        with torch.no_grad():
            outputs = self.outputs().numpy()
        x = np.full((len(numbers), self.space.dimensions), 0.5)
        for row, number, rng in zip(x, numbers, self.streams(numbers), strict=True):
            if number < self.warmup:
                row[:] = rng.random(len(row))
            else:
                self._layout.draw(outputs, rng, row)
        return x

    def learn(self, x: Floats, mask: Bools, keys: Floats, rng: np.random.Generator) -> None:
        """See :meth:`PolicyGradient.learn`."""
        self._memory.append((self._layout.encode(x, mask), keys))
        if self.num_learnt < self.warmup:
            return
        actions, every = (np.concatenate(part) for part in zip(*self._memory, strict=True))
        self._memory = [(actions, every)]
        # The scale of rewards moves on, so all are taken anew.
        known, targets = torch.from_numpy(actions), torch.from_numpy(self.scale.rewards(every))
        for _ in range(self.updates * len(x)):
            rows = torch.from_numpy(rng.integers(len(known), size=self.batch))
            self._step(known[rows], targets[rows], self._layout.noise(self.batch, rng))

    def _step(self, actions: Tensor, target: Tensor, noise: tuple[Tensor, Tensor]) -> None:
        descend(self.critic_adam, critic_loss(self._q(actions), target))
        drawn, entropy = self._layout.relaxed(self.outputs(), noise, self.relaxation)
        loss = actor_loss(self._q(drawn), -entropy, self.log_temperature.detach().exp())
        descend(self.actor_adam, loss)
        loss = temperature_loss(self.log_temperature, -entropy, self.target_entropy)
        descend(self.temperature_adam, loss)

    def _q(self, features: Tensor) -> Tensor:
        """[2, B] both critics at [B, F] features."""
        found: Tensor = self.critics(features.expand(2, -1, -1))[:, :, 0]
        return found


class _Layout:
    """Where the actor's numbers stand and the critics' features: softmaxes first, then ranges.

    S softmaxes with W levels in all, K in the widest; R ranges. W + 2 R numbers, W + R features.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self._softmaxes = [i for i, c in enumerate(choices.choices) if c.kind == "values"]
        self.softmax_widths = [choices.choices[i].width for i in self._softmaxes]
        self._columns = np.array(
            [
                column
                for choice in choices.choices
                if choice.kind != "values"
                for column in range(choice.columns.start, choice.columns.stop)
            ],
            dtype=np.int64,
        )
        self.num_ranges = len(self._columns)
        self._levels = sum(self.softmax_widths)
        self.num_outputs = self._levels + 2 * self.num_ranges
        self.num_features = self._levels + self.num_ranges
        self._starts = np.cumsum([0, *self.softmax_widths])
        widest = max(self.softmax_widths, default=1)
        there = np.arange(widest)[None] < np.array(self.softmax_widths, dtype=int)[:, None]
        places = np.where(there, self._starts[:-1, None] + np.arange(widest)[None], 0)
        self._there, self._places = torch.from_numpy(there), torch.from_numpy(places)

    def encode(self, x: Floats, mask: Bools) -> Floats:
        """[B, F] features of [B, d] coordinates; 0 where inactive."""
        features = np.zeros((len(x), self.num_features))
        for start, i in zip(self._starts, self._softmaxes, strict=False):
            choice = self.choices.choices[i]
            column = choice.columns.start
            for row, (u, is_active) in enumerate(zip(x[:, column], mask[:, column], strict=True)):
                if is_active:
                    features[row, start + self.choices.level(choice, u)] = 1.0
        features[:, self._levels :] = x[:, self._columns] * mask[:, self._columns]
        return features

    def draw(self, outputs: Floats, rng: np.random.Generator, row: Floats) -> None:
        """Draw coordinates into ``row`` [d]."""
        for k, i in enumerate(self._softmaxes):
            logits = outputs[self._starts[k] : self._starts[k + 1]]
            row[self.choices.choices[i].columns] = self.choices.draw(i, logits, rng)
        means, log_sds = outputs[self._levels :].reshape(2, -1)
        z = means + np.exp(np.clip(log_sds, *_LOG_SD)) * rng.normal(size=self.num_ranges)
        row[self._columns] = (1 + np.tanh(z)) / 2

    def noise(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """[count, S, K] Gumbel and [count, R] normal numbers."""
        gumbel = rng.gumbel(size=(count, *self._there.shape))
        return torch.from_numpy(gumbel), torch.from_numpy(rng.normal(size=(count, self.num_ranges)))

    def relaxed(
        self, outputs: Tensor, noise: tuple[Tensor, Tensor], relaxation: float
    ) -> tuple[Tensor, Tensor]:
        """[B, F] features of drawn configurations, 0 where inactive, and [B] their entropy h.

        Args:
            outputs: [W + 2 R] the actor's numbers.
            noise: see :meth:`noise`.
            relaxation: tau.
        """
        gumbel, normal = noise
        logits = outputs[self._places].masked_fill(~self._there, -torch.inf)
        log_p = torch.log_softmax(logits, dim=-1)
        soft = torch.softmax((log_p + gumbel) / relaxation, dim=-1)
        hard = torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).double()
        one_hot = (hard + soft - soft.detach())[:, self._there]
        entropies = -(log_p.exp() * log_p.masked_fill(~self._there, 0.0)).sum(-1)
        means, log_sds = outputs[self._levels :].reshape(2, -1)
        log_sds = log_sds.clamp(*_LOG_SD)
        z = means + log_sds.exp() * normal
        units = (1 + torch.tanh(z)) / 2
        # log du/dz = log 2 - z - softplus(-2 z) + (the same at -z): without a logarithm of 0.
        slope = math.log(2) - 2 * z - 2 * torch.nn.functional.softplus(-2 * z)
        log_density = -(normal**2) / 2 - math.log(2 * math.pi) / 2 - log_sds - slope
        features = torch.cat([one_hot, units], dim=1)
        by_choice = torch.cat([entropies.expand(len(z), -1), -log_density], dim=1)
        if self.choices.space.is_conditional:
            features_used, choices_used = self._used(features.detach().numpy())
            features, by_choice = features * features_used, by_choice * choices_used
        return features, by_choice.sum(dim=1)

    def _used(self, features: Floats) -> tuple[Tensor, Tensor]:
        """[B, F] and [B, S + R] 1 where a configuration's feature, or choice, is active."""
        space = self.choices.space
        x = np.full((len(features), space.dimensions), 0.5)
        for k, i in enumerate(self._softmaxes):
            choice = self.choices.choices[i]
            assert choice.grid is not None
            levels = features[:, self._starts[k] : self._starts[k + 1]].argmax(axis=1)
            x[:, choice.columns.start] = choice.grid[levels]
        x[:, self._columns] = features[:, self._levels :]
        active = np.zeros(x.shape)
        for row, config in zip(active, space.decode(x), strict=True):
            for name in config:
                row[space.columns[name]] = 1.0
        starts = [self.choices.choices[i].columns.start for i in self._softmaxes]
        softmaxes, ranges = active[:, starts], active[:, self._columns]
        wide = np.repeat(softmaxes, np.array(self.softmax_widths, dtype=int), axis=1)
        return (
            torch.from_numpy(np.concatenate([wide, ranges], axis=1)),
            torch.from_numpy(np.concatenate([softmaxes, ranges], axis=1)),
        )
