"""What an evaluation gives back, and the trial it belongs to.

Feedback carries numbers (objectives, constraints, gradients, noise), words (for optimizers that
read) and a trace (a learning curve), so that numeric and language optimizers stand on one protocol.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sharpen.core.errors import ConfigError, DataError

__all__ = ["STATUSES", "Feedback", "Status", "TextFeedback", "TracePoint", "Trial", "plain_number"]

Status = Literal["ok", "failed", "timeout", "infeasible", "pruned", "cancelled"]
STATUSES: tuple[str, ...] = get_args(Status)


def plain_number(value: Any) -> float:
    """A finite or infinite number as a float; NumPy and torch scalars too.

    Raises:
        DataError: not a number.
    """
    if type(value) is float:
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"must be a number, got {value!r}.")
    return float(value)


@dataclass(frozen=True, slots=True)
class TracePoint:
    """One point of a learning curve."""

    step: int
    """Step, epoch or budget at which it was measured."""

    value: float
    """The first objective there."""

    elapsed_s: float = 0.0
    """Seconds since the trial began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeedback:
    """A remark in words, for optimizers that read."""

    body: str
    """The remark."""

    kind: str = "note"
    """What it is: ``note``, ``error``, ``critique`` ..."""

    score: float | None = None
    """How good the judged thing is, where the remark says so; higher is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """The outcome of one evaluation.

    NaN or infinity in an objective of status ``ok`` turns the status into ``failed``.
    """

    objectives: Mapping[str, float] = field(default_factory=dict)
    """Values by objective, as measured (not negated when maximized)."""

    constraints: Mapping[str, float] = field(default_factory=dict)
    """Values by constraint."""

    std: Mapping[str, float] = field(default_factory=dict)
    """Known standard deviation of the noise of a value, by its name."""

    gradients: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By objective, then parameter: derivative in the parameter's own units."""

    text: Sequence[TextFeedback] = ()
    """Remarks in words."""

    trace: Sequence[TracePoint] = ()
    """Learning curve of the first objective."""

    cost: Mapping[str, float] = field(default_factory=dict)
    """What it took: ``seconds``, and whatever else was counted."""

    status: Status = "ok"
    """How it ended."""

    error: str | None = None
    """What went wrong, with the traceback where there is one."""

    info: Mapping[str, Any] = field(default_factory=dict)
    """Further plain data to keep."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ConfigError(
                f"status must be one of {', '.join(STATUSES)}, got {self.status!r} (Feedback)."
            )
        for part in ("objectives", "constraints", "std", "cost"):
            given = getattr(self, part)
            if not given:
                continue
            numbers: dict[str, float] = {}
            for name, value in given.items():
                try:
                    numbers[str(name)] = plain_number(value)
                except DataError as error:
                    raise ConfigError(f"{part}[{name!r}] {error} (Feedback)") from None
            object.__setattr__(self, part, numbers)
        wrong = [
            f"{name}={value}"
            for name, value in (*self.objectives.items(), *self.constraints.items())
            if not math.isfinite(value)
        ]
        if wrong and self.status == "ok":
            object.__setattr__(self, "status", "failed")
            object.__setattr__(
                self, "error", f"the evaluation gave {', '.join(wrong)}, which is not finite."
            )


TrialState = Literal["asking", "queued", "running"] | Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One configuration and what is known of it."""

    number: int
    """Its number in the study, from 0; negative for trials that come from elsewhere."""

    config: dict[str, Any]
    """The configuration."""

    state: TrialState = "running"
    """Where it is in its life."""

    fidelity: float | None = None
    """How closely it is measured; None is the truth."""

    context: Mapping[str, Any] = field(default_factory=dict)
    """The conditions it is measured under, of a problem with contexts."""

    feedback: Feedback | None = None
    """The outcome; None while it runs."""

    seed: int = 0
    """The seed its evaluation gets."""

    attempt: int = 1
    """How many times it was begun."""

    origin: str = ""
    """Who proposed it: an optimizer's name, or ``enqueued``."""

    started_s: float | None = None
    """When it began, in seconds since the epoch."""

    finished_s: float | None = None
    """When it ended, in seconds since the epoch."""

    feasible: bool = True
    """Whether every hard constraint is kept; meaningful once it is ``ok``."""

    @property
    def values(self) -> dict[str, float]:
        """Objective values by name; empty without an outcome."""
        return dict(self.feedback.objectives) if self.feedback is not None else {}

    @property
    def value(self) -> float:
        """The first objective's value.

        Raises:
            DataError: it has none.
        """
        for value in self.values.values():
            return value
        raise DataError(f"trial {self.number} is '{self.state}' and has no value.")

    @property
    def is_ok(self) -> bool:
        """Whether it ended well."""
        return self.state == "ok"

    def to_dict(self) -> dict[str, Any]:
        """As plain data: one line of an export. NaN and infinities become null."""
        row: dict[str, Any] = {
            "number": self.number,
            "state": self.state,
            "config": self.config,
            "origin": self.origin,
            "seed": self.seed,
            "attempt": self.attempt,
            "started_s": self.started_s,
            "finished_s": self.finished_s,
        }
        if self.fidelity is not None:
            row["fidelity"] = self.fidelity
        if self.context:
            row["context"] = dict(self.context)
        feedback = self.feedback
        if feedback is not None:
            row |= {
                "feasible": self.feasible,
                "values": {k: _finite(v) for k, v in feedback.objectives.items()},
                "constraints": {k: _finite(v) for k, v in feedback.constraints.items()},
                "cost": {k: _finite(v) for k, v in feedback.cost.items()},
                "trace": [[p.step, _finite(p.value), p.elapsed_s] for p in feedback.trace],
                "info": dict(feedback.info),
                "error": feedback.error,
            }
        return row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
