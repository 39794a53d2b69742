"""Worlds of text: ``gymnasium.Env`` whose observations and actions are sentences.

``reset`` tells in ``info``: ``goal``, and ``actions``, what may be done now (there may be more).
``step`` tells ``actions``, ``success`` where the episode ended, ``cost``, and ``violation`` where
what was done is forbidden. A world is copied to try something from where it is, so it keeps its
state in plain attributes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from sharpen.core.errors import ConfigError

__all__ = ["MakeWorld", "TextWorld"]

_LETTERS = "".join(map(chr, range(32, 127))) + "\n"


class TextWorld(gymnasium.Env[str, str]):
    """What worlds share: an episode of so many steps, plain ASCII.

    A world says in :meth:`begin` what the goal and the first sight are, and in :meth:`act` what
    comes of an action.

    Args:
        max_steps: after so many the episode is cut off.

    Raises:
        ConfigError: ``max_steps`` is below 1.
    """

    def __init__(self, *, max_steps: int = 12) -> None:
        if max_steps < 1:
            raise ConfigError(f"max_steps={max_steps} of a world must be at least 1.")
        self.max_steps = max_steps
        self.observation_space = Text(2000, min_length=0, charset=_LETTERS)
        self.action_space = Text(500, min_length=0, charset=_LETTERS)
        self.taken = 0

    @abstractmethod
    def begin(self) -> tuple[str, str]:
        """Draw a task with ``self.np_random``; the goal and what is seen."""

    @abstractmethod
    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """What is seen after an action, the reward, whether the episode ended, and more to tell."""

    @abstractmethod
    def possible(self) -> Sequence[str]:
        """Actions that make sense now."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin a task; the same for the same seed."""
        super().reset(seed=seed)
        self.taken = 0
        goal, seen = self.begin()
        return seen, {"goal": goal, "actions": list(self.possible())}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act once."""
        self.taken += 1
        seen, reward, ended, told = self.act(" ".join(action.split()))
        cut = not ended and self.taken >= self.max_steps
        info = {"success": False, "cost": 1.0, **told}
        info["actions"] = [] if ended or cut else list(self.possible())
        return seen, reward, ended, cut, info


MakeWorld = Callable[[], "gymnasium.Env[str, str]"]
"""Makes a world; every episode has one of its own."""
