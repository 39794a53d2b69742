"""The problem that an optimizer which reads is shown: nine sections of text.

Instruction, Code, Documentation, Variables, Constraints, Inputs, Others, Outputs, Feedback: always
all, always in this order, empty where there is nothing (Cheng, Nie and Swaminathan, *Trace is the
Next AutoDiff*, NeurIPS 2024, section 4). Of several outputs each has its own inputs, others,
outputs and feedback; the code is listed once where all ran the same.

A recorded program becomes plain data first (:func:`program_of`), so that what ran in one process
can be shown by an optimizer in another, and kept in a study. Long values are shown by their
beginning and end, variables always whole. Where a prompt may have only so many tokens, inputs,
others and outputs are cut further until it fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.text.listing import elided, list_program, shown, typed
from sharpen.text.nodes import Node
from sharpen.text.optimizers.variables import Variable
from sharpen.text.parameter import Parameter
from sharpen.text.subgraph import minimal_subgraph

__all__ = ["SECTIONS", "Problem", "constraints_of", "numbered", "program_of"]

SECTIONS = (
    "Instruction",
    "Code",
    "Documentation",
    "Variables",
    "Constraints",
    "Inputs",
    "Others",
    "Outputs",
    "Feedback",
)
_CHARS_PER_TOKEN = 3  # a cautious guess: a prompt that is held to a limit must not exceed it
_LEAST_VALUE = 40
_KEPT = 20_000  # characters of a value that the plain data of a program keeps

Program = Mapping[str, Any]


def program_of(
    output: Node, parameters: Sequence[Parameter], names: Mapping[int, str]
) -> dict[str, Any]:
    """The minimal subgraph of an output as plain data: lines of code, and values as text.

    Args:
        output: what feedback is given on.
        parameters: those that may be changed.
        names: of parameters, by id.
    """
    listing = list_program(minimal_subgraph(output, parameters), names)
    parts: dict[str, Any] = {
        "code": list(listing.code),
        "documentation": list(listing.documentation),
        "variables": [name for name, _ in listing.variables],
    }
    for part in ("inputs", "others", "outputs"):
        parts[part] = [
            [name, type(value).__name__, elided(shown(value), _KEPT)]
            for name, value in getattr(listing, part)
        ]
    return parts


def numbered(texts: Sequence[str]) -> str:
    """Texts of several outputs, each under its number; of one, the text itself."""
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"[{k}]\n{text}".rstrip() for k, text in enumerate(texts, start=1))


class Problem:
    """Programs with what was said of their outputs, as text.

    Args:
        programs: as :func:`program_of` gives them; none where nothing was recorded.
        said: feedback on each output, and further remarks after these.
        values: of the variables, by name.
        variables: those that may be changed.
        objective: what is to be done.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        said: Sequence[str],
        values: Mapping[str, Any],
        variables: Iterable[Variable],
        objective: str,
    ) -> None:
        self.programs = list(programs)
        self.said = list(said)
        self.objective = objective
        reached = {name for program in programs for name in program["variables"]}
        self.variables = [
            (one, values[one.name])
            for one in variables
            if one.name in values and (one.name in reached or not programs)
        ]

    def sections(self, mask: Iterable[str] = (), limit: int | None = None) -> dict[str, str]:
        """Text of each section.

        Args:
            mask: sections to leave empty.
            limit: longest value, in characters, outside of the variables.
        """
        masked = _checked(mask)
        documentation = dict.fromkeys(
            line for program in self.programs for line in program["documentation"]
        )
        parts = {
            "Instruction": self.objective,
            "Code": self._code(),
            "Documentation": "\n".join(documentation),
            "Variables": "\n".join(
                typed(one.name, value, one.kind) for one, value in self.variables
            ),
            "Constraints": constraints_of(one for one, _ in self.variables),
            "Inputs": self._values("inputs", limit),
            "Others": self._values("others", limit),
            "Outputs": self._values("outputs", limit),
            "Feedback": numbered(
                [text if limit is None else elided(text, limit) for text in self.said]
            ),
        }
        return {name: "" if name in masked else parts[name] for name in SECTIONS}

    def render(
        self,
        mask: Iterable[str] = (),
        *,
        value_limit: int | None = None,
        max_tokens: int | None = None,
    ) -> str:
        """All sections as one text.

        Args:
            mask: sections to leave empty.
            value_limit: longest value, in characters.
            max_tokens: most tokens of the text, by a cautious guess of three characters each.

        Raises:
            ConfigError: it does not fit even with short values.
        """
        limit = value_limit
        while True:
            text = "\n\n".join(
                f"#{name}\n{part}".rstrip() for name, part in self.sections(mask, limit).items()
            )
            if max_tokens is None or len(text) <= max_tokens * _CHARS_PER_TOKEN:
                return text
            if limit is not None and limit <= _LEAST_VALUE:
                raise ConfigError(
                    f"the problem has {len(text)} characters with all values cut short, and"
                    f" max_prompt_tokens={max_tokens} allows {max_tokens * _CHARS_PER_TOKEN}."
                    " Raise it, send feedback on fewer outputs, or mask sections."
                )
            limit = max(_LEAST_VALUE, (limit if limit is not None else len(text)) // 2)

    def _code(self) -> str:
        texts = ["\n".join(program["code"]) for program in self.programs]
        if len(set(texts)) == 1:
            return texts[0]
        return numbered(texts) if texts else ""

    def _values(self, part: str, limit: int | None) -> str:
        texts = [
            "\n".join(
                f"({kind}) {name} = {text if limit is None else elided(text, limit)}"
                for name, kind, text in program[part]
            )
            for program in self.programs
        ]
        return numbered(texts) if texts else ""


def constraints_of(variables: Iterable[Variable]) -> str:
    """A line for each variable that has a constraint."""
    return "\n".join(f"{one.name}: {one.constraint}" for one in variables if one.constraint)


def _checked(mask: Iterable[str]) -> set[str]:
    masked = {name.lstrip("#").capitalize() for name in mask}
    unknown = masked - set(SECTIONS)
    if unknown:
        raise ConfigError(
            f"there is no section {', '.join(sorted(unknown))} to mask. There are:"
            f" {', '.join(SECTIONS)}."
        )
    return masked
