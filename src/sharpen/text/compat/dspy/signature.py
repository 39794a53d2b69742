"""What a prompt takes and gives: named fields with types, from a line of text or from a class.

::

    Signature("question, context: list[str] -> answer: float", "Answer by the context.")

    class Answer(Signature):
        \"\"\"Answer by the context.\"\"\"
        question: str = InputField()
        answer: float = OutputField(desc="in metres")

Replies are asked for in tags, ``<answer>...</answer>`` for each output, which small models write
more surely than JSON; JSON and, of a single output, a reply without tags are read as well.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import ReplyError
from sharpen.core.lm.repair import find_json
from sharpen.text.coerce import Kind, coerce
from sharpen.text.listing import shown
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.task import PromptProgram
from sharpen.text.reply import between

__all__ = ["Field", "InputField", "OutputField", "Signature", "chain_of_thought"]

_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
    "Literal": Literal,
}
_KINDS: dict[Any, Kind] = {str: "text", int: "int", float: "float", bool: "bool"}
_TAKEN = ("instruction", "exemplars", "output")
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output."""

    desc: str = ""
    """What it is."""

    annotation: Any = str
    """``str``, ``int``, ``float``, ``bool``, ``list``, ``dict`` or a ``Literal``."""

    is_output: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The values of a ``Literal``."""
        is_literal = get_origin(self.annotation) is Literal
        return tuple(map(str, get_args(self.annotation))) if is_literal else ()

    @property
    def kind(self) -> Kind:
        """How its value is read."""
        return "choice" if self.labels else _KINDS.get(self.annotation, "json")

    def read(self, value: Any) -> Any:
        """A value of its type.

        Raises:
            ConfigError: it is none.
        """
        if not self.labels:
            found = coerce(value, self.kind)
            plain = get_origin(self.annotation) or self.annotation
            if self.kind == "json" and not isinstance(found, plain):
                raise ConfigError(f"must be a {plain.__name__}, got {value!r:.80}.")
            return found
        word = str(value).strip().strip("\"'.").casefold()
        for label, given in zip(self.labels, get_args(self.annotation), strict=True):
            if label.casefold() == word:
                return given
        raise ConfigError(f"must be one of {', '.join(self.labels)}, got {value!r:.80}.")

    def told(self, name: str) -> str:
        """How it is asked for."""
        kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        what = " or ".join(self.labels) or kinds.get(self.kind, "JSON" * (self.kind == "json"))
        said = "; ".join(part for part in (self.desc, what) if part) or "..."
        return f"<{name}>{said}</{name}>"


def InputField(desc: str = "", **_: Any) -> Any:
    """An input of a class of signatures."""
    return Field(desc)


def OutputField(desc: str = "", **_: Any) -> Any:
    """An output of a class of signatures."""
    return Field(desc, is_output=True)


class _Meta(type):
    """Makes a class of signatures from its fields, or from a line of text."""

    instructions: str
    fields: dict[str, Field]

    def __new__(
        mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], **made: Any
    ) -> _Meta:
        fields = {key: value for key, value in body.items() if isinstance(value, Field)}
        plain = {key: value for key, value in body.items() if key not in fields}
        cls = super().__new__(mcs, name, bases, plain)
        if made:
            cls.instructions, cls.fields = made["instructions"], made["fields"]
        elif bases:
            try:
                notes = inspect.get_annotations(cls, eval_str=True)
            except NameError as error:
                raise ConfigError(f"{name}: {error}, in the type of a field.") from None
            cls.instructions = inspect.cleandoc(body.get("__doc__") or "")
            cls.fields = {
                key: Field(one.desc, notes.get(key, str), one.is_output)
                for key, one in fields.items()
            }
        else:
            cls.instructions, cls.fields = "", {}
        if bases:
            _check(name, cls.fields)
        cls.instructions = cls.instructions or _default(cls.fields)
        return cls

    def __init__(cls, name: str, bases: tuple[type, ...], body: Any, **made: Any) -> None:
        super().__init__(name, bases, body)

    def __call__(cls, signature: Any, instructions: str = "") -> Any:
        """A signature of a line of text; a signature itself is given back."""
        if isinstance(signature, _Meta):
            return signature.with_instructions(instructions) if instructions else signature
        fields = _parsed(str(signature))
        return _Meta("Signature", (Signature,), {}, instructions=instructions, fields=fields)

    @property
    def input_fields(cls) -> dict[str, Field]:
        """Inputs by name."""
        return {name: one for name, one in cls.fields.items() if not one.is_output}

    @property
    def output_fields(cls) -> dict[str, Field]:
        """Outputs by name."""
        return {name: one for name, one in cls.fields.items() if one.is_output}

    def with_instructions(cls, instructions: str) -> Any:
        """The same fields under other instructions."""
        bases = (Signature,)
        return _Meta(cls.__name__, bases, {}, instructions=instructions, fields=dict(cls.fields))

    def prepend(cls, name: str, field: Field, type_: Any = str) -> Any:
        """The same with another field before the others of its sort."""
        fields = {name: Field(field.desc, type_, field.is_output), **cls.fields}
        given = {"instructions": cls.instructions, "fields": fields}
        return _Meta(cls.__name__, (Signature,), {}, **given)

    def program(cls) -> PromptProgram:
        """How a prompt is made and a reply is read, for a search for prompts."""
        inputs = "\n".join(f"{_title(name)}: {{{{{name}}}}}" for name in cls.input_fields)
        wanted = "\n".join(one.told(name) for name, one in cls.output_fields.items())
        return PromptProgram(
            template=(
                f"{{{{instruction}}}}\n\nReply in this form:\n{wanted}\n\n{{{{exemplars}}}}\n\n"
                f"{inputs}\nReply:"
            ),
            exemplar=f"{inputs}\nReply:\n{{{{output}}}}",
            parser=cls.parse,
        )

    def render(cls, values: Mapping[str, Any]) -> str:
        """Outputs as a reply; those that are missing are left out."""
        given = {name: values[name] for name in cls.output_fields if name in values}
        return "\n".join(f"<{name}>{_text(value)}</{name}>" for name, value in given.items())

    def parse(cls, reply: str) -> dict[str, Any] | None:
        """Outputs in a reply; None where one is missing or of another type."""
        fields = cls.output_fields
        try:
            found = _found(reply, fields)
            return {name: one.read(found[name]) for name, one in fields.items()}
        except (ConfigError, ReplyError, KeyError):
            return None


def _found(reply: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Values by field, as text or JSON: in tags, as a JSON object, or the reply itself."""
    if any(f"<{name}>" in reply for name in fields):
        return {name: between(reply, f"<{name}>", f"</{name}>") for name in fields}

    def wrong(value: Any) -> str | None:
        named = isinstance(value, dict) and all(name in value for name in fields)
        return None if named else "a field is missing"

    try:
        return dict(find_json(reply, wrong))
    except ReplyError:
        if len(fields) > 1:
            raise
    ((name, one),) = fields.items()
    if one.labels:
        return {name: make_parser("label", one.labels)(reply)}
    if one.kind in ("int", "float"):
        return {name: make_parser("number")(reply)}
    text = reply.strip().removeprefix(f"{_title(name)}:").strip()
    if not text:
        raise ReplyError("the reply is empty", reply)
    return {name: text}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else shown(value)


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _default(fields: Mapping[str, Field]) -> str:
    given = ", ".join(name for name, one in fields.items() if not one.is_output)
    wanted = ", ".join(name for name, one in fields.items() if one.is_output)
    return f"Given {given}, write {wanted}."


def _check(name: str, fields: Mapping[str, Field]) -> None:
    for key, one in fields.items():
        if key in _TAKEN and not one.is_output:
            raise ConfigError(f"{name}: an input cannot be called '{key}'; rename it.")
        plain = get_origin(one.annotation) or one.annotation
        if not one.labels and plain not in (str, int, float, bool, list, dict):
            raise ConfigError(
                f"{name}.{key}: {one.annotation} is no type of a field. There are: str, int, float,"
                " bool, list, dict, Literal[...]."
            )
    if len({one.is_output for one in fields.values()}) < 2:
        raise ConfigError(f"{name} needs an input and an output: 'question -> answer'.")


def _parsed(line: str) -> dict[str, Field]:
    """Fields of ``a, b: int -> c: float``."""
    sides = line.split("->")
    if len(sides) != 2:
        raise ConfigError(f"a signature is 'inputs -> outputs', got {line!r:.200}.")
    fields: dict[str, Field] = {}
    for side, is_output in zip(sides, (False, True), strict=True):
        for part in re.split(r",(?![^\[]*\])", side):
            name, _, kind = (text.strip() for text in part.partition(":"))
            if not _NAME.fullmatch(name) or name in fields:
                raise ConfigError(f"{name!r} is no name of a field, or twice there: {line!r:.200}.")
            fields[name] = Field("", _type(kind or "str"), is_output)
    return fields


def _type(text: str) -> Any:
    """A type that is named in a signature; nothing is evaluated."""
    try:
        found = ast.parse(text, mode="eval").body
        if isinstance(found, ast.Name):
            return _TYPES[found.id]
        if isinstance(found, ast.Subscript) and isinstance(found.value, ast.Name):
            inner = found.slice
            if found.value.id == "Literal":
                parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                return Literal[tuple(ast.literal_eval(part) for part in parts)]
            return types.GenericAlias(_TYPES[found.value.id], (Any,))
    except (SyntaxError, ValueError, KeyError, TypeError):
        pass
    raise ConfigError(
        f"{text!r:.80} is no type of a field. There are: str, int, float, bool, list, dict,"
        " Literal['a', 'b']."
    )


class Signature(metaclass=_Meta):
    """Base of classes of signatures; ``Signature("question -> answer")`` makes one of a line."""


def chain_of_thought(signature: Any) -> Any:
    """A signature that asks for ``reasoning`` before its outputs."""
    field = OutputField(desc="think step by step")
    return Signature(signature).prepend("reasoning", field)  # type: ignore[call-arg, attr-defined]
