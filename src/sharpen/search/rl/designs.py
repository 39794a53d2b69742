"""A problem as a game: what an action is, and the reward and observation that a trial gives.

::

    reward       -loss of the problem's one objective
    observation  the values of the last trial: the objective's, then the constraints'; 0 before the
                 first trial, and where one is missing

A trial that failed or broke a constraint has the least reward of any trial so far, or the one that
was given. An action is made of axes, one for each coordinate of the space: a level of it, or the
coordinate itself. A level of a scalar with few values is one of its values; the levels of a longer
range are the centres of equal cells, and a coordinate reaches all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import is_feasible
from sharpen.core.problem import Problem, TrialContext, evaluate
from sharpen.search.rl.choices import Choices

__all__ = ["ActionKind", "Axis", "Designs"]

ActionKind = Literal["auto", "levels", "reals"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """One coordinate of the space, as part of an action."""

    name: str
    """The parameter."""

    column: int
    """The coordinate."""

    coordinates: Floats
    """[levels] the coordinate of each level."""


class Designs:
    """A problem's trials as moves of a game; see the module.

    Args:
        problem: of one objective.
        actions: ``"levels"``, ``"reals"`` (coordinates from 0 to 1), or ``"auto"``: levels where
            every parameter has few values.
        resolution: most values of a parameter that has few; cells of a longer range.
        failure_reward: of a failed or infeasible trial; None is the least so far.

    Raises:
        ConfigError: the problem has several objectives, or an option is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        actions: ActionKind = "auto",
        resolution: int = 16,
        failure_reward: float | None = None,
    ) -> None:
        if len(problem.objectives) != 1:
            raise ConfigError(
                f"{problem.name} has {len(problem.objectives)} objectives, but a reward is one "
                "number. Make a problem of one objective of it, such as a weighted sum."
            )
        if actions not in ("auto", "levels", "reals"):
            raise ConfigError(f"actions={actions!r} must be 'auto', 'levels' or 'reals'.")
        self.problem, self.space = problem, problem.space
        self.choices = Choices(problem.space, resolution, "bins")
        is_wide = any(choice.kind == "bins" for choice in self.choices.choices)
        self.are_levels = actions == "levels" or (actions == "auto" and not is_wide)
        self.axes: list[Axis] = []
        for choice in self.choices.choices:
            for column in range(choice.columns.start, choice.columns.stop):
                grid = choice.grid
                if grid is None:
                    grid = (np.arange(choice.width) + 0.5) / choice.width
                self.axes.append(Axis(choice.name, column, grid))
        if not self.axes:
            raise ConfigError(f"{problem.name} has nothing to choose: every parameter is fixed.")
        self.failure_reward = failure_reward
        self._worst = 0.0 if failure_reward is None else failure_reward
        self._is_first = True
        self.num_trials = 0

    @property
    def observation_size(self) -> int:
        """Values of a trial."""
        return 1 + len(self.problem.constraints)

    def coordinate(self, axis: Axis, action: float) -> float:
        """The coordinate of a level or a real number from 0 to 1."""
        if self.are_levels:
            return float(axis.coordinates[int(action)])
        return float(np.clip(action, 0.0, 1.0))

    def start(self) -> Floats:
        """[d] coordinates before anything is chosen."""
        return np.full(self.space.dimensions, 0.5)

    def trial(
        self, x: Floats, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], float, dict[str, Any]]:
        """Evaluate what is at ``x``, or an allowed configuration near it.

        Args:
            x: [d] coordinates.
            rng: what an allowed configuration is drawn from, where ``x`` is forbidden.

        Returns:
            The observation, the reward, and ``config``, ``status`` and ``values``, with ``error``
            where it failed.
        """
        config = self.space.settle(x, rng)
        context = TrialContext(number=self.num_trials, seed=int(rng.integers(2**31)))
        self.num_trials += 1
        feedback = evaluate(self.problem, config, context)
        objective = self.problem.objectives[0]
        values: Mapping[str, float] = {**feedback.objectives, **feedback.constraints}
        names = [objective.name, *(c.name for c in self.problem.constraints)]
        seen = np.array([values.get(name, 0.0) for name in names], dtype=np.float64)
        limit = float(np.finfo(np.float32).max)
        observation = np.clip(np.nan_to_num(seen), -limit, limit).astype(np.float32)
        info: dict[str, Any] = {
            "config": config,
            "status": feedback.status,
            "values": dict(values),
        }
        if feedback.error:
            info["error"] = feedback.error
        if feedback.status == "ok" and is_feasible(feedback, self.problem.constraints):
            reward = 0.0 - objective.loss(values[objective.name])  # never -0.0
            if self.failure_reward is None:
                self._worst = reward if self._is_first else min(self._worst, reward)
                self._is_first = False
            return observation, reward, info
        return observation, self._worst, info
