"""TextGrad's names: ``from sharpen.text.compat import textgrad as tg``.

A :class:`Variable` stands for a node of a program, the losses and models are operations of kind
``llm``, ``backward`` is :class:`~sharpen.text.textual.TextualPropagator` and ``TGD`` is
:class:`~sharpen.text.optimizers.textgrad.TGD` with TextGrad's tags. Calls and what is set are
compared with textgrad 0.1.8 on six programs.

Differs from TextGrad: a sum passes each criticism on once (there it is added twice and grows with
2^depth); ``aggregate`` reaches every one of its inputs (there the last); momentum shows the past
(there the prompt is None); a variable without criticism is left alone; a reply without tags is
asked for once more and then leaves the value as it is, with the reason in the report that ``step``
returns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.client import LM
from sharpen.text.compat.engines import EngineLM, as_engine, named_engine
from sharpen.text.feedback import as_feedback
from sharpen.text.nodes import Node, Operation
from sharpen.text.optimizers.base import StepReport
from sharpen.text.optimizers.textgrad import TGD as _TGD
from sharpen.text.parameter import Parameter
from sharpen.text.record import Op, record
from sharpen.text.sweep import ancestors, sweep
from sharpen.text.textual import Message, TextGradient, TextualPropagator

__all__ = [
    "TGD",
    "BlackboxLLM",
    "EngineLM",
    "FormattedLLMCall",
    "LLMCall",
    "Module",
    "MultiChoiceTestTime",
    "MultiFieldEvaluation",
    "MultiFieldTokenParsedEvaluation",
    "StringBasedFunction",
    "TextLoss",
    "TextualGradientDescent",
    "TextualGradientDescentwithMomentum",
    "Variable",
    "aggregate",
    "get_engine",
    "set_backward_engine",
    "sum",
]

_log = logging.getLogger(__name__)
_BACKWARD: ContextVar[LM | None] = ContextVar("sharpen.text.compat.textgrad", default=None)
_TAGS = ("<IMPROVED_VARIABLE>", "</IMPROVED_VARIABLE>")
_REPLY_ROLE = "response from the language model"
get_engine = named_engine


def set_backward_engine(engine: Any, override: bool = False) -> None:
    """The engine that criticizes and rewrites where none is given, in this thread or task.

    Raises:
        ConfigError: there is one already, and ``override`` is not set.
    """
    if _BACKWARD.get() is not None and not override:
        raise ConfigError("a backward engine is set already: set_backward_engine(..., True).")
    _BACKWARD.set(as_engine(engine))


def _engine(given: Any) -> LM:
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
        propagator = _Noting(_engine(engine))
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
        self.engine = _engine(engine)
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


class TextualGradientDescent:
    """Rewrites variables by what was said about them, one call each.

    Args:
        parameters: what to rewrite; what an operation gave becomes a root.
        verbose: above 0, log new values.
        engine: the model; the backward engine without one.
        constraints: words that every new value must obey.
        new_variable_tags: what a new value stands between.
        in_context_examples: of good values.
        gradient_memory: how many earlier steps' criticism is shown.
        momentum_window: how many earlier values are shown.
    """

    def __init__(
        self,
        parameters: Sequence[Variable],
        verbose: int = 0,
        engine: Any = None,
        constraints: Sequence[str] | None = None,
        new_variable_tags: Sequence[str] | None = None,
        in_context_examples: Sequence[str] | None = None,
        gradient_memory: int = 0,
        momentum_window: int = 0,
    ) -> None:
        begin, end = new_variable_tags or _TAGS
        self.parameters = list(parameters)
        self.verbose = verbose
        self.optimizer = _TGD(
            [one.as_parameter() for one in self.parameters],
            _engine(engine),
            constraints=tuple(constraints or ()),
            memory=gradient_memory,
            momentum=momentum_window,
            examples=tuple(in_context_examples or ()),
            tags=(begin, end),
        )

    def zero_grad(self) -> None:
        """Forget what was said."""
        for one in self.parameters:
            one.reset_gradients()

    def step(self) -> StepReport:
        """Rewrite; the report says what was set, and what was refused and why."""
        for one in self.parameters:
            said = one.gradients
            one.as_parameter().messages[:] = [tuple(said)] if said else []
        report = self.optimizer.step()
        if self.verbose:
            for value in report.applied.values():
                _log.info("new value: %s", value)
        return report


class TextualGradientDescentwithMomentum(TextualGradientDescent):
    """The same with the values of ``momentum_window`` earlier steps shown."""

    def __init__(
        self,
        engine: Any,
        parameters: Sequence[Variable],
        momentum_window: int = 0,
        constraints: Sequence[str] | None = None,
        new_variable_tags: Sequence[str] | None = None,
        in_context_examples: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            parameters,
            engine=engine,
            constraints=constraints,
            new_variable_tags=new_variable_tags,
            in_context_examples=in_context_examples,
            momentum_window=momentum_window,
        )


TGD = TextualGradientDescent
