"""Prompts by signature, programs made of them, and what they take and give.

``Predict`` renders its signature by :class:`~sharpen.text.prompts.task.PromptProgram`, so that the
prompt that a search judges is the prompt that runs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_json
from sharpen.core.lm.client import LM as Client
from sharpen.core.lm.errors import ReplyError
from sharpen.text.asking import as_lm
from sharpen.text.compat.dspy.signature import Signature, chain_of_thought
from sharpen.text.compat.engines import named_engine
from sharpen.text.prompts.result import PromptResult
from sharpen.text.prompts.task import Candidate, Exemplar
from sharpen.text.prompts.task import Example as _Example

__all__ = [
    "LM",
    "ChainOfThought",
    "Example",
    "Module",
    "Predict",
    "Prediction",
    "configure",
    "context",
]

_LM: ContextVar[Client | None] = ContextVar("sharpen.text.compat.dspy.lm", default=None)
TRACE: ContextVar[list[tuple[Predict, dict[str, Any], Prediction]] | None] = ContextVar(
    "sharpen.text.compat.dspy.trace", default=None
)
_SCHEMA = "sharpen.text.compat.dspy/1"


def LM(
    model: str, *, api_base: str | None = None, api_key: str | None = None, **options: Any
) -> Client:
    """A model by its name.

    Args:
        model: ``openai/NAME``, a bare name, or an address such as ``local:smollm2``.
        api_base: the server; that of the environment without one.
        api_key: its key.
        options: sampling parameters, ``cache`` and what else :class:`sharpen.LM` takes.
    """
    if api_base is None:
        return named_engine(model, **options)
    given = {"model": model.removeprefix("openai/")} | ({"api_key": api_key} if api_key else {})
    return Client(api_base, options=given, **options)


def configure(*, lm: Any) -> None:
    """The model of all prompts in this thread or task."""
    _LM.set(as_lm(lm))


def configured() -> Client | None:
    """That model, if there is one."""
    return _LM.get()


def identity(inputs: Mapping[str, Any]) -> str:
    """What an exemplar of these inputs is known by; it is never shown to them."""
    return _Example(inputs, "").id


@contextmanager
def context(*, lm: Any) -> Iterator[None]:
    """Within it prompts are answered by another model."""
    token = _LM.set(as_lm(lm))
    try:
        yield
    finally:
        _LM.reset(token)


class _Record(Mapping[str, Any]):
    """Values by name, also as attributes."""

    def __init__(self, **values: Any) -> None:
        self.__dict__["_values"] = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name not in values:
            raise AttributeError(f"there is no '{name}'; there are: {', '.join(values)}")
        return values[name]

    def toDict(self) -> dict[str, Any]:
        """As plain data."""
        return dict(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"


class Prediction(_Record):
    """What a prompt or program gave."""


class Example(_Record):
    """A labelled example; ``with_inputs`` says which of its values are inputs."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.__dict__["_inputs"] = None

    def with_inputs(self, *names: str) -> Example:
        """The same, with these values as inputs and the others as labels."""
        made = Example(**self._values)
        made.__dict__["_inputs"] = tuple(names)
        return made

    def inputs(self) -> Example:
        """Its inputs.

        Raises:
            ConfigError: it was not said which they are.
        """
        names = self.__dict__["_inputs"]
        if names is None:
            raise ConfigError("say which values are inputs: example.with_inputs('question').")
        return Example(**{name: self[name] for name in names})

    def labels(self) -> Example:
        """Its other values."""
        inputs = self.inputs()
        return Example(**{name: value for name, value in self.items() if name not in inputs})


class Module:
    """Base of programs made of prompts; ``forward`` runs it."""

    result: PromptResult | None = None
    """How its prompt was found, where it was searched for."""

    def forward(self, **inputs: Any) -> Any:
        """What it does."""
        raise ConfigError(f"{type(self).__name__} needs a method forward(...).")

    def __call__(self, **inputs: Any) -> Any:
        """Run it."""
        return self.forward(**inputs)

    def named_predictors(self) -> list[tuple[str, Predict]]:
        """Its prompts by path, also those of modules, lists and dicts within, each once."""
        found: dict[int, tuple[str, Predict]] = {}
        waiting: list[tuple[str, Any]] = [("", self)]
        while waiting:
            path, one = waiting.pop()
            if isinstance(one, Predict):
                found.setdefault(id(one), (path or "self", one))
                continue
            parts: list[tuple[str, Any]] = []
            if isinstance(one, Module):
                parts = list(vars(one).items())
            elif isinstance(one, dict):
                parts = [(str(key), value) for key, value in one.items()]
            elif isinstance(one, list | tuple):
                parts = [(str(k), value) for k, value in enumerate(one)]
            named = [(f"{path}.{name}" if path else name, part) for name, part in parts]
            waiting.extend(reversed(named))
        return list(found.values())

    def predictors(self) -> list[Predict]:
        """Its prompts."""
        return [one for _, one in self.named_predictors()]

    def set_lm(self, lm: Any) -> None:
        """The model of all its prompts."""
        for one in self.predictors():
            one.lm = as_lm(lm)

    def deepcopy(self) -> Self:
        """A copy with prompts of its own; models are shared."""
        lms = {id(one.lm): one.lm for one in self.predictors() if one.lm is not None}
        return copy.deepcopy(self, dict(lms))

    def save(self, path: str | Path) -> None:
        """Write instructions and exemplars as one JSON file.

        Raises:
            StorageError: the file cannot be written.
        """
        prompts = {
            name: Candidate(one.signature.instructions, tuple(one.demos)).to_dict()
            for name, one in self.named_predictors()
        }
        atomic_write_json(Path(path), {"schema": _SCHEMA, "prompts": prompts})

    def load(self, path: str | Path) -> Self:
        """Take over what :meth:`save` wrote; all of it or, on an error, nothing.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is of something else, or of a program with other prompts.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["schema"] != _SCHEMA:
                raise ValueError(f"it says {document['schema']!r}, not {_SCHEMA!r}")
            prompts = {n: Candidate.from_dict(one) for n, one in document["prompts"].items()}
        except FileNotFoundError:
            raise MissingFileError(f"there is no file {path}.") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{path} holds no prompts of a program: {error}.") from None
        own = dict(self.named_predictors())
        if set(own) != set(prompts):
            raise FileFormatError(
                f"{path} has the prompts {', '.join(prompts)}; this program has {', '.join(own)}."
            )
        for name, one in own.items():
            one.take(prompts[name])
        return self


class Predict(Module):
    """A prompt: inputs in, a :class:`Prediction` out.

    Args:
        signature: a line such as ``question -> answer: int``, or a class of signatures.
        lm: its model; that of :func:`configure` without one.
        retries: how often a reply that cannot be read is asked for again.
        sampling: parameters of the requests.

    Examples:
        >>> from sharpen.core.lm import Scripted
        >>> add = Predict("a: int, b: int -> total: int", lm=Scripted(["<total>4</total>"]))
        >>> add(a=2, b=2).total
        4
    """

    def __init__(
        self, signature: Any, *, lm: Any = None, retries: int = 1, **sampling: Any
    ) -> None:
        self.signature: Any = Signature(signature)  # type: ignore[call-arg]
        self.lm: Client | None = None if lm is None else as_lm(lm)
        self.retries = retries
        self.sampling = sampling
        self._demos: list[Exemplar] = []

    @property
    def demos(self) -> list[Exemplar]:
        """The solved examples that it shows; :class:`Example` and mappings may be set."""
        return self._demos

    @demos.setter
    def demos(self, given: Sequence[Any]) -> None:
        self._demos = [one if isinstance(one, Exemplar) else self.exemplar(one) for one in given]

    def exemplar(self, values: Mapping[str, Any]) -> Exemplar:
        """A solved example from its values by name."""
        inputs = {name: values[name] for name in self.signature.input_fields if name in values}
        return Exemplar(inputs, self.signature.render(values), identity(inputs))

    def take(self, candidate: Candidate) -> None:
        """Take over instructions and exemplars."""
        self.signature = self.signature.with_instructions(candidate.instruction)
        self._demos = list(candidate.exemplars)

    def forward(self, **inputs: Any) -> Prediction:
        """The prediction.

        Raises:
            ConfigError: an input is missing or unknown, or there is no model.
            ReplyError: no reply could be read.
        """
        wanted = self.signature.input_fields
        if set(inputs) != set(wanted):
            raise ConfigError(f"expected the inputs {', '.join(wanted)}, got {', '.join(inputs)}.")
        lm = self.lm or configured()
        if lm is None:
            raise ConfigError("there is no model: configure(lm=...), or Predict(..., lm=...).")
        candidate = Candidate(self.signature.instructions)
        shown = [one for one in self._demos if one.id != identity(inputs)]
        messages = self.signature.program().messages(candidate, inputs, shown)
        for left in range(self.retries, -1, -1):
            reply = lm.chat(messages, **self.sampling).text
            found = self.signature.parse(reply)
            if found is not None:
                break
            if left == 0:
                fields = ", ".join(self.signature.output_fields)
                raise ReplyError(f"the reply has no {fields}. It was: {reply!r:.300}", reply)
            told = "Your reply could not be read. Write it again in the form that was asked for."
            again = {"role": "assistant", "content": reply or "(nothing)"}
            messages = [*messages, again, {"role": "user", "content": told}]
        assert found is not None
        prediction = Prediction(**found)
        trace = TRACE.get()
        if trace is not None:
            trace.append((self, inputs, prediction))
        return prediction


class ChainOfThought(Predict):
    """A prompt that has ``reasoning`` written before its outputs."""

    def __init__(self, signature: Any, **options: Any) -> None:
        super().__init__(chain_of_thought(signature), **options)
