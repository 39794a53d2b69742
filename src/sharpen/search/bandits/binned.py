"""A bandit for each bin of the context: the simplest way to mind it.

Mikhail Khodak et al., "Learning to Relax: Setting Solver Parameters Across a Sequence of Linear
System Instances", ICLR 2024, section 4.1 (there with Tsallis-INF in each bin).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.search.bandits.policy import Floats, Policy
from sharpen.search.bandits.tsallis_inf import TsallisINF

__all__ = ["Binned"]


class Binned(Policy):
    """See the module.

    Args:
        arms: how many.
        bins: equal parts of [0, 1].
        policy: makes the bandit of a bin.
    """

    def __init__(
        self, arms: int, *, bins: int = 5, policy: Callable[[int], Policy] = TsallisINF
    ) -> None:
        super().__init__(arms)
        if bins < 1:
            raise ConfigError(f"bins={bins} must be at least 1.")
        self._parts = [policy(arms) for _ in range(bins)]

    def _at(self, context: float) -> Policy:
        return self._parts[min(int(context * len(self._parts)), len(self._parts) - 1)]

    def probabilities(self, context: float = 0.0) -> Floats:
        """See :meth:`Policy.probabilities`."""
        return self._at(context).probabilities()

    def learn(self, arm: int, loss: float, probability: float, context: float = 0.0) -> None:
        """See :meth:`Policy.learn`."""
        self._at(context).learn(arm, loss, probability)
        self.rounds += 1

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Policy.state_dict`."""
        return {**super().state_dict(), "parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Policy.load_state_dict`."""
        if len(state.get("parts", ())) != len(self._parts) or state["arms"] != self.arms:
            raise ConfigError(f"the state is not of {len(self._parts)} bins of {self.arms} arms.")
        for part, kept in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(kept)
        self.rounds = state["rounds"]
