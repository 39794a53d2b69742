"""Feedback as words that a model writes for each input of an operation.

Yuksekgonul, Bianchi, Boen, Liu, Huang, Guestrin and Zou, *TextGrad: Automatic "Differentiation" via
Text*, 2024 (arXiv 2406.07496), section 3.

::

    dL/dx = criticism(x, y, L)           where y is the judgement itself (nothing was said on it)
    dL/dx = criticism(x, y, dL/dy)       else; one call of the model for each edge
    dL/dx = union of the criticisms over the operations that use x

Differs from the paper: equal criticisms count once and each is worked on once, so words grow
linearly with the depth of a program, not exponentially; edges of a round are asked for at once; an
operation with a rule of its own (``op(backward=...)``) needs no model; the model may say that an
input needs no change, and then it and what is behind it are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sharpen.core.errors import ConfigError
from sharpen.text.asking import Asker
from sharpen.text.feedback import Feedback
from sharpen.text.listing import elided, shown
from sharpen.text.nodes import Node
from sharpen.text.sweep import Propagator

__all__ = ["TextGradient", "TextualPropagator"]

_SYSTEM = """\
You are part of a system that improves a program of operations on text by feedback. You look at one
operation and write feedback for one of its inputs: what about that input should change, and how, so
that the operation's output becomes better. Do not write the improved input itself. Be specific and
short; name what is good enough to stay only where it would be lost otherwise. If the input needs no
change, reply with the single word NOTHING."""

_CHARS_PER_TOKEN = 4
_VALUE = 4000  # characters of a value that a model is shown
_NOTHING = re.compile(r"\W*NOTHING\W*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextGradient:
    """Criticism of a value."""

    text: str
    """What should change."""

    context: str = ""
    """The operation in which the value was used, as text."""


Message = tuple[TextGradient, ...]


class TextualPropagator(Propagator[Message]):
    """Has a model write feedback for each input that leads to a parameter.

    Args:
        lm: the model.
        reduce: ``concat`` keeps what several users of a value say side by side; ``summarize`` has
            the model make one text of it, with one more call.
        max_grad_tokens: longest criticism that is passed on, by four characters a token.
        concurrency: calls at once.
        temperature: of the model.

    Attributes:
        asker: counts the calls and tokens so far.
    """

    def __init__(
        self,
        lm: Any,
        *,
        reduce: Literal["concat", "summarize"] = "concat",
        max_grad_tokens: int = 2000,
        concurrency: int = 16,
        temperature: float = 0.0,
    ) -> None:
        if reduce not in ("concat", "summarize"):
            raise ConfigError(f"reduce must be concat or summarize, got {reduce!r}.")
        if max_grad_tokens < 1 or concurrency < 1:
            raise ConfigError("max_grad_tokens and concurrency must be at least 1.")
        self.asker = Asker(lm, temperature=temperature)
        self.reduce = reduce
        self.max_chars = max_grad_tokens * _CHARS_PER_TOKEN
        self.concurrency = concurrency

    def start(self, output: Node, feedback: Feedback) -> Message:
        """What was said on the output; nothing where it is itself the judgement."""
        said = feedback.render()
        return (TextGradient(text=said),) if said else ()

    def merge(self, node: Node, messages: Sequence[Message]) -> Message:
        """The criticisms that arrived, each once; one text of them where they are summarized."""
        union = tuple(dict.fromkeys(one for message in messages for one in message))
        if self.reduce == "concat" or len(union) < 2:
            return union
        listed = "\n".join(f"- {one.text}" for one in union)
        prompt = (
            f"Several operations use one value{_role(node)}. Each gave feedback for it:\n{listed}"
            "\n\nWrite one short feedback that keeps what they agree on and every point that only"
            " one of them makes. Write nothing but the feedback."
        )
        text = elided(self.asker(prompt).strip(), self.max_chars)
        return (TextGradient(text=text),)

    def push(self, node: Node, slot: int, message: Message) -> Message | None:
        """The criticism of one input; None where it needs no change."""
        operation = node.operation
        assert operation is not None
        if operation.kind == "sum":
            return message
        said = "\n".join(one.text for one in message)
        if operation.backward is not None:
            values = [parent._value for parent in node.inputs]
            words = operation.backward(said, node._value, *values)[slot : slot + 1]
            if not words or not words[0]:
                return None
            return (TextGradient(text=elided(words[0], self.max_chars), context=_use(node, slot)),)
        use = _use(node, slot)
        judged = (
            f"Feedback on the output:\n{said}\n\nGoal: the output should follow this feedback."
            if said
            else "The output is a judgement. Goal: the judgement should become better."
        )
        prompt = (
            f"{use}\n\n{judged}\n\nWrite feedback for the input"
            f" '{_name(node, slot)}'{_role(node.inputs[slot])}:"
            f"\n{_value(node.inputs[slot])}"
        )
        messages = [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": prompt},
        ]
        text = elided(self.asker(messages).strip(), self.max_chars)
        if not text or _NOTHING.fullmatch(text):
            return None
        return (TextGradient(text=text, context=use),)


def _name(node: Node, slot: int) -> str:
    assert node.call_record is not None
    return node.inputs[slot].name or node.call_record.names[slot]


def _role(node: Node) -> str:
    return f", which is {node.role}" if node.role else ""


def _value(node: Node) -> str:
    return elided(shown(node._value), _VALUE)


def _use(node: Node, slot: int) -> str:
    """An operation with its inputs and output, as text."""
    operation = node.operation
    assert operation is not None
    lines = [f"Operation: {operation.name} ({operation.doc})"]
    for k, parent in enumerate(node.inputs):
        mark = " (the input in question)" if k == slot else ""
        lines.append(f"Input '{_name(node, k)}'{_role(parent)}{mark}:\n{_value(parent)}")
    lines.append(f"Output{_role(node)}:\n{_value(node)}")
    return "\n".join(lines)
