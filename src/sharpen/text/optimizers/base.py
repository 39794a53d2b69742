"""What optimizers of programs share: parameters by name, feedback in, changed values out.

In a turn the program runs, ``zero_feedback()`` forgets what was said before, ``backward`` sends
feedback on an output, and ``step()`` proposes values and sets those that are accepted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import BudgetExhausted
from sharpen.text.feedback import Feedback
from sharpen.text.listing import name_parameters
from sharpen.text.nodes import Node
from sharpen.text.parameter import Parameter

__all__ = ["StepReport", "Suggestion", "TextOptimizer"]

_SCHEMA = "sharpen.text.optimizer/1"


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


class TextOptimizer(ABC):
    """Base of the optimizers of programs.

    A subclass implements :meth:`propose`; this class names parameters, collects feedback, checks
    what is proposed and sets it.

    Args:
        parameters: what to change.
        atomic: set all proposed values or, if one of them is refused, none.

    Raises:
        ConfigError: no parameter, one twice, or something else than parameters.
    """

    def __init__(self, parameters: Sequence[Parameter], *, atomic: bool = False) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ConfigError(f"{type(self).__name__} needs at least one parameter.")
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise ConfigError(
                    f"{type(self).__name__} changes parameters, got {parameter!r:.80}."
                    " Make one: Parameter(value, name)."
                )
        if len({id(p) for p in self.parameters}) < len(self.parameters):
            raise ConfigError(f"a parameter is given twice ({type(self).__name__}).")
        self.atomic = atomic
        self.names = name_parameters(self.parameters)
        self.steps = 0

    def zero_feedback(self) -> None:
        """Forget the feedback that waits at the parameters."""
        for parameter in self.parameters:
            parameter.zero_feedback()

    def backward(self, output: Node, feedback: Any) -> None:
        """The same as ``output.backward(feedback)``."""
        output.backward(feedback)

    @abstractmethod
    def propose(self, pending: Sequence[tuple[Node, Feedback]]) -> Suggestion:
        """New values from outputs with feedback; at least one.

        Raises:
            BudgetExhausted: no call of the model is left.
        """

    def pending(self) -> list[tuple[Node, Feedback]]:
        """Outputs with feedback that wait at the parameters, each once, in order of arrival."""
        found: dict[tuple[int, int], tuple[Node, Feedback]] = {}
        for parameter in self.trainable():
            for output, feedback in parameter.pending:
                found.setdefault((output.id, id(feedback)), (output, feedback))
        return [found[key] for key in sorted(found, key=lambda key: key[0])]

    def trainable(self) -> list[Parameter]:
        """Those that may be changed now."""
        return [parameter for parameter in self.parameters if not parameter.frozen]

    def step(self) -> StepReport:
        """Propose values and set those that are accepted.

        Nothing is changed when the budget of the model is used up, when no feedback waits, or when
        the reply cannot be used; the report says so.
        """
        pending = self.pending()
        if not self.has_feedback():
            return StepReport(
                stopped="no feedback waits at a parameter: none was sent back, or the output"
                " depends on none of them"
            )
        try:
            suggestion = self.propose(pending)
        except BudgetExhausted as error:
            return StepReport(stopped=str(error))
        self.steps += 1
        return self.apply(suggestion)

    def has_feedback(self) -> bool:
        """Whether something waits at a parameter."""
        return any(parameter.pending for parameter in self.trainable())

    def apply(self, suggestion: Suggestion) -> StepReport:
        """Check the values of ``suggestion`` and set them."""
        rejected = dict(suggestion.rejected)
        accepted: dict[str, tuple[Parameter, Any]] = {}
        for given, value in suggestion.values.items():
            try:
                parameter = self.find(given)
                new = parameter.validated(value)
            except ConfigError as error:
                rejected[given] = str(error)
                continue
            if new != parameter._value or type(new) is not type(parameter._value):
                accepted[self.names[parameter.id]] = (parameter, new)
        if rejected and self.atomic:
            rejected |= dict.fromkeys(accepted, "another value was refused")
            accepted = {}
        for parameter, new in accepted.values():
            parameter.value = new
        return StepReport(
            applied={name: new for name, (_, new) in accepted.items()},
            rejected=rejected,
            reasoning=suggestion.reasoning,
            answer=suggestion.answer,
            calls=suggestion.calls,
            tokens=suggestion.tokens,
            terminated=suggestion.terminated,
        )

    def find(self, name: str) -> Parameter:
        """The parameter that a model names: exactly, else without case, else by the end of it.

        Raises:
            ConfigError: none or several are meant, or it is frozen.
        """
        by_name = {self.names[p.id]: p for p in self.parameters}
        tried = name.strip().strip("`'\"#")
        folded = tried.casefold()
        for matches in (
            [n for n in by_name if n == tried],
            [n for n in by_name if n.casefold() == folded],
            [n for n in by_name if n.casefold().endswith(folded) or folded.endswith(n.casefold())],
        ):
            if len(matches) == 1 and folded:
                found = by_name[matches[0]]
                if found.frozen:
                    raise ConfigError(f"parameter '{matches[0]}' is frozen.")
                return found
        raise ConfigError(
            f"there is no parameter '{name:.80}'. There are: {', '.join(sorted(by_name))}."
        )

    def state_dict(self) -> dict[str, Any]:
        """Values and what is remembered, as plain data."""
        return {
            "schema": _SCHEMA,
            "optimizer": type(self).__name__,
            "steps": self.steps,
            "values": {self.names[p.id]: p._value for p in self.parameters},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises:
            ConfigError: it is of another optimizer, version or set of parameters.
        """
        if state.get("schema") != _SCHEMA or state.get("optimizer") != type(self).__name__:
            raise ConfigError(
                f"the state is of {state.get('optimizer')!r} ({state.get('schema')!r}), not of"
                f" {type(self).__name__} ({_SCHEMA!r})."
            )
        values = state["values"]
        names = {self.names[p.id]: p for p in self.parameters}
        if set(values) != set(names):
            raise ConfigError(
                f"the state has the parameters {', '.join(sorted(values))}; this optimizer has"
                f" {', '.join(sorted(names))}."
            )
        new = {name: names[name].validated(value) for name, value in values.items()}
        for name, value in new.items():
            names[name]._value = value
        self.steps = int(state["steps"])
