"""Calls of models, judgements and plain functions on variables, in TextGrad's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.text.compat.textgrad.variable import Variable, engine_of
from sharpen.text.nodes import Operation
from sharpen.text.record import Op

__all__ = [
    "BlackboxLLM",
    "FormattedLLMCall",
    "LLMCall",
    "Module",
    "MultiChoiceTestTime",
    "MultiFieldEvaluation",
    "MultiFieldTokenParsedEvaluation",
    "StringBasedFunction",
    "TextLoss",
]

_REPLY_ROLE = "response from the language model"


class Module:
    """Base of what is called with variables and has some as parameters."""

    def parameters(self) -> list[Variable]:
        """The variables that may be rewritten, also those of modules within."""
        found: list[Variable] = []
        for one in vars(self).values():
            if isinstance(one, Variable):
                found.append(one)
            elif isinstance(one, Module):
                found.extend(one.parameters())
        return list(dict.fromkeys(found))

    def named_parameters(self) -> Iterator[tuple[str, Variable]]:
        """Their roles with them."""
        return ((one.role_description, one) for one in self.parameters())

    def zero_grad(self) -> None:
        """Forget what was said about them."""
        for one in self.parameters():
            one.reset_gradients()

    def forward(self, *given: Any, **named: Any) -> Any:
        """What a call does."""
        raise NotImplementedError(f"{type(self).__name__} needs forward(...).")

    def __call__(self, *given: Any, **named: Any) -> Any:
        """The same as :meth:`forward`."""
        return self.forward(*given, **named)


class FormattedLLMCall(Module):
    """A model's reply to a text with fields.

    Args:
        engine: the model.
        format_string: with a ``{name}`` for each field; what is put in may hold braces.
        fields: names of the fields.
        system_prompt: what the model is told first.
    """

    def __init__(
        self,
        engine: Any = None,
        format_string: str = "{prompt}",
        fields: Mapping[str, Any] | None = None,
        system_prompt: Variable | None = None,
    ) -> None:
        self.engine = engine_of(engine)
        self.format_string = format_string
        self.fields = dict(fields or {"prompt": None})
        self.system_prompt = system_prompt

    def forward(
        self, inputs: Mapping[str, Variable], response_role_description: str = _REPLY_ROLE
    ) -> Variable:
        """The reply.

        Raises:
            ConfigError: other fields are given than the text has.
        """
        if set(inputs) != set(self.fields):
            raise ConfigError(f"expected the fields {list(self.fields)}, got {list(inputs)}.")
        system_name = next(n for n in ("system", "system_prompt", "system_") if n not in inputs)

        def reply(**given: Any) -> str:
            messages = [{"role": "system", "content": str(given.pop(system_name, ""))}]
            text = self.format_string.format(**{name: str(v) for name, v in given.items()})
            messages.append({"role": "user", "content": text})
            return self.engine(messages if messages[0]["content"] else text)

        doc = "a language model's reply"
        nodes = {name: one.node for name, one in inputs.items()}
        if self.system_prompt is not None:
            nodes = {system_name: self.system_prompt.node, **nodes}
        made = Op(reply, Operation("llm", doc, kind="llm", function=reply))(**nodes)
        return Variable.of(made, response_role_description)


class LLMCall(FormattedLLMCall):
    """A model's reply to a prompt."""

    def __init__(self, engine: Any = None, system_prompt: Variable | None = None) -> None:
        super().__init__(engine, system_prompt=system_prompt)

    def forward(  # type: ignore[override]
        self, prompt: Variable, response_role_description: str = _REPLY_ROLE
    ) -> Variable:
        """The reply."""
        return super().forward({"prompt": prompt}, response_role_description)


class BlackboxLLM(LLMCall):
    """A model with a system prompt, which is its parameter."""

    def __init__(self, engine: Any = None, system_prompt: Variable | str | None = None) -> None:
        super().__init__(engine, _prompt(system_prompt, "system prompt for the language model"))


class TextLoss(LLMCall):
    """A model's judgement of a text by an instruction."""

    def __init__(self, eval_system_prompt: Variable | str, engine: Any = None) -> None:
        super().__init__(engine, _prompt(eval_system_prompt, "system prompt for the evaluation"))


def _prompt(given: Variable | str | None, role: str) -> Variable | None:
    if given is None or isinstance(given, Variable):
        return given
    return Variable(given, requires_grad=False, role_description=role)


class MultiFieldEvaluation(FormattedLLMCall):
    """A model's judgement of several texts, each named by its role.

    Args:
        evaluation_instruction: how to judge.
        role_descriptions: of the texts.
        engine: the model.
        system_prompt: what it is told first.
    """

    def __init__(
        self,
        evaluation_instruction: Variable,
        role_descriptions: Sequence[str],
        engine: Any = None,
        system_prompt: Variable | None = None,
    ) -> None:
        self.evaluation_instruction = evaluation_instruction
        self.role_descriptions = list(role_descriptions)
        names = [f"field_{k}" for k in range(len(self.role_descriptions))]
        shown = [
            f"**{role}**: {{{n}}}" for n, role in zip(names, self.role_descriptions, strict=True)
        ]
        told = "You are an evaluation system that compares two variables."
        super().__init__(
            engine,
            "\n".join(["{instruction}", *shown]),
            dict.fromkeys(["instruction", *names]),
            system_prompt or _prompt(told, "system prompt for the evaluation"),
        )

    def forward(self, inputs: Sequence[Variable]) -> Variable:  # type: ignore[override]
        """The judgement of texts, in the order of their roles."""
        for one, role in zip(inputs, self.role_descriptions, strict=True):
            one.set_role_description(role)
        given = {f"field_{k}": one for k, one in enumerate(inputs)}
        instruction = self.evaluation_instruction
        return super().forward({"instruction": instruction, **given}, "evaluation of a prediction")


class MultiFieldTokenParsedEvaluation(MultiFieldEvaluation):
    """The same, with a result between two tags.

    Args:
        given: those of :class:`MultiFieldEvaluation`.
        parse_tags: the two tags.
    """

    def __init__(self, *given: Any, parse_tags: tuple[str, str], **named: Any) -> None:
        super().__init__(*given, **named)
        self.parse_tags = parse_tags

    def parse_output(self, response: Variable) -> str:
        """What stands between the tags.

        Raises:
            ConfigError: one of them is missing.
        """
        begin, end = self.parse_tags
        _, opened, rest = response.value.partition(begin)
        text, closed, _ = rest.partition(end)
        if not opened or not closed:
            raise ConfigError(f"the reply has nothing between {begin} and {end}.")
        return text.strip()


class MultiChoiceTestTime(FormattedLLMCall):
    """A model's criticism of an answer to a question of choices.

    Args:
        evaluation_instruction: how to judge.
        engine: the model.
        system_prompt: what it is told first.
    """

    def __init__(
        self,
        evaluation_instruction: str,
        engine: Any = None,
        system_prompt: Variable | None = None,
    ) -> None:
        told = (
            "You judge answers to questions of multiple choice. Look for mistakes in the reasoning"
            " and in the answer, and name them; do not solve the question."
        )
        self.evaluation_instruction = _prompt(evaluation_instruction, "how an answer is judged")
        super().__init__(
            engine,
            "{instruction}\nQuestion: {question}\nAnswer: {prediction}",
            dict.fromkeys(["instruction", "question", "prediction"]),
            system_prompt or _prompt(told, "system prompt for the evaluation"),
        )

    def forward(self, question: str, prediction: Variable) -> Variable:  # type: ignore[override]
        """The criticism."""
        assert self.evaluation_instruction is not None
        asked = Variable(question, requires_grad=False, role_description="the question")
        given = {"instruction": self.evaluation_instruction, "question": asked}
        role = f"evaluation of the {prediction.role_description}"
        return super().forward({**given, "prediction": prediction}, role)


class StringBasedFunction(Module):
    """A plain function whose inputs are criticized by what it is for.

    Args:
        fn: takes variables by name.
        function_purpose: what it is for.
    """

    def __init__(self, fn: Callable[..., Any], function_purpose: str) -> None:
        self.fn = fn
        self.function_purpose = function_purpose

    def forward(
        self, inputs: Mapping[str, Variable], response_role_description: str = ""
    ) -> Variable:
        """What the function gives."""
        roles = {name: one.role_description for name, one in inputs.items()}

        def run(**given: Any) -> str:
            plain = {
                name: Variable(value, requires_grad=False, role_description=roles[name])
                for name, value in given.items()
            }
            return str(self.fn(**plain))

        operation = Operation("function", self.function_purpose, function=run)
        made = Op(run, operation)(**{name: one.node for name, one in inputs.items()})
        return Variable.of(made, response_role_description or self.function_purpose)
