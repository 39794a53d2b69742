"""Textual gradient descent: each parameter is rewritten by a model that reads its criticism.

Yuksekgonul et al., *TextGrad: Automatic "Differentiation" via Text*, 2024 (arXiv 2406.07496),
section 3.3.

::

    x_new = rewrite(x, dL/dx [, constraints, earlier criticism, earlier values])

Differs from the paper: a constraint may carry a check, and a value that breaks it is asked for once
more with the reason, then left; a reply without the tags is asked for again; parameters without
criticism are left alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.text.asking import Asker
from sharpen.text.feedback import Feedback
from sharpen.text.listing import elided, shown
from sharpen.text.nodes import Node
from sharpen.text.optimizers.base import Suggestion, TextOptimizer
from sharpen.text.parameter import Parameter
from sharpen.text.reply import without_fence
from sharpen.text.sweep import sweep
from sharpen.text.textual import TextGradient, TextualPropagator

__all__ = ["TGD", "TextGrad"]

_SHOWN = 4000  # characters of a reply or context that a model is shown

_SYSTEM = """\
You improve one value of a program by the feedback it was given. Reply with the improved value
between {begin} and {end}, whole and as it should be used, with nothing else inside the tags."""


class TGD(TextOptimizer):
    """Rewrites each parameter by one call of a model.

    Args:
        parameters: what to change.
        lm: the model that rewrites.
        propagator: how feedback travels; without one, the model writes it for each edge.
        constraints: words that every new value must obey, beside the parameters' own.
        memory: how many earlier steps' criticism is shown.
        momentum: how many earlier values are shown, with the demand for a larger change where the
            criticism repeats; 0 shows none.
        examples: of good values, shown as hints.
        tags: what the new value stands between.
        retries: how often a reply without the tags, or a value that is refused, is asked for again.
        max_tokens: of a reply.
        temperature: of the model.
        concurrency: calls at once.
        atomic: set all new values or none.

    Raises:
        ConfigError: an option makes no sense.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        lm: Any,
        *,
        propagator: TextualPropagator | None = None,
        constraints: Sequence[str] = (),
        memory: int = 0,
        momentum: int = 0,
        examples: Sequence[str] = (),
        tags: tuple[str, str] = ("<NEW>", "</NEW>"),
        retries: int = 1,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        concurrency: int = 16,
        atomic: bool = False,
    ) -> None:
        super().__init__(parameters, atomic=atomic)
        for name, value in (("memory", memory), ("momentum", momentum), ("retries", retries)):
            if value < 0:
                raise ConfigError(f"{name}={value} must be at least 0 (TGD).")
        if not all(tags) or tags[0] == tags[1]:
            raise ConfigError(f"tags must be two different texts, got {tags!r} (TGD).")
        self.lm = lm
        self.propagator = propagator or TextualPropagator(
            lm, concurrency=concurrency, temperature=temperature
        )
        self.constraints = tuple(constraints)
        self.momentum = momentum
        self.examples = tuple(examples)
        self.tags = tags
        self.retries = retries
        self.sampling = {"temperature": temperature, "max_tokens": max_tokens}
        self.concurrency = concurrency
        self.past: dict[str, deque[str]] = {
            name: deque(maxlen=memory) for name in self.names.values()
        }

    def pending_messages(self, pending: Sequence[tuple[Node, Feedback]]) -> dict[int, list[Any]]:
        """By id of a parameter, what arrived there: propagated now, or before by ``backward``."""
        found = {p.id: list(p.messages) for p in self.trainable()}
        for parameter, messages in sweep(pending, self.propagator):
            if parameter.id in found:
                found[parameter.id].extend(messages)
        return found

    def has_feedback(self) -> bool:
        """Whether something arrived at a parameter."""
        return super().has_feedback() or any(p.messages for p in self.trainable())

    def propose(self, pending: Sequence[tuple[Node, Feedback]]) -> Suggestion:
        """New values, one call for each parameter that was criticized."""
        before = (self.propagator.asker.calls, self.propagator.asker.tokens)
        arrived = self.pending_messages(pending)
        tasks = []
        for parameter in self.trainable():
            messages = arrived[parameter.id]
            if messages:
                merged = self.propagator.merge(parameter, messages)
                if merged:
                    tasks.append(_Task(parameter, self.names[parameter.id], merged))
        asker = Asker(self.lm, **self.sampling)
        with ThreadPoolExecutor(max(1, min(self.concurrency, len(tasks)))) as pool:
            results = list(pool.map(lambda task: self._rewrite(asker, task), tasks))
        for task in tasks:
            self.past[task.name].append("\n".join(one.text for one in task.criticism))
        return Suggestion(
            values={name: value for name, value, wrong in results if not wrong},
            rejected={name: wrong for name, _, wrong in results if wrong},
            calls=asker.calls + self.propagator.asker.calls - before[0],
            tokens=asker.tokens + self.propagator.asker.tokens - before[1],
        )

    def messages(self, task: _Task) -> list[dict[str, str]]:
        """What the model is told about one parameter."""
        parameter, (begin, end) = task.parameter, self.tags
        role = f" It is {parameter.role}." if parameter.role else ""
        parts = [f"The value '{task.name}'.{role} Now it is:\n{shown(parameter._value)}"]
        for k, one in enumerate(task.criticism, start=1):
            used = f"Where it was used:\n{elided(one.context, _SHOWN)}\n" if one.context else ""
            parts.append(f"{used}Feedback {k}:\n{one.text}")
        rules = [*self.constraints, *([parameter.constraint] if parameter.constraint else [])]
        if rules:
            parts.append("It must obey:\n" + "\n".join(f"- {rule}" for rule in rules))
        if self.examples:
            parts.append("Examples of good values:\n" + "\n".join(self.examples))
        past = self.past[task.name]
        if past:
            parts.append("Feedback of earlier steps, oldest first:\n" + "\n".join(past))
        values = list(parameter.history)[-self.momentum :] if self.momentum else []
        if values:
            parts.append(
                "Earlier values, oldest first:\n"
                + "\n".join(f"- {shown(value)}" for value in values)
                + "\nWhere the feedback says the same again, change more than before."
            )
        parts.append(f"The improved value, between {begin} and {end}:")
        return [
            {"role": "system", "content": _SYSTEM.format(begin=begin, end=end)},
            {"role": "user", "content": "\n\n".join(parts)},
        ]

    def _rewrite(self, asker: Asker, task: _Task) -> tuple[str, Any, str]:
        """Name, new value, and why there is none."""
        messages = self.messages(task)
        begin, end = self.tags
        wrong = ""
        for _ in range(self.retries + 1):
            text = asker(messages)
            start, stop = text.find(begin), text.rfind(end)
            if start < 0 or stop < start:
                wrong = f"the reply has no value between {begin} and {end}"
            else:
                value = without_fence(text[start + len(begin) : stop].strip())
                try:
                    return task.name, task.parameter.validated(value), ""
                except ConfigError as error:
                    wrong = str(error)
            messages = [
                *messages,
                {"role": "assistant", "content": text[:_SHOWN] or "(nothing)"},
                {"role": "user", "content": f"That cannot be used: {wrong}. Write it again."},
            ]
        return task.name, None, wrong

    def state_dict(self) -> dict[str, Any]:
        """Values, steps, earlier criticism and values."""
        return super().state_dict() | {
            "past": {name: list(texts) for name, texts in self.past.items()},
            "history": {self.names[p.id]: list(p.history) for p in self.parameters},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        for name, texts in state.get("past", {}).items():
            self.past[name] = deque(texts, maxlen=self.past[name].maxlen)
        for parameter in self.parameters:
            values = state.get("history", {}).get(self.names[parameter.id], ())
            parameter.history.clear()
            parameter.history.extend(values)


@dataclass(frozen=True, slots=True)
class _Task:
    parameter: Parameter
    name: str
    criticism: tuple[TextGradient, ...]


TextGrad = TGD
"""The same under the name of the paper."""
