"""What bandit policies share: probabilities over arms, one draw, and learning from its loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError

__all__ = ["Policy", "ScaledPolicy"]

Floats = npt.NDArray[np.float64]
_LEAST = -1080  # exponent below that of every number


class Policy(ABC):
    """Chooses among ``arms`` and learns from losses (less is better) of at least 0.

    All it knows is in its public attributes: numbers and arrays.

    Args:
        arms: how many, two or more.
    """

    def __init__(self, arms: int) -> None:
        if arms < 2:
            raise ConfigError(f"a bandit needs two arms or more, got {arms}.")
        self.arms = arms
        self.rounds = 0

    @abstractmethod
    def probabilities(self, context: float = 0.0) -> Floats:
        """[arms] how likely each is played next.

        Args:
            context: in [0, 1]; policies without contexts do not look at it.
        """

    @abstractmethod
    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """Learn what an arm cost.

        Args:
            arm: the one that was played.
            loss: what it cost, at least 0.
            probability: with which it was chosen.
            context: in [0, 1].
        """

    def choose(self, u: float, context: float = 0.0) -> tuple[int, float]:
        """The arm at ``u`` in [0, 1) of the distribution, and its probability."""
        p = self.probabilities(context)
        arm = min(int(np.searchsorted(np.cumsum(p), u * p.sum(), side="right")), self.arms - 1)
        while p[arm] == 0:  # rounding may end on an arm that is never played
            arm -= 1
        return arm, float(p[arm])

    def state_dict(self) -> dict[str, Any]:
        """All it knows, as plain data."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
            if not name.startswith("_")
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state_dict` described.

        Raises:
            ConfigError: the state of another policy, or of another number of arms.
        """
        if set(state) != set(self.state_dict()) or state["arms"] != self.arms:
            raise ConfigError(f"the state is not of a {type(self).__name__} of {self.arms} arms.")
        for name, value in state.items():
            old = getattr(self, name)
            kind = old.dtype if isinstance(old, np.ndarray) else None
            setattr(self, name, np.array(value, dtype=kind) if kind is not None else value)


class ScaledPolicy(Policy):
    """A policy that keeps losses as multiples of 2^``unit``, so that their squares stay finite.

    The unit rises with the largest loss; as a power of two it rounds nothing.
    """

    def __init__(self, arms: int) -> None:
        super().__init__(arms)
        self.unit = _LEAST

    def scaled(self, loss: float, **degrees: int) -> float:
        """``loss`` in the unit, which is raised first where the loss is beyond it.

        Args:
            loss: at least 0.
            **degrees: attributes that are brought along, and the powers of the loss they hold.
        """
        unit = math.frexp(loss)[1]
        if loss > 0 and unit > self.unit:
            for name, degree in degrees.items():
                value = np.ldexp(getattr(self, name), degree * (self.unit - unit))
                setattr(self, name, value if np.ndim(value) else float(value))
            self.unit = unit
        return math.ldexp(loss, -self.unit)
