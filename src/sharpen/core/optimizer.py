"""The contract of black-box optimizers: ask, tell, recommend; and how they are found by name.

An optimizer never knows what it optimizes. It is a function of its seed and of what it was told:
the proposal for trial ``number`` depends on the seed, the number and the history alone, so a
killed study goes on with the same proposals, and several processes that share a study never draw
the same point.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, ClassVar

from sharpen.core.config import to_dict
from sharpen.core.errors import ConfigError, DependencyNotInstalled, did_you_mean
from sharpen.core.feedback import Feedback, TextFeedback, TracePoint, Trial
from sharpen.core.problem import Constraint, Fidelity, Objective, as_feedback, check_names
from sharpen.core.space import Space
from sharpen.core.text_parameter import Text

__all__ = [
    "Candidate",
    "Capabilities",
    "Optimizer",
    "Proposal",
    "Recommendation",
    "find_optimizer",
    "make_optimizer",
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

    fidelity: bool = False
    """Chooses how closely a trial is measured; those that do not ask for the truth alone."""

    context: bool = False
    """Conditions that the problem does not control."""

    text: bool = False
    """Free text (:class:`~sharpen.core.text_parameter.Text`), which has no coordinates."""

    max_dimensions: int | None = None
    """Most coordinates; None is any number."""

    max_cardinality: int | None = None
    """Most configurations in all; None is any number, infinite too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What :meth:`Optimizer.propose` may return where a configuration does not say it all."""

    config: dict[str, Any]
    """The configuration."""

    fidelity: float | None = None
    """How closely to measure; None is the truth."""

    context: Mapping[str, Any] = field(default_factory=dict)
    """The conditions to measure under."""

    origin: str = ""
    """What of the optimizer proposed it, for those made of several; empty is the optimizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A configuration to evaluate."""

    number: int
    """Its number; :meth:`Optimizer.tell` gets it back."""

    config: dict[str, Any]
    """The configuration."""

    origin: str = ""
    """Name of the optimizer, and of the part of it that proposed this."""

    fidelity: float | None = None
    """How closely to measure it; None is the truth."""

    context: Mapping[str, Any] = field(default_factory=dict)
    """The conditions to measure it under."""

    objectives: tuple[Objective, ...] = (Objective("value"),)
    constraints: tuple[Constraint, ...] = ()

    def begun(self) -> Trial:
        """The trial while it runs."""
        return Trial(
            number=self.number,
            config=self.config,
            origin=self.origin,
            fidelity=self.fidelity,
            context=self.context,
        )

    def result(self, outcome: Any) -> Trial:
        """The finished trial, for :meth:`Optimizer.tell`.

        Args:
            outcome: a number, a mapping of values by name, or a :class:`Feedback`.

        Raises:
            DataError: an objective or constraint is missing from it.
        """
        feedback = as_feedback(outcome, self.objectives, self.constraints)
        return replace(
            self.begun(),
            state=feedback.status,
            feedback=feedback,
            feasible=is_feasible(feedback, self.constraints),
        )


def is_feasible(feedback: Feedback, constraints: Sequence[Constraint]) -> bool:
    """Whether every constraint holds."""
    if not constraints:
        return True
    values = feedback.constraints
    return all(c.name in values and c.holds(values[c.name]) for c in constraints)


def is_true(value: float | None, fidelity: Fidelity | None) -> bool:
    """Whether ``value`` is the truth of ``fidelity``."""
    return value is None or fidelity is None or value == fidelity.high


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
        budget: how many trials are planned, where that is known; some plan ahead.
        fidelity: how closely trials may be measured.
        contexts: conditions that trials are measured under.

    Raises:
        ConfigError: it cannot handle such a problem; the message names optimizers that can.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities] = Capabilities()

    hyperparameters: ClassVar[Space | None] = None
    """Its own options as a space, so that a study can tune the optimizer itself."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective] = (Objective("value"),),
        constraints: Sequence[Constraint] = (),
        *,
        seed: int = 0,
        budget: int | None = None,
        fidelity: Fidelity | None = None,
        contexts: Space | None = None,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.seed = seed
        self.budget = budget
        self.fidelity = fidelity
        self.contexts = contexts
        self.history: dict[int, Trial] = {}
        self.pending: dict[int, Trial] = {}
        self._next = 0
        check_names(self.objectives, self.constraints)
        lacks = _lacks(self.capabilities, space, self.objectives, self.constraints, contexts)
        if lacks:
            able = suitable(space, self.objectives, self.constraints, contexts)
            raise ConfigError(
                f"the optimizer '{self.name}' cannot handle {lacks}. "
                f"Able to: {', '.join(able) or 'none that is installed'}."
            )

    @abstractmethod
    def propose(self, number: int) -> dict[str, Any] | Proposal:
        """The configuration for trial ``number``, from seed, number and history alone."""

    def propose_in(self, context: Mapping[str, Any], number: int) -> dict[str, Any] | Proposal:
        """The configuration for trial ``number`` under conditions that are already known.

        Only optimizers with the capability ``context`` have it.
        """
        raise ConfigError(f"the optimizer '{self.name}' takes no context.")

    def ask(
        self, n: int = 1, *, number: int | None = None, context: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        """Configurations to evaluate.

        Args:
            n: how many; earlier ones of the same call count as pending for the later ones.
            number: number of the first; default goes on from the last.
            context: the conditions of these trials, where they are already known; else an
                optimizer of a problem with contexts chooses them.

        Raises:
            ConfigError: ``n`` is less than 1, or ``context`` is wrong or not for this optimizer.
        """
        if n < 1:
            raise ConfigError(f"ask needs n >= 1, got {n}.")
        if context is not None:
            if self.contexts is None:
                raise ConfigError(f"this '{self.name}' was made for a problem without contexts.")
            context = self.contexts.validate(context)
        first = self._next if number is None else number
        found = []
        for k in range(first, first + n):
            given = self.propose(k) if context is None else self.propose_in(context, k)
            proposal = given if isinstance(given, Proposal) else Proposal(config=given)
            candidate = Candidate(
                number=k,
                config=dict(proposal.config),
                origin=proposal.origin or self.name,
                fidelity=proposal.fidelity,
                context=dict(context or proposal.context),
                objectives=self.objectives,
                constraints=self.constraints,
            )
            self.pending[k] = candidate.begun()
            found.append(candidate)
        self._next = max(self._next, first + n)
        return found

    def tell(self, trials: Iterable[Trial]) -> None:
        """Learn of trials: finished ones, and running ones (without feedback) as pending."""
        for trial in trials:
            self._next = max(self._next, trial.number + 1)
            if trial.feedback is None:
                self.pending[trial.number] = trial
            else:
                self.pending.pop(trial.number, None)
                self.history[trial.number] = trial

    def abandon(self, numbers: Iterable[int]) -> None:
        """Forget pending candidates whose worker died."""
        for number in numbers:
            self.pending.pop(number, None)

    def restart(self) -> None:  # noqa: B027 - most derive nothing
        """Forget whatever was derived from the history; it is about to be told anew."""

    def is_true(self, trial: Trial) -> bool:
        """Whether a trial was measured at the highest fidelity."""
        return is_true(trial.fidelity, self.fidelity)

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
            if trial.is_ok and trial.feasible and self.is_true(trial):
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
            "pending": [_trial_state(trial) for trial in self.pending.values()],
            "history": [_trial_state(trial) for trial in self.history.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state_dict` described.

        Raises:
            ConfigError: the state of another optimizer.
        """
        if state["optimizer"] != self.name:
            raise ConfigError(f"the state is of '{state['optimizer']}', not of '{self.name}'.")
        self.seed, self._next = int(state["seed"]), int(state["next"])
        self.history, self.pending = {}, {}
        self.restart()
        for row in (*state["history"], *state["pending"]):
            config = {name: self.space[name].check(v) for name, v in row["config"].items()}
            self.tell([_trial_from_state({**row, "config": config})])


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
    if row["feedback"] is None:
        return Trial(**row)
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
    contexts: Space | None,
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
    if contexts is not None and not able.context:
        return "contexts"
    if not able.text and any(isinstance(p, Text) for p in space.values()):
        return "free text"
    if able.max_dimensions is not None and space.dimensions > able.max_dimensions:
        return f"{space.dimensions} parameters (it takes {able.max_dimensions})"
    if able.max_cardinality is not None and space.cardinality > able.max_cardinality:
        count = space.cardinality
        many = "infinitely many" if math.isinf(count) else f"{count:,.0f}"
        return f"{many} configurations (it takes {able.max_cardinality:,})"
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


def make_optimizer(
    maker: str | Mapping[str, Any] | Callable[..., Optimizer],
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    *,
    seed: int = 0,
    budget: int | None = None,
    fidelity: Fidelity | None = None,
    contexts: Space | None = None,
) -> Optimizer:
    """An optimizer of a problem.

    Args:
        maker: a name; a mapping with ``name`` and options, such as ``{"name": "de", "size": 20}``;
            a class; or a function that takes ``(space, objectives, constraints, seed=...)``.
        space: what to search over.
        objectives: one or more.
        constraints: any number.
        seed: of all its randomness.
        budget: how many trials are planned; told to those that take it, like what follows.
        fidelity: how closely trials may be measured.
        contexts: conditions that trials are measured under.

    Raises:
        ConfigError: there is no such optimizer, it has no such option, or it cannot handle the
            problem.
    """
    options: dict[str, Any] = {}
    if isinstance(maker, Mapping):
        options = dict(maker)
        maker = options.pop("name", "auto")
    label = maker if isinstance(maker, str) else getattr(maker, "__name__", "")
    made = find_optimizer(maker) if isinstance(maker, str) else maker
    if not callable(made):
        raise ConfigError(f"optimizer must be a name, an optimizer or a class, got {made!r}.")
    known = _options_of(made)
    for name in options:
        if name not in known:
            raise ConfigError(
                f"the optimizer '{label}' has no option '{name}'.{did_you_mean(name, known)} "
                f"It has: {', '.join(sorted(known)) or 'none'}."
            )
    given = {"budget": budget, "fidelity": fidelity, "contexts": contexts}
    told = {name: value for name, value in given.items() if value is not None and name in known}
    if contexts is not None and "contexts" not in known:
        raise ConfigError(f"the optimizer '{label}' cannot handle contexts.")
    return made(space, objectives, constraints, seed=seed, **{**told, **options})


def _options_of(made: Callable[..., Optimizer]) -> set[str]:
    """Keyword options that ``made`` takes, with those it hands on to a base class."""
    found: set[str] = set()
    makers = made.__mro__ if isinstance(made, type) else [made]
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        found |= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found - {"seed"}


def suitable(
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    contexts: Space | None = None,
) -> list[str]:
    """Names of the installed optimizers that can handle such a problem."""
    found = []
    for name in optimizer_names():
        try:
            made = find_optimizer(name)
        except DependencyNotInstalled:
            continue
        able = getattr(made, "capabilities", None)  # a chooser such as "auto" has none of its own
        if able is not None and not _lacks(able, space, objectives, constraints, contexts):
            found.append(name)
    return found
