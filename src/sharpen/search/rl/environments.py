"""Copies of a gymnasium environment side by side, with observations and actions as plain arrays.

Observations are flattened to float32. Actions are of two forms: `levels`, one whole number for each
part of a Discrete or MultiDiscrete space; `reals`, the numbers of a bounded Box, which agents see
as [-1, 1]::

    value = low + (u + 1) / 2(high - low)

An episode that ends is begun again at once; what it ended in is kept, because the value of a state
that a limit of time cut off is still to be learnt from.

Time O(copies) a step, one after another in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DependencyNotInstalled

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise DependencyNotInstalled.for_feature("training agents in environments", "rl") from error

__all__ = ["ActionForm", "EnvironmentMaker", "Environments", "action_form", "make_environment"]

Reals = npt.NDArray[np.float32]
EnvironmentMaker = str | Callable[[], "gymnasium.Env[Any, Any]"]


def make_environment(env: EnvironmentMaker) -> gymnasium.Env[Any, Any]:
    """One environment, from its id or from a function that makes one.

    Raises:
        ConfigError: there is no such environment, or the function made none.
    """
    if isinstance(env, str):
        try:
            return gymnasium.make(env)
        except gymnasium.error.Error as error:
            raise ConfigError(f"gymnasium makes no environment '{env}': {error}") from error
    if not callable(env):
        raise ConfigError(
            f"env must be an id such as 'CartPole-v1' or a function that makes an environment, "
            f"since several copies are needed; got {env!r}."
        )
    made = env()
    if not isinstance(made, gymnasium.Env):
        raise ConfigError(f"env() must make a gymnasium.Env, it made {made!r}.")
    return made


@dataclass(frozen=True, slots=True, eq=False)
class ActionForm:
    """What an action is; see the module."""

    levels: tuple[int, ...] = ()
    """How many levels each part has."""

    start: int = 0
    """The first level of a Discrete space."""

    is_single: bool = False
    """Whether an action is one number, not an array."""

    low: Reals | None = None
    """Bounds of a Box, in its shape."""

    high: Reals | None = None

    @property
    def size(self) -> int:
        """Numbers of an action."""
        return len(self.levels) if self.low is None else int(self.low.size)

    def action(self, row: npt.NDArray[Any]) -> Any:
        """What the environment takes, from levels or from reals in [-1, 1]."""
        if self.low is not None and self.high is not None:
            u = np.clip(row.reshape(self.low.shape), -1.0, 1.0)
            return (self.low + (u + 1) / 2 * (self.high - self.low)).astype(np.float32)
        return int(row[0]) + self.start if self.is_single else row.astype(np.int64) + self.start


def action_form(space: gymnasium.Space[Any]) -> ActionForm:
    """The form of an action space's actions.

    Raises:
        ConfigError: it is neither Discrete, MultiDiscrete of one dimension nor a bounded Box.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return ActionForm(levels=(int(space.n),), start=int(space.start), is_single=True)
    if isinstance(space, gymnasium.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        if not space.start.any():
            return ActionForm(levels=tuple(int(n) for n in space.nvec))
    elif isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
        return ActionForm(low=space.low.astype(np.float32), high=space.high.astype(np.float32))
    raise ConfigError(
        f"agents act in Discrete, MultiDiscrete (one dimension, from 0) and bounded Box spaces, "
        f"not in {space}."
    )


class Environments:
    """``count`` copies of an environment; see the module.

    Args:
        env: an id or a function that makes one.
        count: N.
        seed: copy i begins with the seed ``seed + i``.

    Raises:
        ConfigError: no such environment, or spaces that agents cannot use.
    """

    def __init__(self, env: EnvironmentMaker, count: int, seed: int) -> None:
        self.copies = [make_environment(env) for _ in range(count)]
        space = self.copies[0].observation_space
        self.form = action_form(self.copies[0].action_space)
        self._is_box = isinstance(space, gymnasium.spaces.Box)
        self._space = space
        try:
            self.observation_size = int(gymnasium.spaces.flatdim(space))
        except (NotImplementedError, ValueError) as error:
            raise ConfigError(f"observations of {space} have no fixed size.") from error
        self.observations = np.empty((count, self.observation_size), dtype=np.float32)
        for i, copy in enumerate(self.copies):
            self.observations[i] = self.flat(copy.reset(seed=seed + i)[0])
        self._returns = np.zeros(count)
        self.finished: list[float] = []
        """Returns of the episodes that ended."""

    def flat(self, observation: Any) -> Reals:
        """[size] an observation as numbers."""
        if self._is_box:
            return np.asarray(observation, dtype=np.float32).reshape(-1)
        found: Any = gymnasium.spaces.flatten(self._space, observation)
        return np.asarray(found, dtype=np.float32)

    def step(
        self, actions: npt.NDArray[Any]
    ) -> tuple[Reals, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Act in all copies.

        Args:
            actions: [N, size] levels, or reals in [-1, 1].

        Returns:
            [N, observation size] what each copy led to, before any reset; [N] rewards; [N] whether
            that is final; [N] whether the episode ended. :attr:`observations` is what comes next.
        """
        count = len(self.copies)
        led_to = np.empty_like(self.observations)
        rewards = np.empty(count)
        terminated, ended = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        for i, copy in enumerate(self.copies):
            seen, reward, is_final, is_cut, _ = copy.step(self.form.action(actions[i]))
            led_to[i] = self.observations[i] = self.flat(seen)
            rewards[i], terminated[i], ended[i] = reward, is_final, is_final or is_cut
            self._returns[i] += rewards[i]
            if ended[i]:
                self.finished.append(float(self._returns[i]))
                self._returns[i] = 0.0
                self.observations[i] = self.flat(copy.reset()[0])
        return led_to, rewards, terminated, ended

    def close(self) -> None:
        """Close all copies."""
        for copy in self.copies:
            copy.close()
