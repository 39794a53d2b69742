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

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Feedback as CoreFeedback
from sharpen.core.feedback import Trial
from sharpen.core.lm.errors import ReplyError
from sharpen.core.problem import Objective
from sharpen.core.space import Space
from sharpen.text.asking import Asker
from sharpen.text.listing import elided, shown
from sharpen.text.module import Module
from sharpen.text.optimizers.base import SCORE, Pending, Suggestion, TextOptimizer, said_of
from sharpen.text.optimizers.variables import Variable
from sharpen.text.parameter import Parameter
from sharpen.text.reply import between
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
        parameters: what to change: a module, parameters, or a space.
        lm: the model that rewrites.
        objectives: the score.
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
        seed: of the draws of a model above temperature 0.
        start: the values that are improved on: those told of ``last``, or the ``best`` so far.
        atomic: set all new values or none.

    Raises:
        ConfigError: an option makes no sense.
    """

    name: ClassVar[str] = "textgrad"

    def __init__(
        self,
        parameters: Module | Sequence[Parameter] | Space,
        lm: Any,
        *,
        objectives: Sequence[Objective] = (SCORE,),
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
        seed: int = 0,
        start: Literal["last", "best"] = "last",
        atomic: bool = False,
    ) -> None:
        super().__init__(parameters, objectives, seed=seed, start=start, atomic=atomic)
        for name, value in (("memory", memory), ("momentum", momentum), ("retries", retries)):
            if value < 0:
                raise ConfigError(f"{name}={value} must be at least 0 (TGD).")
        if not all(tags) or tags[0] == tags[1]:
            raise ConfigError(f"tags must be two different texts, got {tags!r} (TGD).")
        self.lm = lm
        self.propagator = propagator
        self.rules = tuple(constraints)
        self.memory = memory
        self.momentum = momentum
        self.examples = tuple(examples)
        self.tags = tags
        self.retries = retries
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.concurrency = concurrency
        self._propagated = (0, 0)

    def has_feedback(self) -> bool:
        """Whether something arrived at a parameter."""
        return super().has_feedback() or any(p.messages for p in self.trainable())

    def evidence(self, pending: Pending) -> CoreFeedback:
        """What was said, with the criticism that arrives at each parameter.

        It is propagated now, or was before by ``backward``.
        """
        if self.propagator is None:
            self.propagator = TextualPropagator(
                self.lm, concurrency=self.concurrency, temperature=self.temperature
            )
        asker = self.propagator.asker
        before = (asker.calls, asker.tokens)
        found = {p.id: list(p.messages) for p in self.trainable()}
        for parameter, messages in sweep(pending, self.propagator):
            if parameter.id in found:
                found[parameter.id].extend(messages)
        criticism = {}
        for parameter in self.trainable():
            messages = found[parameter.id]
            merged = self.propagator.merge(parameter, messages) if messages else ()
            criticism[self.names[parameter.id]] = [[one.text, one.context] for one in merged]
        self._propagated = (asker.calls - before[0], asker.tokens - before[1])
        feedback = super().evidence(pending)
        return replace(feedback, info={**feedback.info, "criticism": criticism})

    def suggest(self, number: int, base: Trial) -> Suggestion:
        """New values, one call for each variable that was criticized."""
        frozen = self.frozen()
        tasks = []
        for name, variable in self.variables.items():
            criticism = _criticism(base, name)
            if criticism and name in base.config and name not in frozen:
                tasks.append(_Task(variable, base.config[name], criticism, base.number))
        sampling = self.sampling(number, self.temperature)
        asker = Asker(self.lm, max_tokens=self.max_tokens, **sampling)
        with ThreadPoolExecutor(max(1, min(self.concurrency, len(tasks)))) as pool:
            results = list(pool.map(lambda task: self._rewrite(asker, task), tasks))
        (calls, tokens), self._propagated = self._propagated, (0, 0)
        return Suggestion(
            values={name: value for name, value, wrong in results if not wrong},
            rejected={name: wrong for name, _, wrong in results if wrong},
            calls=asker.calls + calls,
            tokens=asker.tokens + tokens,
        )

    def messages(self, task: _Task) -> list[dict[str, str]]:
        """What the model is told about one variable."""
        variable, (begin, end) = task.variable, self.tags
        name = variable.name
        role = f" It is {variable.role}." if variable.role else ""
        parts = [f"The value '{name}'.{role} Now it is:\n{shown(task.value)}"]
        for k, one in enumerate(task.criticism, start=1):
            used = f"Where it was used:\n{elided(one.context, _SHOWN)}\n" if one.context else ""
            parts.append(f"{used}Feedback {k}:\n{one.text}")
        rules = [*self.rules, *([variable.constraint] if variable.constraint else [])]
        if rules:
            parts.append("It must obey:\n" + "\n".join(f"- {rule}" for rule in rules))
        if self.examples:
            parts.append("Examples of good values:\n" + "\n".join(self.examples))
        earlier = [self.history[k] for k in sorted(self.history) if k < task.number]
        past = [_criticism(trial, name) for trial in earlier] if self.memory else []
        texts = ["\n".join(one.text for one in some) for some in past if some][-self.memory :]
        if texts:
            parts.append("Feedback of earlier steps, oldest first:\n" + "\n".join(texts))
        values = [t.config[name] for t in earlier if name in t.config] if self.momentum else []
        changed = pairwise([*values, task.value])
        values = [value for value, following in changed if value != following]
        if values:
            parts.append(
                "Earlier values, oldest first:\n"
                + "\n".join(f"- {shown(value)}" for value in values[-self.momentum :])
                + "\nWhere the feedback says the same again, change more than before."
            )
        parts.append(f"The improved value, between {begin} and {end}:")
        return [
            {"role": "system", "content": _SYSTEM.format(begin=begin, end=end)},
            {"role": "user", "content": "\n\n".join(parts)},
        ]

    def _rewrite(self, asker: Asker, task: _Task) -> tuple[str, Any, str]:
        """Name, new value, and why there is none."""
        messages, name = self.messages(task), task.variable.name
        begin, end = self.tags
        wrong = ""
        for _ in range(self.retries + 1):
            text = asker(messages)
            try:
                return name, task.variable.validated(between(text, begin, end)), ""
            except (ReplyError, ConfigError) as error:
                wrong = str(error)
            messages = [
                *messages,
                {"role": "assistant", "content": text[:_SHOWN] or "(nothing)"},
                {"role": "user", "content": f"That cannot be used: {wrong}. Write it again."},
            ]
        return name, None, wrong


@dataclass(frozen=True, slots=True)
class _Task:
    variable: Variable
    value: Any
    criticism: tuple[TextGradient, ...]
    number: int


def _criticism(trial: Trial, name: str) -> tuple[TextGradient, ...]:
    """What was said of one variable; of the whole program where nothing was propagated."""
    info = trial.feedback.info if trial.feedback is not None else {}
    propagated = info.get("criticism")
    if propagated is None:
        return tuple(TextGradient(text=text) for text in said_of(trial))
    return tuple(TextGradient(text=t, context=c) for t, c in propagated.get(name, ()))


TextGrad = TGD
"""The same under the name of the paper."""
