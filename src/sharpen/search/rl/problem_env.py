"""A problem as a gymnasium environment: an action is a configuration, or one parameter of it.

``mode="single-step"``: every step evaluates a configuration; an episode has `designs` of them.
``mode="per-parameter"``: every step sets the next coordinate of the configuration, each parameter
after those its condition names and inactive ones left out; the last one evaluates it and has the
reward, the others have 0.

Observations: :mod:`sharpen.search.rl.designs`; per parameter they are followed by the coordinates
chosen so far, which of them are chosen, and which is next.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.problem import Problem
from sharpen.search.rl.designs import ActionKind, Designs

try:
    import gymnasium
    from gymnasium import spaces
except ModuleNotFoundError as error:
    raise DependencyNotInstalled.for_feature("problems as environments", "rl") from error

__all__ = ["ProblemEnv"]

Observation = npt.NDArray[np.float32]


class ProblemEnv(gymnasium.Env[Observation, Any]):
    """A problem as an environment; see the module.

    Actions are levels (``MultiDiscrete``, per parameter ``Discrete``: beyond a parameter's last
    level they begin again with the first, and ``info["action_mask"]`` says which are its own), or
    coordinates from 0 to 1 (``Box``). Every value of every parameter can be reached by either,
    but for longer ranges only with ``Box``.

    Args:
        problem: of one objective.
        mode: what a step chooses.
        designs: configurations of an episode.
        actions: see :class:`~sharpen.search.rl.designs.Designs`.
        resolution: see :class:`~sharpen.search.rl.designs.Designs`.
        failure_reward: see :class:`~sharpen.search.rl.designs.Designs`.

    Raises:
        ConfigError: the problem has several objectives, or an option is out of range.

    Examples:
        >>> import sharpen as sh
        >>> @sh.problem(sh.Space(n=sh.Int(1, 8), kind=sh.Categorical("a", "b")), minimize="loss")
        ... def small(config):
        ...     return abs(config["n"] - 3) + (config["kind"] == "a")
        >>> env = ProblemEnv(small)
        >>> env.action_space
        MultiDiscrete([8 2])
        >>> env.reset(seed=0)[0], env.step([2, 1])[1]
        (array([0.], dtype=float32), 0.0)
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(
        self,
        problem: Problem,
        mode: Literal["single-step", "per-parameter"] = "single-step",
        *,
        designs: int = 1,
        actions: ActionKind = "auto",
        resolution: int = 16,
        failure_reward: float | None = None,
    ) -> None:
        if mode not in ("single-step", "per-parameter"):
            raise ConfigError(f"mode={mode!r} must be 'single-step' or 'per-parameter'.")
        if designs < 1:
            raise ConfigError(f"designs={designs} must be at least 1.")
        self.designs = Designs(
            problem, actions=actions, resolution=resolution, failure_reward=failure_reward
        )
        self.mode, self.num_designs = mode, designs
        axes = self.designs.axes
        counts = [len(axis.coordinates) for axis in axes]
        size = self.designs.observation_size
        low, high = np.full(size, -np.inf), np.full(size, np.inf)
        if mode == "per-parameter":
            low = np.concatenate([low, np.zeros(3 * len(axes))])
            high = np.concatenate([high, np.ones(3 * len(axes))])
        self.observation_space = spaces.Box(
            low.astype(np.float32), high.astype(np.float32), dtype=np.float32
        )
        space: spaces.Space[Any]
        if self.designs.are_levels:
            is_whole = mode == "single-step"
            space = spaces.MultiDiscrete(counts) if is_whole else spaces.Discrete(max(counts))
        else:
            width = len(axes) if mode == "single-step" else 1
            space = spaces.Box(0.0, 1.0, shape=(width,), dtype=np.float32)
        self.action_space = space
        self._begin()

    def _begin(self) -> None:
        self._done = 0
        self._seen: Observation = np.zeros(self.designs.observation_size, dtype=np.float32)
        self._new_design()

    def _new_design(self) -> None:
        self._x = self.designs.start()
        self._chosen = np.zeros(len(self.designs.axes), dtype=bool)
        self._next = 0
        self._skip_inactive()

    def _skip_inactive(self) -> None:
        """Move on to the next axis whose parameter is active."""
        space, axes = self.designs.space, self.designs.axes
        while self._next < len(axes):
            if axes[self._next].name in space.decode(self._x[None])[0]:
                return
            self._next += 1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._begin()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Choose a configuration, or the next part of it; see the module.

        Raises:
            ConfigError: the action is not one of the action space.
        """
        given = np.asarray(action)
        if self.mode == "single-step":
            self._check(given, (len(self.designs.axes),))
            for axis, part in zip(self.designs.axes, given, strict=True):
                self._x[axis.column] = self.designs.coordinate(axis, part)
            return self._evaluate()
        self._check(given, () if self.designs.are_levels else (1,))
        axis = self.designs.axes[self._next]
        part = int(given) % len(axis.coordinates) if self.designs.are_levels else float(given[0])
        self._x[axis.column] = self.designs.coordinate(axis, part)
        self._chosen[self._next] = True
        self._next += 1
        self._skip_inactive()
        if self._next < len(self.designs.axes):
            return self._observation(), 0.0, False, False, self._info()
        return self._evaluate()

    def _check(self, given: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
        wanted: spaces.Space[Any] = self.action_space
        typed = given.astype(np.int64 if self.designs.are_levels else np.float32)
        known = given.shape == shape and wanted.contains(typed if shape else np.int64(typed))
        if not known:
            raise ConfigError(f"the action {given!r} is none of {wanted}.")

    def _evaluate(self) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._seen, reward, found = self.designs.trial(self._x, self.np_random)
        self._done += 1
        self._new_design()
        is_over = self._done >= self.num_designs
        return self._observation(), float(reward), is_over, False, {**self._info(), **found}

    def _observation(self) -> Observation:
        if self.mode == "single-step":
            return self._seen.copy()
        axes = self.designs.axes
        columns = [axis.column for axis in axes]
        coming = np.zeros(len(axes))
        if self._next < len(axes):
            coming[self._next] = 1.0
        chosen = np.where(self._chosen, self._x[columns], 0.0)
        return np.concatenate([self._seen, chosen, self._chosen, coming]).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        if self.mode == "single-step" or not self.designs.are_levels:
            return {}
        axis = self.designs.axes[min(self._next, len(self.designs.axes) - 1)]
        mask = np.arange(int(self.action_space.n)) < len(axis.coordinates)  # type: ignore[attr-defined]
        return {"action_mask": mask.astype(np.int8)}
