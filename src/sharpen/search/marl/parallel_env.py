"""A problem as a game of several agents, for pettingzoo: one agent a parameter, one reward for all.

All agents choose at once; together they make a configuration, which is evaluated. The agent of a
parameter that turned out inactive has ``infos[agent]["active"] = False`` for that step: its choice
had no effect, and a learner should leave it out. Observations: :mod:`sharpen.search.rl.designs`,
the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.problem import Problem
from sharpen.search.rl.designs import ActionKind, Axis, Designs

try:
    from gymnasium import spaces
    from pettingzoo import ParallelEnv
except ModuleNotFoundError as error:
    raise DependencyNotInstalled.for_feature("problems as games of agents", "rl") from error

__all__ = ["ProblemParallelEnv"]

Observation = npt.NDArray[np.float32]
Results = tuple[
    dict[str, Observation],
    dict[str, float],
    dict[str, bool],
    dict[str, bool],
    dict[str, dict[str, Any]],
]


class ProblemParallelEnv(ParallelEnv):  # type: ignore[misc]
    """A problem as a cooperative game; see the module.

    Agents are named after their parameters. Their actions are levels (``Discrete``; for a
    permutation or subset ``MultiDiscrete``) or coordinates from 0 to 1 (``Box``).

    Args:
        problem: of one objective.
        designs: configurations of an episode.
        actions: see :class:`~sharpen.search.rl.designs.Designs`; ``"auto"`` decides for each agent.
        resolution: see :class:`~sharpen.search.rl.designs.Designs`.
        failure_reward: see :class:`~sharpen.search.rl.designs.Designs`.

    Raises:
        ConfigError: the problem has several objectives, or an option is out of range.
    """

    metadata = {"name": "sharpen_problem_v0", "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        problem: Problem,
        *,
        designs: int = 1,
        actions: ActionKind = "auto",
        resolution: int = 16,
        failure_reward: float | None = None,
    ) -> None:
        if designs < 1:
            raise ConfigError(f"designs={designs} must be at least 1.")
        self.designs = Designs(
            problem, actions=actions, resolution=resolution, failure_reward=failure_reward
        )
        self.num_designs = designs
        self.render_mode = None
        self._axes: dict[str, list[Axis]] = {}
        for axis in self.designs.axes:
            self._axes.setdefault(axis.name, []).append(axis)
        wide = {choice.name for choice in self.designs.choices.choices if choice.kind == "bins"}
        self._by_level = {
            name: actions == "levels" or (actions == "auto" and name not in wide)
            for name in self._axes
        }
        self.possible_agents = list(self._axes)
        self.agents: list[str] = []
        size = self.designs.observation_size
        self._observation_spaces = {
            agent: spaces.Box(-np.inf, np.inf, shape=(size,), dtype=np.float32)
            for agent in self.possible_agents
        }
        self._action_spaces = {
            agent: self._action_space_of(axes, self._by_level[agent])
            for agent, axes in self._axes.items()
        }
        self._rng = np.random.default_rng()

    @staticmethod
    def _action_space_of(axes: list[Axis], by_level: bool) -> spaces.Space[Any]:
        if not by_level:
            return spaces.Box(0.0, 1.0, shape=(len(axes),), dtype=np.float32)
        counts = [len(axis.coordinates) for axis in axes]
        return spaces.Discrete(counts[0]) if len(counts) == 1 else spaces.MultiDiscrete(counts)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """What ``agent`` sees."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """What ``agent`` chooses from."""
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Begin an episode."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self._done = 0
        nothing = np.zeros(self.designs.observation_size, dtype=np.float32)
        return {a: nothing.copy() for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions: Mapping[str, Any]) -> Results:
        """Evaluate the configuration that the agents' actions make.

        Raises:
            ConfigError: an agent has no action, or one that is not of its space.
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        x = self.designs.start()
        for agent, axes in self._axes.items():
            if agent not in actions:
                raise ConfigError(f"the agent '{agent}' has no action; each of them acts.")
            parts = np.asarray(actions[agent]).reshape(-1)
            if len(parts) != len(axes):
                raise ConfigError(f"the action of '{agent}' is none of {self.action_space(agent)}.")
            for axis, part in zip(axes, parts, strict=True):
                x[axis.column] = self._coordinate(agent, axis, float(part))
        seen, reward, found = self.designs.trial(x, self._rng)
        self._done += 1
        is_over = self._done >= self.num_designs
        every = self.agents
        infos = {agent: {**found, "active": agent in found["config"]} for agent in every}
        if is_over:
            self.agents = []
        return (
            {agent: seen.copy() for agent in every},
            dict.fromkeys(every, float(reward)),
            dict.fromkeys(every, is_over),
            dict.fromkeys(every, False),
            infos,
        )

    def _coordinate(self, agent: str, axis: Axis, part: float) -> float:
        if not self._by_level[agent]:
            return float(np.clip(part, 0.0, 1.0))
        if not 0 <= part < len(axis.coordinates):
            raise ConfigError(f"the action of '{agent}' is none of {self.action_space(agent)}.")
        return float(axis.coordinates[int(part)])
