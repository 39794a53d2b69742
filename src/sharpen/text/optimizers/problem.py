"""The problem that an optimizer which reads is shown: nine sections of text.

Instruction, Code, Documentation, Variables, Constraints, Inputs, Others, Outputs, Feedback: always
all, always in this order, empty where there is nothing (Cheng, Nie and Swaminathan, *Trace is the
Next AutoDiff*, NeurIPS 2024, section 4). Of several outputs each has its own inputs, others,
outputs and feedback; the code is listed once where all ran the same.

Long values are shown by their beginning and end, variables always whole. Where a prompt may have
only so many tokens, inputs, others and outputs are cut further until it fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.text.feedback import Feedback
from sharpen.text.listing import Listing, elided, list_program, typed
from sharpen.text.nodes import Node
from sharpen.text.parameter import Parameter
from sharpen.text.subgraph import minimal_subgraph

__all__ = ["SECTIONS", "Problem", "constraints_of"]

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


class Problem:
    """Outputs with feedback, as text.

    Args:
        pending: outputs, each with its feedback.
        parameters: those that may be changed.
        names: of parameters, by id.
        objective: what is to be done.
    """

    def __init__(
        self,
        pending: Sequence[tuple[Node, Feedback]],
        parameters: Sequence[Parameter],
        names: Mapping[int, str],
        objective: str,
    ) -> None:
        self.objective = objective
        self.listings: list[Listing] = []
        self.feedback: list[str] = []
        for output, feedback in pending:
            graph = minimal_subgraph(output, parameters)
            self.listings.append(list_program(graph, names))
            self.feedback.append(feedback.render())
        reached = {id(p): None for listing in self.listings for _, p in listing.variables}
        self.variables = [(names[p.id], p) for p in parameters if id(p) in reached]

    def sections(self, mask: Iterable[str] = (), limit: int | None = None) -> dict[str, str]:
        """Text of each section.

        Args:
            mask: sections to leave empty.
            limit: longest value, in characters, outside of the variables.
        """
        masked = _checked(mask)
        parts = {
            "Instruction": self.objective,
            "Code": self._each(lambda one: "\n".join(one.code), merge=True),
            "Documentation": "\n".join(
                dict.fromkeys(line for one in self.listings for line in one.documentation)
            ),
            "Variables": "\n".join(typed(n, p._value, p.kind) for n, p in self.variables),
            "Constraints": constraints_of(self.variables),
            "Inputs": self._each(lambda one: _values(one.inputs, limit)),
            "Others": self._each(lambda one: _values(one.others, limit)),
            "Outputs": self._each(lambda one: _values(one.outputs, limit)),
            "Feedback": self._numbered(
                [text if limit is None else elided(text, limit) for text in self.feedback]
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

    def remembered(self) -> dict[str, Any]:
        """The values of the variables and what was said, as plain data."""
        return {
            "variables": {name: parameter._value for name, parameter in self.variables},
            "feedback": self._numbered(self.feedback),
        }

    def _each(self, text: Any, *, merge: bool = False) -> str:
        texts = [text(listing) for listing in self.listings]
        if merge and len(set(texts)) == 1:
            return str(texts[0])
        return self._numbered(texts)

    def _numbered(self, texts: Sequence[str]) -> str:
        """Texts of several outputs, each under its number; of one, the text itself."""
        if len(texts) == 1:
            return texts[0]
        return "\n".join(f"[{k}]\n{text}".rstrip() for k, text in enumerate(texts, start=1))


def constraints_of(variables: Iterable[tuple[str, Parameter]]) -> str:
    """A line for each variable that has a constraint."""
    return "\n".join(f"{name}: {p.constraint}" for name, p in variables if p.constraint)


def _values(pairs: Iterable[tuple[str, Any]], limit: int | None) -> str:
    return "\n".join(typed(name, value, limit=limit) for name, value in pairs)


def _checked(mask: Iterable[str]) -> set[str]:
    masked = {name.lstrip("#").capitalize() for name in mask}
    unknown = masked - set(SECTIONS)
    if unknown:
        raise ConfigError(
            f"there is no section {', '.join(sorted(unknown))} to mask. There are:"
            f" {', '.join(SECTIONS)}."
        )
    return masked
