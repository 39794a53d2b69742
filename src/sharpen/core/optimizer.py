"""The contract of black-box optimizers: ask, tell, recommend; and how they are found by name.

An optimizer never knows what it optimizes. It is a function of its seed and of what it was told:
the proposal for trial ``number`` depends on the seed, the number and the history alone, so a
killed study goes on with the same proposals, and several processes that share a study never draw
the same point.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

from sharpen.core.config import to_dict
from sharpen.core.errors import ConfigError, DependencyNotInstalled, did_you_mean
from sharpen.core.feedback import Feedback, TextFeedback, TracePoint, Trial
from sharpen.core.problem import Constraint, Objective, as_feedback, check_names
from sharpen.core.space import Space

__all__ = [
    "Candidate",
    "Capabilities",
    "Optimizer",
    "Recommendation",
    "find_optimizer",
    "optimizer_names",
    "suitable",
]

_GROUP = "sharpen.optimizers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an optimizer can handle; asking for more is an error, never silently dropped."""

    multi_objective: bool = False
    """More than one objective."""

    constraints: bool = False
    """Constraints on measured values."""

    conditional: bool = True
    """Parameters that are not always active."""

    forbidden: bool = True
    """Forbidden combinations."""

    max_dimensions: int | None = None
    """Most parameters; None is any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A configuration to evaluate."""

    number: int
    """Its number; :meth:`Optimizer.tell` gets it back."""

    config: dict[str, Any]
    """The configuration."""

    origin: str = ""
    """Name of the optimizer."""

    objectives: tuple[Objective, ...] = (Objective("value"),)
    constraints: tuple[Constraint, ...] = ()

    def result(self, outcome: Any) -> Trial:
        """The finished trial, for :meth:`Optimizer.tell`.

        Args:
            outcome: a number, a mapping of values by name, or a :class:`Feedback`.

        Raises:
            DataError: an objective or constraint is missing from it.
        """
        feedback = as_feedback(outcome, self.objectives, self.constraints)
        return Trial(
            number=self.number,
            config=self.config,
            state=feedback.status,
            feedback=feedback,
            origin=self.origin,
            feasible=is_feasible(feedback, self.constraints),
        )


def is_feasible(feedback: Feedback, constraints: Sequence[Constraint]) -> bool:
    """Whether every constraint holds."""
    values = feedback.constraints
    return all(c.name in values and c.holds(values[c.name]) for c in constraints)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to use in the end."""

    config: dict[str, Any]
    """The configuration."""

    predicted: Mapping[str, float]
    """Expected objective values."""

    why: str
    """How it was chosen."""


class Optimizer(ABC):
    """Base of all optimizers.

    A subclass sets :attr:`name` and :attr:`capabilities` and implements :meth:`propose`, which
    reads :attr:`history` (finished trials by number) and :attr:`pending` (running ones).
    During a trial: :meth:`ask` gives a candidate, it is evaluated, :meth:`tell` brings the result.
    Tells come in any order and may concern trials that were never asked for.

    Args:
        space: what to search over.
        objectives: one or more.
        constraints: any number.
        seed: of all its randomness.

    Raises:
        ConfigError: it cannot handle such a problem; the message names optimizers that can.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.seed = seed
        self.history: dict[int, Trial] = {}
        self.pending: dict[int, dict[str, Any]] = {}
        self._next = 0
        check_names(self.objectives, self.constraints)
        lacks = _lacks(self.capabilities, space, self.objectives, self.constraints)
        if lacks:
            able = suitable(space, self.objectives, self.constraints)
            raise ConfigError(
                f"the optimizer '{self.name}' cannot handle {lacks}. "
                f"Able to: {', '.join(able) or 'none that is installed'}."
            )

    @abstractmethod
    def propose(self, number: int) -> dict[str, Any]:
        """The configuration for trial ``number``, from seed, number and history alone."""

    def ask(self, n: int = 1, *, number: int | None = None) -> list[Candidate]:
        """Configurations to evaluate.

        Args:
            n: how many; earlier ones of the same call count as pending for the later ones.
            number: number of the first; default goes on from the last.
        """
        if n < 1:
            raise ConfigError(f"ask needs n >= 1, got {n}.")
        first = self._next if number is None else number
        found = []
        for k in range(first, first + n):
            config = self.propose(k)
            self.pending[k] = config
            found.append(
                Candidate(
                    number=k,
                    config=dict(config),
                    origin=self.name,
                    objectives=self.objectives,
                    constraints=self.constraints,
                )
            )
        self._next = max(self._next, first + n)
        return found

    def tell(self, trials: Iterable[Trial]) -> None:
        """Learn of trials: finished ones, and running ones (without feedback) as pending."""
        for trial in trials:
            self._next = max(self._next, trial.number + 1)
            if trial.feedback is None:
                self.pending[trial.number] = dict(trial.config)
            else:
                self.pending.pop(trial.number, None)
                self.history[trial.number] = trial

    def abandon(self, numbers: Iterable[int]) -> None:
        """Forget pending candidates whose worker died."""
        for number in numbers:
            self.pending.pop(number, None)

    def recommend(self) -> Recommendation:
        """The best configuration by what is known; here the best feasible one observed.

        Raises:
            ConfigError: nothing feasible was told yet, or there are several objectives.
        """
        if len(self.objectives) > 1:
            raise ConfigError("there is no one best of several objectives; use the Pareto set.")
        objective = self.objectives[0]
        best: Trial | None = None
        for number in sorted(self.history):
            trial = self.history[number]
            if trial.is_ok and trial.feasible:
                loss = objective.loss(trial.values[objective.name])
                if best is None or loss < objective.loss(best.values[objective.name]):
                    best = trial
        if best is None:
            raise ConfigError("no feasible trial was told yet, so there is nothing to recommend.")
        why = f"best feasible value observed, trial {best.number}"
        return Recommendation(config=dict(best.config), predicted=best.values, why=why)

    def state_dict(self) -> dict[str, Any]:
        """All it knows, as plain data: JSON holds it."""
        return {
            "optimizer": self.name,
            "seed": self.seed,
            "next": self._next,
            "pending": {str(k): dict(v) for k, v in self.pending.items()},
            "history": [_trial_state(self.history[k]) for k in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state_dict` described.

        Raises:
            ConfigError: the state of another optimizer.
        """
        if state["optimizer"] != self.name:
            raise ConfigError(f"the state is of '{state['optimizer']}', not of '{self.name}'.")
        self.seed, self._next = int(state["seed"]), int(state["next"])
        self.pending = {int(k): self.space.validate(v) for k, v in state["pending"].items()}
        self.history = {}
        for row in state["history"]:
            trial = _trial_from_state(row)
            self.history[trial.number] = trial


def _trial_state(trial: Trial) -> dict[str, Any]:
    state: dict[str, Any] = to_dict(trial)
    return {**state, "feedback": _encode(state["feedback"])}


def _encode(value: Any) -> Any:
    """Non-finite numbers as text, which JSON can hold."""
    if isinstance(value, Mapping):
        return {k: _encode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_encode(v) for v in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _trial_from_state(row: Mapping[str, Any]) -> Trial:
    feedback = dict(row["feedback"])
    for part in ("objectives", "constraints", "std", "cost"):
        feedback[part] = {k: float(v) for k, v in feedback[part].items()}
    feedback["trace"] = [
        TracePoint(p["step"], float(p["value"]), p["elapsed_s"]) for p in feedback["trace"]
    ]
    feedback["text"] = [TextFeedback(**t) for t in feedback["text"]]
    return Trial(**{**row, "feedback": Feedback(**feedback)})


def _lacks(
    able: Capabilities,
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> str:
    """What a problem asks that ``able`` has not, in words; empty when nothing."""
    if len(objectives) > 1 and not able.multi_objective:
        return f"{len(objectives)} objectives"
    if constraints and not able.constraints:
        return "constraints"
    if space.is_conditional and not able.conditional:
        return "conditional parameters"
    if space.forbidden and not able.forbidden:
        return "forbidden combinations"
    if able.max_dimensions is not None and len(space) > able.max_dimensions:
        return f"{len(space)} parameters (it takes {able.max_dimensions})"
    return ""


def optimizer_names() -> list[str]:
    """Names of every installed optimizer, sorted."""
    return sorted({point.name for point in metadata.entry_points(group=_GROUP)})


def find_optimizer(name: str) -> Callable[..., Optimizer]:
    """The class, or the function that makes one, of the optimizer called ``name``.

    Raises:
        ConfigError: there is none.
        DependencyNotInstalled: it needs a package that is not installed.
    """
    for point in metadata.entry_points(group=_GROUP):
        if point.name == name:
            try:
                found: Callable[..., Optimizer] = point.load()
            except ModuleNotFoundError as error:
                raise DependencyNotInstalled(
                    f"the optimizer '{name}' needs the package '{error.name}'. "
                    "Install it: pip install 'sharpen[search]'"
                ) from error
            return found
    names = optimizer_names()
    raise ConfigError(
        f"there is no optimizer '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}."
    )


def suitable(
    space: Space, objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> list[str]:
    """Names of the installed optimizers that can handle such a problem."""
    found = []
    for name in optimizer_names():
        made = find_optimizer(name)
        able = getattr(made, "capabilities", None)  # a chooser such as "auto" has none of its own
        if able is not None and not _lacks(able, space, objectives, constraints):
            found.append(name)
    return found
