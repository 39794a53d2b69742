"""Search over candidates by upper confidence bounds: where feedback is asked for next.

Auer, Cesa-Bianchi and Fischer, *Finite-time Analysis of the Multiarmed Bandit Problem*, Machine
Learning 47, 2002.

::

    i = argmax mean_i + c * range * sqrt(ln t / n_i)     n_i examples judged, t of all
    candidate i is judged on a minibatch, and so is a proposal made from its feedback, which joins;
    beyond the capacity the candidate with the smallest bound leaves

Differs from the paper: arms come and go; the exploration is scaled by the range of the scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback as CoreFeedback
from sharpen.text.trainers.base import Config, Trainer, score_of

__all__ = ["UCBSearch"]


@dataclass(slots=True)
class _Arm:
    """A candidate with what is known of it."""

    config: Config
    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else -math.inf

    def add(self, feedback: CoreFeedback, examples: int) -> None:
        self.total += score_of(feedback) * examples
        self.count += examples


class UCBSearch(Trainer):
    """Spends feedback on the candidates that may be best.

    Args:
        capacity: most candidates that are held.
        exploration: ``c``; more tries those that are known less.
        options: those of :class:`~sharpen.text.trainers.base.Trainer`; the best candidate is that
            of the highest mean, or, with a validation, the best on it of the three highest.
    """

    def __init__(
        self, *given: Any, capacity: int = 10, exploration: float = 1.0, **options: Any
    ) -> None:
        super().__init__(*given, **options)
        if capacity < 1 or exploration < 0:
            raise ConfigError(
                f"capacity={capacity} must be at least 1 and exploration={exploration} at least 0"
                " (UCBSearch)."
            )
        self.capacity = capacity
        self.exploration = exploration
        self._arms: list[_Arm] = []

    def begin(self, first: Config) -> None:
        """Take up the first values."""
        arm = _Arm(first)
        batch = self.drawn(0)
        arm.add(self.judge(first, batch), len(batch))
        self._arms = [arm]

    def step(self, number: int) -> bool:
        """One turn; whether a proposal joined and stayed."""
        bounds = self._bounds()
        arm = max(self._arms, key=lambda one: bounds[id(one)])
        batch = self.drawn(number + 1)
        feedback = self.judge(arm.config, batch)
        arm.add(feedback, len(batch))
        (candidate,) = self.proposals(arm.config, feedback, 1)
        if any(candidate.config == one.config for one in self._arms):
            self.optimizer.abandon([candidate.number])
            return False
        new = _Arm(candidate.config)
        told = self.judge(candidate.config, batch)
        new.add(told, len(batch))
        self.tell(candidate, told)
        self._arms.append(new)
        if len(self._arms) > self.capacity:
            bounds = self._bounds()
            worst = min(self._arms, key=lambda one: bounds[id(one)])
            self._arms = [one for one in self._arms if one is not worst]
        return any(one is new for one in self._arms)

    def _bounds(self) -> dict[int, float]:
        means = [arm.mean for arm in self._arms if math.isfinite(arm.mean)]
        spread = max(means) - min(means) if len(means) > 1 else 1.0
        total = sum(arm.count for arm in self._arms)
        scale = self.exploration * (spread or 1.0)
        return {
            id(arm): arm.mean + scale * math.sqrt(math.log(max(total, 2)) / arm.count)
            for arm in self._arms
        }

    def best(self) -> tuple[Config, float]:
        """The candidate of the highest mean; of equal ones, that which is known best."""
        ranked = sorted(self._arms, key=lambda arm: (-arm.mean, -arm.count))
        if self.validation is None:
            return dict(ranked[0].config), ranked[0].mean
        best = max(ranked[:3], key=lambda arm: self.validate(arm.config))
        return dict(best.config), self.validate(best.config)
