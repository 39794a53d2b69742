"""What was thought of an output: a score, words, values, or the error it ended in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.feedback import Feedback as CoreFeedback
from sharpen.core.feedback import TextFeedback, plain_number

__all__ = ["Feedback", "as_feedback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """The judgement of one output of a program; any part may be missing.

    Raises:
        ConfigError: ``score`` or an objective is no number.
    """

    score: float | None = None
    """How good it is; higher is better."""

    text: str | None = None
    """What was said about it."""

    objectives: Mapping[str, float] = field(default_factory=dict)
    """Further measured values by name."""

    per_example: Sequence[float] = ()
    """Score of each example, where the output was judged on several."""

    error: str | None = None
    """The error it ended in."""

    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further plain data to keep."""

    def __post_init__(self) -> None:
        try:
            if self.score is not None:
                object.__setattr__(self, "score", plain_number(self.score))
            values = {str(name): plain_number(v) for name, v in self.objectives.items()}
            object.__setattr__(self, "objectives", values)
            object.__setattr__(self, "per_example", tuple(map(plain_number, self.per_example)))
        except DataError as error:
            raise ConfigError(f"a score of feedback {error} (Feedback)") from None

    def render(self) -> str:
        """As the words that an optimizer reads: what was said, the error, the scores."""
        parts = [] if not self.text else [self.text]
        if self.error:
            parts.append(f"Error: {self.error}")
        if self.score is not None:
            parts.append(f"Score: {self.score:.6g} (higher is better)")
        parts.extend(f"{name}: {value:.6g}" for name, value in self.objectives.items())
        return "\n".join(parts)

    def to_core(
        self, objective: str = "score", cost: Mapping[str, float] | None = None
    ) -> CoreFeedback:
        """As the outcome of a trial of a study.

        Args:
            objective: the name of the objective that is the score; the study maximizes it.
            cost: what the evaluation took.
        """
        said: list[TextFeedback] = []
        if self.text:
            said.append(TextFeedback(body=self.text, score=self.score))
        if self.error:
            said.append(TextFeedback(body=self.error, kind="error"))
        values = dict(self.objectives)
        if self.score is not None:
            values[objective] = self.score
        missing = self.score is None
        return CoreFeedback(
            objectives=values,
            text=said,
            cost=dict(cost or {}),
            status="failed" if missing else "ok",
            error=(self.error or "it was given no score") if missing else None,
            info={**self.meta, "per_example": list(self.per_example)},
        )


def as_feedback(value: Any) -> Feedback:
    """Feedback from what a user gives: words, a number, :class:`Feedback` itself, or nothing.

    Raises:
        ConfigError: none of these.
    """
    if value is None:
        return Feedback()
    if isinstance(value, Feedback):
        return value
    if isinstance(value, str):
        return Feedback(text=value)
    if isinstance(value, bool):
        return Feedback(score=float(value))
    if isinstance(value, (int, float)) or (
        hasattr(value, "item") and getattr(value, "size", 1) == 1
    ):
        return Feedback(score=value)
    raise ConfigError(
        f"feedback must be words, a number or a Feedback, got {type(value).__name__}."
        " Examples: output.backward('too long'), output.backward(Feedback(score=0.5, text='...'))."
    )
