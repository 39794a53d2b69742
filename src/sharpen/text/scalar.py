"""Feedback as numbers: derivatives of a program that computes one.

The chain rule over recorded operations: at each node the cotangents of its users are added, and an
operation's ``vjp`` gives those of its inputs. Where an operation has none, a derivative is measured
by central differences if that is asked for: ``(f(x + h) - f(x - h)) / 2h`` with
``h = eps^(1/3) max(1, |x|)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.text.feedback import Feedback
from sharpen.text.nodes import Node
from sharpen.text.sweep import Propagator

__all__ = ["ScalarPropagator"]

_STEP = 6.0554544523933395e-06  # cube root of the spacing of float64 at 1


class ScalarPropagator(Propagator[Any]):
    """Sends back derivatives; a parameter's message is the derivative of the output by it.

    The feedback's score is the cotangent of the output, 1 without one; numbers, NumPy arrays and
    torch tensors all do.

    Args:
        differences: measure by central differences what has no derivative of its own.
    """

    def __init__(self, *, differences: bool = False) -> None:
        self.differences = differences

    def start(self, output: Node, feedback: Feedback) -> Any:
        """The score, or 1."""
        return 1.0 if feedback.score is None else feedback.score

    def merge(self, node: Node, messages: Sequence[Any]) -> Any:
        """The sum of what arrived."""
        total = messages[0]
        for message in messages[1:]:
            total = total + message
        return total

    def push(self, node: Node, slot: int, message: Any) -> Any:
        """The cotangent of one input.

        Raises:
            ConfigError: the operation has no derivative, and none may be measured.
        """
        operation = node.operation
        assert operation is not None
        values = [parent._value for parent in node.inputs]
        if operation.vjp is not None:
            return operation.vjp(message, node._value, *values)[slot]
        x = values[slot]
        measurable = isinstance(x, float) and isinstance(node._value, (int, float))
        if not (self.differences and measurable and operation.function is not None):
            raise ConfigError(
                f"the operation '{operation.name}' has no derivative by its input"
                f" '{node.call_record.names[slot] if node.call_record else slot}'. Give it one,"
                " op(vjp=...), or measure it for floats: ScalarPropagator(differences=True)."
            )
        h = _STEP * max(1.0, abs(x))
        high, low = list(values), list(values)
        high[slot], low[slot] = x + h, x - h
        return message * (operation.function(*high) - operation.function(*low)) / (2 * h)
