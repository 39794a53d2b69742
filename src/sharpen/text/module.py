"""Programs as objects: parameters are found by attribute, saved and loaded as one file.

A parameter's name is its path: ``rule``, ``steps.0.rule``, ``answer.system``. Found are parameters,
operations with trainable code (``@op(trainable=True)``, as attributes or methods), language models
with a trainable system prompt, modules, and lists, tuples and dicts of all these.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, did_you_mean
from sharpen.core.files import atomic_write_json
from sharpen.core.lm.client import LM as Client
from sharpen.text.code import CodeOp
from sharpen.text.llm_op import LLM
from sharpen.text.parameter import Parameter
from sharpen.text.record import Op

__all__ = ["Module"]

_SCHEMA = "sharpen.text.module/1"
_FAMILY = "sharpen.text.module/"


class Module:
    """Base of programs that hold parameters; a subclass implements ``forward``.

    Methods with ``@op(trainable=True)`` have code of their own in each object.

    Examples:
        >>> class Answer(Module):
        ...     def __init__(self):
        ...         self.rule = Parameter("Be brief.", role="instruction")
        ...
        ...     def forward(self, question):
        ...         return self.rule + question
        >>> answer = Answer()
        >>> list(answer.named_parameters())
        ['rule']
        >>> answer(" Why?").value
        'Be brief. Why?'
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """An object whose trainable methods are its own."""
        made = super().__new__(cls)
        for name in dir(cls):
            found = inspect.getattr_static(cls, name, None)
            if isinstance(found, CodeOp):
                own = CodeOp(
                    found.function,
                    found.operation,
                    catch=found.catch,
                    allow_external=found.allow_external,
                    timeout=found.timeout,
                )
                made.__dict__[name] = own.__get__(made, cls)
        return made

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What it does."""
        raise ConfigError(f"{type(self).__name__} needs a method forward(...).")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        return self.forward(*args, **kwargs)

    def named_parameters(self) -> dict[str, Parameter]:
        """Parameters by path, each once, in the order of the attributes."""
        return {path: one for path, one in self._found() if isinstance(one, Parameter)}

    def parameters(self) -> list[Parameter]:
        """All of them."""
        return list(self.named_parameters().values())

    def clients(self) -> list[Client]:
        """The language models that it calls through its attributes, each once."""
        return [one for _, one in self._found() if isinstance(one, Client)]

    def _found(self) -> Iterator[tuple[str, Parameter | Client]]:
        seen: set[int] = set()
        waiting: list[tuple[str, Any]] = [("", self)]
        while waiting:
            path, one = waiting.pop()
            if id(one) in seen:
                continue
            parts = _parts(one)
            if parts or isinstance(one, Parameter | Client):
                seen.add(id(one))
            if isinstance(one, Parameter | Client):
                yield path, one
            inner = [(f"{path}.{name}" if path else name, part) for name, part in parts]
            waiting.extend(reversed(inner))

    def freeze(self, frozen: bool = True) -> Self:
        """Let optimizers leave all of it alone, or change it again."""
        for parameter in self.parameters():
            parameter.freeze(frozen)
        return self

    # -- values ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Values by path, as plain data."""
        return {path: parameter._value for path, parameter in self.named_parameters().items()}

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Take over values; either all are set or, on an error, none.

        Args:
            state: values by path.
            strict: every parameter needs a value; else the others keep theirs.

        Raises:
            ConfigError: a value is refused, unknown or missing.
        """
        named = self.named_parameters()
        for name in state:
            if name not in named:
                raise ConfigError(
                    f"{type(self).__name__} has no parameter '{name}'."
                    f"{did_you_mean(str(name), named)} It has: {', '.join(named) or 'none'}."
                )
        missing = [name for name in named if name not in state]
        if missing and strict:
            raise ConfigError(
                f"no value is given for {', '.join(missing)} of {type(self).__name__}."
                " load_state_dict(..., strict=False) leaves them as they are."
            )
        new = {name: named[name].validated(value) for name, value in state.items()}
        for name, value in new.items():
            if value != named[name]._value or type(value) is not type(named[name]._value):
                named[name].value = value

    @contextmanager
    def holding(self, values: Mapping[str, Any]) -> Iterator[Self]:
        """Within it the module has other values; afterwards those of before, and no history.

        Raises:
            ConfigError: as for :meth:`load_state_dict`.
        """
        named = self.named_parameters()
        before = {name: parameter._value for name, parameter in named.items()}
        unknown = [name for name in values if name not in named]
        if unknown:
            raise ConfigError(f"{type(self).__name__} has no parameter '{unknown[0]}'.")
        new = {name: named[name].validated(value) for name, value in values.items()}
        try:
            for name, value in new.items():
                named[name]._value = value
            yield self
        finally:
            for name, value in before.items():
                named[name]._value = value

    # -- files ----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the values to a JSON file; it is replaced as a whole or not at all.

        Raises:
            StorageError: the file cannot be written.
        """
        document = {
            "schema": _SCHEMA,
            "module": type(self).__name__,
            "kinds": {name: p.kind for name, p in self.named_parameters().items()},
            "values": self.state_dict(),
        }
        atomic_write_json(Path(path), document)

    def load(self, path: str | Path) -> Self:
        """Take over the values of a file that :meth:`save` wrote.

        Returns:
            This module.

        Raises:
            MissingFileError: there is no such file.
            FileFormatError: it is no such file, or of another version.
            ConfigError: it is of a program with other parameters.
        """
        path = Path(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MissingFileError(f"there is no file {path}.") from None
        except (ValueError, RecursionError, OSError) as error:
            raise FileFormatError(f"{path} cannot be read as JSON: {error}") from None
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != _SCHEMA:
            what = f"it says {schema!r}" if schema is not None else "it names no schema"
            hint = (
                " It was written by another version of Sharpen: load it there, and give its"
                " state_dict() to load_state_dict() here."
                if isinstance(schema, str) and schema.startswith(_FAMILY)
                else " Module.save(path) writes such files."
            )
            raise FileFormatError(f"{path} is no file of {_SCHEMA}: {what}.{hint}")
        values = document.get("values")
        if not isinstance(values, dict):
            raise FileFormatError(f"{path} has no object 'values'.")
        try:
            self.load_state_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.named_parameters())})"


def _parts(one: Any) -> list[tuple[str, Any]]:
    """What may hold parameters within a value, by name."""
    if isinstance(one, Module):
        return list(vars(one).items())
    if isinstance(one, LLM):
        return [("system", one.system), ("lm", one.lm)]
    if isinstance(one, CodeOp):
        return [("code", one.parameter)]
    if isinstance(getattr(one, "op", None), Op):  # a method, with its object
        return [("code", one.op.parameter)] if isinstance(one.op, CodeOp) else []
    if isinstance(one, Mapping):
        return [(str(key), part) for key, part in one.items()]
    if isinstance(one, list | tuple):
        return [(str(k), part) for k, part in enumerate(one)]
    return []
