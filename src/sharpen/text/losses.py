"""Judgements of outputs that feedback starts from: by a model, or by a metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.text.asking import as_lm
from sharpen.text.feedback import Feedback, as_feedback
from sharpen.text.nodes import Node, Operation
from sharpen.text.record import Op, record

__all__ = ["MetricLoss", "TextLoss", "textsum"]


class TextLoss:
    """A model's judgement of an output by an instruction.

    Args:
        instruction: how to judge; a parameter where it is to be optimized too.
        lm: the model.
        sampling: parameters of the requests.

    Examples:
        >>> from sharpen.core.lm import Scripted
        >>> loss = TextLoss("Is the answer right?", Scripted(["No: 2 + 2 is 4."]))
        >>> loss(Parameter("5")).value
        'No: 2 + 2 is 4.'
    """

    def __init__(self, instruction: Node | str, lm: Any, **sampling: Any) -> None:
        self.lm = as_lm(lm)
        self.instruction = (
            Node(instruction, "instruction", role="how the output is judged")
            if isinstance(instruction, str)
            else instruction
        )

        def judge(output: Any, instruction: Any) -> str:
            """A model's judgement of the output by the instruction."""
            messages = [
                {"role": "system", "content": str(instruction)},
                {"role": "user", "content": str(output)},
            ]
            return self.lm(messages, **sampling)

        doc = "a model's judgement of the output by the instruction"
        self._op = Op(judge, Operation("judge", doc, kind="llm", function=judge))

    def __call__(self, output: Any) -> Node:
        """The judgement, a node with text."""
        return self._op(output, instruction=self.instruction)  # type: ignore[no-any-return]


class MetricLoss:
    """A metric of plain Python: its feedback passes on as it is, without a call of a model.

    Args:
        metric: called with the plain output and whatever else is given; returns a number, words
            or a :class:`~sharpen.text.Feedback`.
        name: how listings call it.
        doc: one line on what it measures.
    """

    def __init__(self, metric: Callable[..., Any], name: str = "", doc: str = "") -> None:
        if not callable(metric):
            raise ConfigError(f"a metric must be a function, got {metric!r:.80}.")

        def measure(output: Any, *given: Any) -> Feedback:
            return as_feedback(metric(output, *given))

        called = name or getattr(metric, "__name__", "metric")
        said = doc or (getattr(metric, "__doc__", None) or f"the metric {called}").strip()
        operation = Operation(
            called,
            said.splitlines()[0],
            function=measure,
            backward=lambda text, judged, *given: (
                "\n".join(part for part in (judged.render(), text) if part),
            ),
        )
        self._op = Op(measure, operation)

    def __call__(self, output: Any, *given: Any) -> Node:
        """The feedback of the metric, a node."""
        return self._op(output, *given)  # type: ignore[no-any-return]


def _joined(*texts: Any) -> str:
    return "\n".join(text.render() if isinstance(text, Feedback) else str(text) for text in texts)


_SUM = Operation("textsum", "its inputs, one below the other", kind="sum", function=_joined)


def textsum(outputs: Sequence[Any]) -> Node:
    """Several judgements as one; feedback on it goes to each of them unchanged.

    Raises:
        ConfigError: there are none.
    """
    if not outputs:
        raise ConfigError("textsum needs at least one output.")
    return record(_SUM, tuple(outputs), tuple(f"text_{k}" for k in range(len(outputs))))
