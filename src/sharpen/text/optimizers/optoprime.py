"""OptoPrime: one call of a model reads the program, its values and the feedback, and proposes.

Cheng, Nie and Swaminathan, *Trace is the Next AutoDiff: Generative Optimization with Rich Feedback,
Execution Traces, and LLMs*, NeurIPS 2024 (arXiv 2406.16218), section 4.

::

    tau   = (feedback, minimal subgraph of the outputs)      what the trace oracle returns
    theta = A(theta, tau)                                    one reply with new values

Differs from the paper: several outputs in one step are shown side by side; a reply that cannot be
read is shown to the model with the reason, a bounded number of times; values are checked by their
kind, space and rule before any is set; the prompt can be held to a number of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.lm.errors import ReplyError
from sharpen.core.problem import Objective
from sharpen.core.space import Space
from sharpen.text.asking import Asker
from sharpen.text.module import Module
from sharpen.text.optimizers.base import (
    SCORE,
    Suggestion,
    TextOptimizer,
    record_of,
    said_of,
)
from sharpen.text.optimizers.problem import Problem
from sharpen.text.optimizers.variables import Variable
from sharpen.text.parameter import Parameter
from sharpen.text.reply import parse_suggestion

__all__ = ["OptoPrime"]

OBJECTIVE = (
    "Change the values of the variables in #Variables so that the output becomes better, as"
    " #Feedback says."
)

READING = """\
You improve a program by changing the values of its variables. The program is shown in sections:
- #Instruction: what you are asked to do.
- #Code: the operations that were run, one per line, in order.
- #Documentation: what each operation of #Code does, in short. Values in #Others show more.
- #Variables: the values that you can change.
- #Constraints: what must hold of them.
- #Inputs: values that come from elsewhere; you cannot change them.
- #Others: values that the operations made on the way.
- #Outputs: what came out.
- #Feedback: what was said about the outputs.
Values are written as: (type) name = value. Of the type (code), the value is the source of a Python
function, from the next line on. Where a section has parts [1], [2] ..., these are separate runs."""

FORMATS = {
    "json": """\
Reply with one JSON object and nothing else:
{"reasoning": "...", "answer": "...", "suggestion": {"<variable>": <new value>, ...}}
- reasoning: what the feedback means for each variable, given how #Code uses it.
- answer: only if #Instruction asks for an answer.
- suggestion: new values, by the names of #Variables; leave out what should stay. Code must keep the
  name and the arguments of its function.
If nothing should change, reply with the single word TERMINATE.""",
    "xml": """\
Reply in tags:
<reasoning>what the feedback means for each variable, given how #Code uses it</reasoning>
<variable name="...">its new value, as it is, without quotes or escapes</variable>
One tag for each variable that should change, by the names of #Variables. Code must keep the name
and the arguments of its function. <answer>...</answer> only if #Instruction asks for an answer.
If nothing should change, reply with the single word TERMINATE.""",
}

_UNREADABLE = """\
Your reply could not be read: {reason}
Write it again in the required form, complete, with nothing around it."""


class OptoPrime(TextOptimizer):
    """Proposes values by one call of a model that reads the minimal subgraph and the feedback.

    Args:
        parameters: what to change: a module, parameters, or a space.
        lm: the model: ``LM``, an engine, or what ``LM`` takes.
        objectives: the score.
        objective: the instruction.
        memory: how many earlier pairs of values and feedback are shown.
        max_tokens: of a reply; None leaves it to the model's client.
        format: how replies are written: ``json``, or ``xml``, which small models and long code
            find easier.
        mask: sections that are left empty.
        retries: how often a reply that cannot be read is asked for again.
        examples: texts with solved problems, shown before the problem.
        value_limit: longest value shown outside of the variables, in characters.
        max_prompt_tokens: most tokens of the problem's text; values are cut until it fits.
        temperature: of the model.
        seed: of the draws of a model above temperature 0.
        start: the values that are improved on: those told of ``last``, or the ``best`` so far.
        atomic: set all proposed values or none.

    Raises:
        ConfigError: an option makes no sense.
    """

    name: ClassVar[str] = "optoprime"

    def __init__(
        self,
        parameters: Module | Sequence[Parameter] | Space,
        lm: Any,
        *,
        objectives: Sequence[Objective] = (SCORE,),
        objective: str = OBJECTIVE,
        memory: int = 0,
        max_tokens: int | None = 4096,
        format: Literal["json", "xml"] = "json",
        mask: Iterable[str] = (),
        retries: int = 1,
        examples: Sequence[str] = (),
        value_limit: int = 2000,
        max_prompt_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        start: Literal["last", "best"] = "last",
        atomic: bool = False,
    ) -> None:
        super().__init__(parameters, objectives, seed=seed, start=start, atomic=atomic)
        if format not in FORMATS:
            raise ConfigError(f"format must be json or xml, got {format!r} (OptoPrime).")
        for name, value in (("memory", memory), ("retries", retries)):
            if value < 0:
                raise ConfigError(f"{name}={value} must be at least 0 (OptoPrime).")
        self.lm = lm
        self.objective = objective
        self.memory = memory
        self.max_tokens = max_tokens
        self.format = format
        self.mask = tuple(mask)
        self.retries = retries
        self.examples = tuple(examples)
        self.value_limit = value_limit
        self.max_prompt_tokens = max_prompt_tokens
        self.temperature = temperature

    def suggest(self, number: int, base: Trial) -> Suggestion:
        """New values from one reply."""
        sampling = self.sampling(number, self.temperature)
        asker = Asker(self.lm, max_tokens=self.max_tokens, **sampling)
        suggestion = self._read(asker, self.messages(base))
        return replace(suggestion, calls=asker.calls, tokens=asker.tokens)

    def messages(self, base: Trial) -> list[dict[str, str]]:
        """What the model is told."""
        parts = []
        if self.examples:
            parts.append("Solved problems, as examples:\n\n" + "\n\n".join(self.examples))
        parts.append(
            self.problem(base).render(
                self.mask, value_limit=self.value_limit, max_tokens=self.max_prompt_tokens
            )
        )
        parts += self._earlier(base) + self._under_way()
        parts.append("Your reply:")
        return [
            {"role": "system", "content": f"{READING}\n\n{FORMATS[self.format]}"},
            {"role": "user", "content": "\n\n".join(parts)},
        ]

    def problem(self, base: Trial) -> Problem:
        """The program, its values and what was said, of one trial."""
        info = base.feedback.info if base.feedback is not None else {}
        return Problem(
            info.get("programs", ()), said_of(base), base.config, self._open(), self.objective
        )

    def _open(self) -> list[Variable]:
        frozen = self.frozen()
        return [one for name, one in self.variables.items() if name not in frozen]

    def _earlier(self, base: Trial) -> list[str]:
        """The last trials before, where some are to be shown."""
        before = [self.history[k] for k in sorted(self.history) if k != base.number]
        shown = before[-self.memory :] if self.memory else []
        if not shown:
            return []
        records = "\n".join(json.dumps(record_of(one), ensure_ascii=False) for one in shown)
        return [f"Earlier values and what was said about them, oldest first:\n{records}"]

    def _under_way(self) -> list[str]:
        """What is being judged at this time, where several are."""
        running = [self.pending[k].config for k in sorted(self.pending)]
        if not running:
            return []
        records = "\n".join(json.dumps(one, ensure_ascii=False) for one in running)
        return [f"Being judged now, so propose something else:\n{records}"]

    def _read(self, asker: Asker, messages: list[dict[str, str]]) -> Suggestion:
        for left in range(self.retries, -1, -1):
            text = asker(messages, json=self.format == "json" and asker.calls == 0)
            try:
                return parse_suggestion(text, cut=text.cut)
            except ReplyError as error:
                if left == 0:
                    return Suggestion(rejected={"reply": str(error)})
                reason = str(error).split(" It was: ", maxsplit=1)[0]
                messages = [
                    *messages,
                    {"role": "assistant", "content": text[:_SHOWN] or "(nothing)"},
                    {"role": "user", "content": _UNREADABLE.format(reason=reason)},
                ]
        raise AssertionError


_SHOWN = 4000  # characters of a reply that cannot be read, to the model that wrote it
