"""Texts in a program with what was said about them, in TextGrad's names."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.client import LM
from sharpen.text.compat.engines import as_engine
from sharpen.text.feedback import as_feedback
from sharpen.text.nodes import Node, Operation
from sharpen.text.parameter import Parameter
from sharpen.text.record import record
from sharpen.text.sweep import ancestors, sweep
from sharpen.text.textual import Message, TextGradient, TextualPropagator

__all__ = ["Variable", "aggregate", "engine_of", "set_backward_engine", "sum"]

_BACKWARD: ContextVar[LM | None] = ContextVar("sharpen.text.compat.textgrad", default=None)


def set_backward_engine(engine: Any, override: bool = False) -> None:
    """The engine that criticizes and rewrites where none is given, in this thread or task.

    Raises:
        ConfigError: there is one already, and ``override`` is not set.
    """
    if _BACKWARD.get() is not None and not override:
        raise ConfigError("a backward engine is set already: set_backward_engine(..., True).")
    _BACKWARD.set(as_engine(engine))


def engine_of(given: Any) -> LM:
    """The engine that is given, else the one that was set.

    Raises:
        ConfigError: there is none.
    """
    found = _BACKWARD.get() if given is None else as_engine(given)
    if found is None:
        raise ConfigError("there is no engine: give engine=..., or call set_backward_engine.")
    return found


class Variable:
    """A text in a program, with what was said about it.

    Args:
        value: the text; whole numbers become one.
        image_path: must be empty: images are not supported.
        predecessors: what it was made from; nodes that operations give know that themselves.
        requires_grad: whether it is criticized and may be rewritten.
        role_description: what it is for.

    Raises:
        ConfigError: a value that is no text.
    """

    def __init__(
        self,
        value: Any = "",
        image_path: str = "",
        predecessors: Sequence[Variable] | None = None,
        requires_grad: bool = True,
        *,
        role_description: str,
    ) -> None:
        if image_path or not isinstance(value, str | int):
            raise ConfigError(f"a Variable holds text, got {image_path or value!r:.80}.")
        if predecessors:
            raise ConfigError("predecessors are recorded by operations; make the value with one.")
        text, role = str(value), role_description
        self.node: Node = Parameter(text, role=role) if requires_grad else Node(text, role=role)
        self.node.meta = {"gradients": []}

    @classmethod
    def of(cls, node: Node, role: str) -> Variable:
        """What an operation gave; as in TextGrad it takes criticism whatever it was made from."""
        if not node.needs_grad:
            return cls(str(node.value), role_description=role)
        found = cls.__new__(cls)
        node.role, node.meta = role, {"gradients": []}
        found.node = node
        return found

    @property
    def value(self) -> str:
        """The text."""
        return str(self.node.value)

    def get_value(self) -> str:
        """The text."""
        return self.value

    def set_value(self, value: str) -> None:
        """Set the text; what an operation gave becomes a root."""
        self.as_parameter().value = value

    def as_parameter(self) -> Parameter:
        """The parameter behind it; what an operation gave is one from now on."""
        if not isinstance(self.node, Parameter):
            gradients = self.gradients
            self.node = Parameter(self.value, role=self.role_description)
            self.node.meta = {"gradients": gradients}
        return self.node

    @property
    def requires_grad(self) -> bool:
        """Whether it is criticized."""
        return self.node.needs_grad

    @property
    def role_description(self) -> str:
        """What it is for."""
        return self.node.role

    def get_role_description(self) -> str:
        """What it is for."""
        return self.node.role

    def set_role_description(self, role: str) -> None:
        """Say what it is for."""
        self.node.role = role

    @property
    def gradients(self) -> list[TextGradient]:
        """What was said about it, each once, in order."""
        found: list[TextGradient] = (self.node.meta or {})["gradients"]
        return found

    def get_gradient_text(self) -> str:
        """The same as one text."""
        return "\n".join(one.text for one in self.gradients)

    def reset_gradients(self) -> None:
        """Forget it."""
        self.gradients.clear()

    def get_short_value(self, n_words_offset: int = 10) -> str:
        """The first and last words of a long text."""
        words = self.value.split(" ")
        if len(words) <= 2 * n_words_offset:
            return self.value
        return " ".join([*words[:n_words_offset], "(...)", *words[-n_words_offset:]])

    def backward(self, engine: Any = None) -> None:
        """Have what led here criticized; this itself is taken for the judgement."""
        propagator = _Noting(engine_of(engine))
        if any(node.operation is _AGGREGATE for node in ancestors([self.node])):
            propagator.reduce = "summarize"
        for parameter, messages in sweep([(self.node, as_feedback(None))], propagator):
            _note(parameter, propagator.merge(parameter, messages))

    def __add__(self, other: Variable) -> Variable:
        made = record(_PLUS, (self.node, other.node), ("left", "right"))
        role = f"{self.role_description} and {other.role_description}"
        return _passed(made, role)

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return f"Variable(value={self.value}, role={self.role_description})"


class _Noting(TextualPropagator):
    """Notes at every variable on the way what was said about it."""

    def merge(self, node: Node, messages: Sequence[Message]) -> Message:
        merged = super().merge(node, messages)
        if not isinstance(node, Parameter):
            _note(node, merged)
        return merged


def _note(node: Node, message: Message) -> None:
    kept = (node.meta or {}).get("gradients")
    if kept is not None:
        kept.extend(one for one in message if one not in kept)


def _passed(node: Node, role: str) -> Variable:
    """The result of a sum: criticized only where one of its terms is."""
    if not node.needs_grad:
        return Variable(str(node.value), requires_grad=False, role_description=role)
    return Variable.of(node, role)


def _lines(*texts: Any) -> str:
    return "\n".join(map(str, texts))


_PLUS = Operation("plus", "its inputs joined", kind="sum", function=lambda a, b: f"{a}{b}")
_SUM = Operation("sum", "its inputs, one below the other", kind="sum", function=_lines)
_AGGREGATE = Operation("aggregate", "its inputs, one below the other", kind="sum", function=_lines)


def _listed(operation: Operation, variables: Sequence[Variable]) -> Variable:
    if not variables:
        raise ConfigError(f"{operation.name} needs at least one variable.")
    names = tuple(f"text_{k}" for k in range(len(variables)))
    made = record(operation, [one.node for one in variables], names)
    roles = ", ".join(dict.fromkeys(one.role_description for one in variables))
    return _passed(made, f"a combination of the following: {roles}")


def sum(variables: Sequence[Variable]) -> Variable:
    """Several losses as one; criticism of it goes to each unchanged."""
    return _listed(_SUM, variables)


def aggregate(variables: Sequence[Variable]) -> Variable:
    """The same, but where criticism of several meets, a model makes one text of it."""
    return _listed(_AGGREGATE, variables)
