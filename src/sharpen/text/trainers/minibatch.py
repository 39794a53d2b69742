"""Minibatches: one proposal a turn from a few examples, kept if it is no worse.

::

    B ~ examples;  theta' = A(theta, feedback on B)
    theta = theta' if score(theta', V) >= score(theta, V)       V: B, or a validation set
"""

from __future__ import annotations

from typing import Any

from sharpen.text.trainers.base import Config, Trainer, score_of

__all__ = ["Minibatch"]


class Minibatch(Trainer):
    """Goes from one configuration to the next.

    Args:
        ensure_improvement: keep a proposal only where its score does not drop, on the validation
            or, without one, on the minibatch that it was made from; else every proposal is kept.
        options: those of :class:`~sharpen.text.trainers.base.Trainer`.
    """

    def __init__(self, *given: Any, ensure_improvement: bool = True, **options: Any) -> None:
        super().__init__(*given, **options)
        self.ensure_improvement = ensure_improvement
        self._current: Config = {}
        self._score = 0.0

    def begin(self, first: Config) -> None:
        """Take up the first values."""
        self._current = first
        on_batch = self.validation is None
        self._score = (
            score_of(self.judge(first, self.drawn(0))) if on_batch else self.validate(first)
        )

    def step(self, number: int) -> bool:
        """One turn; whether the proposal was kept."""
        batch = self.drawn(number)
        feedback = self.judge(self._current, batch)
        if self.validation is None:
            self._score = score_of(feedback)
        (candidate,) = self.proposals(self._current, feedback, 1)
        if candidate.config == self._current:
            self.optimizer.abandon([candidate.number])
            return False
        if not self.ensure_improvement:
            self.optimizer.abandon([candidate.number])
            self._current = candidate.config
            return True
        new = self.judge(candidate.config, batch)
        self.tell(candidate, new)
        score = score_of(new) if self.validation is None else self.validate(candidate.config)
        if score < self._score:
            return False
        self._current, self._score = candidate.config, score
        return True

    def best(self) -> tuple[Config, float]:
        """What it holds, with its score on the last minibatch or the validation."""
        return dict(self._current), self._score
