"""What optimizers of programs share: variables by name, feedback in, changed values out.

They are optimizers like all others (:class:`sharpen.core.optimizer.Optimizer`): ``ask`` gives a
configuration, ``tell`` brings what came of it, so a :class:`~sharpen.core.study.Study` runs them.
What they read beside the score are the words of the feedback and the recorded program, both plain
data in it (:func:`evidence_of`).

With live parameters there is a second way to say the same: ``zero_feedback()`` forgets what was
said before, ``backward`` sends feedback on an output, and ``step()`` tells what waits at the
parameters as the outcome of their values, asks for new ones, and sets them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback as CoreFeedback
from sharpen.core.feedback import TextFeedback, Trial
from sharpen.core.lm.errors import BudgetExhausted
from sharpen.core.optimizer import Capabilities, Optimizer, Proposal, suitable
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space, random_stream
from sharpen.text.feedback import Feedback
from sharpen.text.module import Module
from sharpen.text.nodes import Node
from sharpen.text.optimizers.problem import numbered, program_of
from sharpen.text.optimizers.variables import (
    Variable,
    named,
    space_of,
    variables_of,
    variables_of_space,
)
from sharpen.text.parameter import Parameter

__all__ = [
    "GIVEN",
    "SCORE",
    "Pending",
    "StepReport",
    "Suggestion",
    "TextOptimizer",
    "evidence_of",
    "record_of",
    "said_of",
]

SCORE = Objective("score", "max")
_SCHEMA = "sharpen.text.optimizer/2"
GIVEN = "given"
_DRAWS = 2**10  # of one trial

Pending = Sequence[tuple[Node, Feedback]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a step did."""

    applied: Mapping[str, Any] = field(default_factory=dict)
    """New values by parameter."""

    rejected: Mapping[str, str] = field(default_factory=dict)
    """Why a proposed value was not taken, by the name it was proposed for."""

    reasoning: str = ""
    """What the proposer said about it."""

    answer: str = ""
    """Its answer, where the objective asks for one."""

    calls: int = 0
    """Calls of the language model."""

    tokens: int = 0
    """Tokens of those calls, as far as the model tells."""

    terminated: bool = False
    """The proposer says that nothing needs to change."""

    stopped: str = ""
    """Why no proposal could be made: the limit that is reached, or no feedback."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What a proposer wants changed."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """By name, as proposed: not checked yet."""

    rejected: Mapping[str, str] = field(default_factory=dict)
    """What was refused already, with the reason."""

    reasoning: str = ""
    answer: str = ""
    terminated: bool = False
    calls: int = 0
    tokens: int = 0

    origin: str = ""
    """What of the optimizer proposed it."""


class TextOptimizer(Optimizer):
    """Base of the optimizers of programs.

    A subclass implements :meth:`suggest`, which reads :attr:`history`; this class names variables,
    makes feedback plain data, checks what is suggested, and keeps the two ways in step.

    Args:
        parameters: what to change: a module, parameters, or a space where the program runs
            elsewhere.
        objectives: one; its direction says whether a high score is good.
        constraints: none.
        seed: of all its randomness.
        start: the values that are improved on: those told of ``last``, or the ``best`` so far.
        atomic: take all suggested values or, if one of them is refused, none.

    Attributes:
        report: what the last proposal was made of.
        improves: number of the trial to improve on, where a loop chooses it; None leaves it to
            ``start``.

    Raises:
        ConfigError: no parameter, one twice, or something else than parameters.
    """

    name: ClassVar[str] = "text"
    capabilities: ClassVar[Capabilities] = Capabilities(text=True)

    def __init__(
        self,
        parameters: Module | Sequence[Parameter] | Space,
        objectives: Sequence[Objective] = (SCORE,),
        constraints: Sequence[Constraint] = (),
        *,
        seed: int = 0,
        start: Literal["last", "best"] = "last",
        atomic: bool = False,
    ) -> None:
        if start not in ("last", "best"):
            raise ConfigError(f"start must be last or best, got {start!r} ({type(self).__name__}).")
        self.parameters: list[Parameter] = []
        if isinstance(parameters, Space):
            space = parameters
            self.variables = variables_of_space(space)
        else:
            by_name = _by_name(parameters, type(self).__name__)
            self.parameters = list(by_name.values())
            space = space_of(by_name)
            self.variables = variables_of(by_name)
        self.names = {
            parameter.id: name
            for name, parameter in zip(self.variables, self.parameters, strict=False)
        }
        super().__init__(space, objectives, constraints, seed=seed)
        self.start = start
        self.atomic = atomic
        self.report = StepReport()
        self.improves: int | None = None

    @classmethod
    def maker(cls, *given: Any, **options: Any) -> Callable[..., TextOptimizer]:
        """What a study makes this optimizer with, for the space and objectives of its problem.

        Args:
            given: what follows the parameters, such as the language model.
            options: of the optimizer.

        Examples:
            ``Study(problem, optimizer=OptoPrime.maker(lm, temperature=0.8))``
        """

        def make(
            space: Space,
            objectives: Sequence[Objective],
            constraints: Sequence[Constraint] = (),
            *,
            seed: int = 0,
        ) -> TextOptimizer:
            if constraints:
                able = suitable(space, objectives, constraints)
                raise ConfigError(
                    f"the optimizer '{cls.name}' cannot handle constraints."
                    f" Able to: {', '.join(able) or 'none that is installed'}."
                )
            return cls(space, *given, **{"objectives": objectives, "seed": seed, **options})

        return make

    # -- as any optimizer -----------------------------------------------------------------------

    @abstractmethod
    def suggest(self, number: int, base: Trial) -> Suggestion:
        """What to change of the values of ``base``, from the history.

        Args:
            number: of the trial that it is for.
            base: the trial to improve on; of no feedback where nothing was told yet.

        Raises:
            BudgetExhausted: no call of the model is left.
        """

    def propose(self, number: int) -> Proposal:
        """The first values, and then what is suggested and not refused.

        Where the budget of the model is used up these are the best values so far, and
        :attr:`report` says so.
        """
        if not self.history and not self.pending:
            self.report = StepReport()
            return Proposal(config=self.space.default(), origin=GIVEN)
        base = self.base()
        try:
            suggestion = self.suggest(number, base)
        except BudgetExhausted as error:
            self.report = StepReport(stopped=str(error))
            best = self.best_trial()
            return Proposal(config=dict((best or base).config), origin=GIVEN)
        config, self.report = self._checked(suggestion, base.config)
        return Proposal(config=config, origin=suggestion.origin or self.name)

    def base(self) -> Trial:
        """The trial to improve on; without feedback where none was told."""
        if not self.history:
            first = min(self.pending.values(), key=lambda trial: trial.number)
            return replace(first, feedback=None)
        if self.improves in self.history:
            return self.history[self.improves]
        best = self.best_trial() if self.start == "best" else None
        return best or self.history[max(self.history)]

    def best_trial(self) -> Trial | None:
        """The earliest trial of the best score; None where none has a score."""
        (objective,) = self.objectives
        judged = [trial for trial in self.history.values() if trial.is_ok]
        if not judged:
            return None
        return min(judged, key=lambda t: (objective.loss(t.values[objective.name]), t.number))

    def _checked(
        self, suggestion: Suggestion, base: Mapping[str, Any]
    ) -> tuple[dict[str, Any], StepReport]:
        """A valid configuration: ``base`` with what is suggested and not refused."""
        rejected = dict(suggestion.rejected)
        accepted: dict[str, Any] = {}
        for given, value in suggestion.values.items():
            try:
                variable = self.find(given)
                new = variable.validated(value)
            except ConfigError as error:
                rejected[given] = str(error)
                continue
            old = base.get(variable.name)
            if new != old or type(new) is not type(old):
                accepted[variable.name] = new
        if rejected and self.atomic:
            rejected |= dict.fromkeys(accepted, "another value was refused")
            accepted = {}
        config = self.space.active({**self.space.default(), **base, **accepted})
        defaults = {name: p.default_value() for name, p in self.space.items()}
        config = self.space.active({**defaults, **config, **accepted})
        try:
            config = self.space.validate(config)
        except ConfigError as error:
            rejected |= dict.fromkeys(accepted, str(error))
            accepted, config = {}, dict(base)
        return config, StepReport(
            applied={name: value for name, value in accepted.items() if name in config},
            rejected=rejected,
            reasoning=suggestion.reasoning,
            answer=suggestion.answer,
            calls=suggestion.calls,
            tokens=suggestion.tokens,
            terminated=suggestion.terminated,
        )

    def find(self, name: str) -> Variable:
        """The variable that a model names: exactly, else without case, else by the end of it.

        Raises:
            ConfigError: none or several are meant, or it is frozen.
        """
        tried = name.strip().strip("`'\"#")
        folded = tried.casefold()
        for matches in (
            [n for n in self.variables if n == tried],
            [n for n in self.variables if n.casefold() == folded],
            [
                n
                for n in self.variables
                if n.casefold().endswith(folded) or folded.endswith(n.casefold())
            ],
        ):
            if len(matches) == 1 and folded:
                if matches[0] in self.frozen():
                    raise ConfigError(f"parameter '{matches[0]}' is frozen.")
                return self.variables[matches[0]]
        raise ConfigError(
            f"there is no parameter '{name:.80}'. There are: {', '.join(sorted(self.variables))}."
        )

    def sampling(self, number: int, temperature: float, draw: int = 0) -> dict[str, Any]:
        """Parameters of the requests for a trial: above temperature 0 a draw of its own.

        A cache keeps such draws by their numbers, so a study that is run again pays for none twice.
        """
        if temperature == 0:
            return {"temperature": 0.0}
        seed = int(random_stream(self.seed, number).integers(2**20))
        drawn = {"seed": seed * _DRAWS + draw, "repeat": number * _DRAWS + draw}
        return {"temperature": temperature, **drawn}

    # -- with live parameters -------------------------------------------------------------------

    def zero_feedback(self) -> None:
        """Forget the feedback that waits at the parameters."""
        for parameter in self.parameters:
            parameter.zero_feedback()

    def backward(self, output: Node, feedback: Any) -> None:
        """The same as ``output.backward(feedback)``."""
        output.backward(feedback)

    def frozen(self) -> set[str]:
        """Names of parameters that may not be changed now."""
        return {self.names[p.id] for p in self.parameters if p.frozen}

    def trainable(self) -> list[Parameter]:
        """Parameters that may be changed now."""
        return [parameter for parameter in self.parameters if not parameter.frozen]

    def waiting(self) -> list[tuple[Node, Feedback]]:
        """Outputs with feedback that wait at the parameters, each once, in order of arrival."""
        found: dict[tuple[int, int], tuple[Node, Feedback]] = {}
        for parameter in self.trainable():
            for output, feedback in parameter.pending:
                found.setdefault((output.id, id(feedback)), (output, feedback))
        return [found[key] for key in sorted(found, key=lambda key: key[0])]

    def has_feedback(self) -> bool:
        """Whether something waits at a parameter."""
        return any(parameter.pending for parameter in self.trainable())

    def values(self) -> dict[str, Any]:
        """Those of the parameters now, by name."""
        return {self.names[p.id]: p._value for p in self.parameters}

    def step(self) -> StepReport:
        """Tell what waits at the parameters, ask for new values and set them.

        Nothing is changed when the budget of the model is used up, when no feedback waits, or when
        the reply cannot be used; the report says so.
        """
        if not self.has_feedback():
            return StepReport(
                stopped="no feedback waits at a parameter: none was sent back, or the output"
                " depends on none of them"
            )
        try:
            feedback = self.evidence(self.waiting())
        except BudgetExhausted as error:
            return StepReport(stopped=str(error))
        self.observe(self.values(), feedback)
        (candidate,) = self.ask()
        if self.report.stopped:
            self.abandon([candidate.number])
        else:
            self.report = replace(self.report, applied=self.apply(candidate.config))
        return self.report

    def apply(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Set parameters by name that may be changed.

        Returns:
            Those that had another value.
        """
        changed = {}
        for parameter in self.trainable():
            name = self.names[parameter.id]
            if name in values:
                new, old = values[name], parameter._value
                if new != old or type(new) is not type(old):
                    parameter.value = changed[name] = new
        return changed

    def restore_best(self) -> None:
        """Set the best values that were judged."""
        best = self.best_trial()
        if best is not None:
            self.apply(best.config)

    def evidence(self, pending: Pending) -> CoreFeedback:
        """What waits at the parameters as the outcome of a trial."""
        return evidence_of(pending, self.trainable(), self.names, self.objectives[0])

    def observe(self, values: Mapping[str, Any], feedback: CoreFeedback) -> int:
        """Tell what came of values, whether they were asked for or not.

        Recorded programs are kept of the trial that is improved on alone, so a loop does not grow.

        Returns:
            The number of the trial.
        """
        trial = self._trial_of(values, feedback)
        self.tell([trial])
        self.improves = None if self.improves is None else trial.number
        self._forget_programs()
        return trial.number

    def _trial_of(self, values: Mapping[str, Any], feedback: CoreFeedback) -> Trial:
        """The pending trial of these values, or one that was never asked for, with its outcome."""
        for trial in self.pending.values():
            if trial.config == values:
                break
        else:
            self.abandon(list(self.pending))
            trial = Trial(number=self._next, config=dict(values), origin=GIVEN)
        return replace(trial, state=feedback.status, feedback=feedback)

    def _forget_programs(self) -> None:
        """Keep the recorded programs of what is improved on alone."""
        kept = {self.base().number}
        for number, trial in self.history.items():
            feedback = trial.feedback
            if number not in kept and feedback is not None and feedback.info.get("programs"):
                info = {name: v for name, v in feedback.info.items() if name != "programs"}
                self.history[number] = replace(trial, feedback=replace(feedback, info=info))

    # -- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All it knows, and the values of live parameters, as plain data."""
        return super().state_dict() | {
            "schema": _SCHEMA,
            "class": type(self).__name__,
            "values": self.values(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises:
            ConfigError: it is of another optimizer, version or set of parameters.
        """
        if state.get("schema") != _SCHEMA or state.get("class") != type(self).__name__:
            raise ConfigError(
                f"the state is of {state.get('class')!r} ({state.get('schema')!r}), not of"
                f" {type(self).__name__} ({_SCHEMA!r})."
            )
        values = state["values"]
        live = {self.names[p.id]: p for p in self.parameters}
        if set(values) != set(live):
            raise ConfigError(
                f"the state has the parameters {', '.join(sorted(values))}; this optimizer has"
                f" {', '.join(sorted(live))}."
            )
        new = {name: live[name].validated(value) for name, value in values.items()}
        super().load_state_dict(state)
        for name, value in new.items():
            live[name]._value = value


def evidence_of(
    pending: Pending,
    parameters: Sequence[Parameter],
    names: Mapping[int, str],
    objective: Objective = SCORE,
) -> CoreFeedback:
    """Outputs with their feedback as the outcome of a trial.

    Args:
        pending: outputs, each with what was said of it.
        parameters: those that may be changed.
        names: of parameters, by id.
        objective: the score, the mean of the outputs that have one.

    Returns:
        Feedback with a text for each output; ``info["programs"]`` holds what was recorded of each
        (:func:`~sharpen.text.optimizers.problem.program_of`).
    """
    scores = [feedback.score for _, feedback in pending if feedback.score is not None]
    wrong = any(feedback.error is not None for _, feedback in pending)
    values = {objective.name: sum(scores) / len(scores)} if scores else {}
    return CoreFeedback(
        objectives=values,
        text=[
            TextFeedback(
                body=feedback.render(),
                kind="error" if feedback.error is not None else "note",
                score=feedback.score,
            )
            for _, feedback in pending
        ],
        status="ok" if values else "failed",
        error="it ended in an error" if wrong and not values else None,
        info={"programs": [program_of(output, parameters, names) for output, _ in pending]},
    )


def said_of(trial: Trial) -> list[str]:
    """What was said of the outputs of a trial, and of the whole; at least one text."""
    feedback = trial.feedback
    if feedback is None:
        return ["Nothing is known yet."]
    said = [one.body for one in feedback.text]
    if not said:
        said = [feedback.error] if feedback.error else []
        said += [f"{name}: {value:.6g}" for name, value in feedback.objectives.items()]
    return said or [f"It ended as '{trial.state}'."]


def record_of(trial: Trial) -> dict[str, Any]:
    """Values and what was said of them, as a record that a model is shown."""
    return {"variables": dict(trial.config), "feedback": numbered(said_of(trial))}


def _by_name(parameters: Module | Sequence[Parameter], who: str) -> dict[str, Parameter]:
    """Parameters by name: of a module by their paths, else by their own names."""
    if isinstance(parameters, Module):
        found = {n: p for n, p in parameters.named_parameters().items() if not p.frozen}
        if not found:
            raise ConfigError(
                f"{who} needs at least one parameter; this module has none to change."
            )
        return found
    given = list(parameters)
    if not given:
        raise ConfigError(f"{who} needs at least one parameter.")
    for parameter in given:
        if not isinstance(parameter, Parameter):
            raise ConfigError(
                f"{who} changes parameters, got {parameter!r:.80}."
                " Make one: Parameter(value, name)."
            )
    if len({id(p) for p in given}) < len(given):
        raise ConfigError(f"a parameter is given twice ({who}).")
    return named(given)
