"""What a prompt is for: the program around it, its examples, and a candidate prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from sharpen.core.errors import ConfigError, DataError
from sharpen.text.prompts.parsers import Parser, make_parser
from sharpen.text.prompts.template import fields_of, render

__all__ = ["Candidate", "Example", "Exemplar", "PromptProgram", "read_examples"]


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled example."""

    input: Mapping[str, Any]
    """Values of the template's fields."""

    output: Any
    """What is right."""

    id: str = ""
    """What it is known by; from its content where it is empty."""

    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further plain data; metrics get it."""

    def __post_init__(self) -> None:
        if not self.id:
            text = json.dumps([dict(self.input), self.output], sort_keys=True, default=str)
            object.__setattr__(self, "id", sha256(text.encode()).hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A solved example that a prompt shows."""

    input: Mapping[str, Any]
    """Values of the template's fields."""

    output: str
    """The reply to show: a model's own that was right, or the label."""

    id: str
    """Of the example it is of; it is never shown to that one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt: what is searched for."""

    instruction: str
    """What the model is told to do."""

    exemplars: tuple[Exemplar, ...] = ()
    """Shown in this order."""

    nearest: int = 0
    """Instead of all exemplars, show so many of them that are nearest to the input."""

    key: str = field(init=False, repr=False, compare=False)
    """Digest of all of it, 16 hex digits."""

    def __post_init__(self) -> None:
        text = json.dumps(self.to_dict(), sort_keys=True, default=str)
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        object.__setattr__(self, "key", digest)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        shown = [
            {"input": dict(one.input), "output": one.output, "id": one.id} for one in self.exemplars
        ]
        return {"instruction": self.instruction, "exemplars": shown, "nearest": self.nearest}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Candidate:
        """From what :meth:`to_dict` gave.

        Raises:
            ConfigError: it is something else.
        """
        try:
            shown = tuple(Exemplar(**one) for one in data.get("exemplars", ()))
            return cls(str(data["instruction"]), shown, int(data.get("nearest", 0)))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this is no prompt: {error!r}.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptProgram:
    """How a candidate and an input become a prompt, and a reply a prediction."""

    template: str
    """With ``{{instruction}}``, ``{{exemplars}}`` where there are any, and fields of the input."""

    exemplar: str = "{{input}}\n{{output}}"
    """One exemplar: fields of the input, and ``{{output}}``."""

    separator: str = "\n\n"
    """Between exemplars."""

    system: str = ""
    """Template of the system message; none where it is empty."""

    parser: Parser = field(default_factory=lambda: make_parser("text"))
    """Makes a prediction of a reply."""

    decision: Literal["reply", "scores", "calibrated"] = "reply"
    """``reply`` parses what the model writes; ``scores`` takes the label that is likeliest as the
    first token; ``calibrated`` the same, less each label's mean over a batch of inputs."""

    labels: Sequence[str] = ()
    """For ``scores`` and ``calibrated``."""

    def __post_init__(self) -> None:
        if self.decision not in ("reply", "scores", "calibrated"):
            raise ConfigError(
                f"decision must be reply, scores or calibrated, got {self.decision!r}."
            )
        if self.decision != "reply" and len(set(self.labels)) < 2:
            raise ConfigError(f"decision={self.decision!r} needs two labels or more.")
        places = [*fields_of(self.template), *fields_of(self.system)]
        if "instruction" not in places:
            raise ConfigError("the template needs the field {{instruction}}.")
        if "output" not in fields_of(self.exemplar):
            raise ConfigError("the template of exemplars needs the field {{output}}.")

    @property
    def takes_exemplars(self) -> bool:
        """Whether the template has a place for them."""
        return "exemplars" in [*fields_of(self.template), *fields_of(self.system)]

    def messages(
        self, candidate: Candidate, values: Mapping[str, Any], exemplars: Sequence[Exemplar]
    ) -> list[dict[str, str]]:
        """The conversation for one input.

        Args:
            candidate: the prompt.
            values: of the input's fields.
            exemplars: those to show.
        """
        solved = self.separator.join(
            render(self.exemplar, {**one.input, "output": one.output}) for one in exemplars
        )
        given = {**values, "instruction": candidate.instruction, "exemplars": solved}
        messages = [{"role": "user", "content": _without_gaps(render(self.template, given))}]
        if self.system:
            system = _without_gaps(render(self.system, given))
            messages.insert(0, {"role": "system", "content": system})
        return messages


def _without_gaps(text: str) -> str:
    """A text without the empty lines that an empty field leaves."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1].strip()):
            lines.append(line)
    return "\n".join(lines).strip()


def read_examples(rows: Sequence[Any], where: str = "the data") -> list[Example]:
    """Examples from plain rows ``{"input": ..., "output": ..., "meta": ..., "id": ...}``.

    An input that is no mapping becomes the field ``input``.

    Raises:
        DataError: a row without input or output, two examples with one id, or none at all.
    """
    found: list[Example] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or "input" not in row or "output" not in row:
            raise DataError(f"{where}, row {number}: an example needs 'input' and 'output'.")
        given = row["input"]
        values = given if isinstance(given, Mapping) else {"input": given}
        example = Example(values, row["output"], str(row.get("id", "")), row.get("meta") or {})
        if example.id in seen:
            raise DataError(
                f"{where}, row {number}: the same example as row {seen[example.id]}."
                " Remove one, or give them ids."
            )
        seen[example.id] = number
        found.append(example)
    if not found:
        raise DataError(f"{where}: there are no examples.")
    return found
