r"""Calls of functions in a model's text: how each family writes them, read as the text grows.

::

    hermes        <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>     (Hermes, Qwen)
    llama3_json   {"name": ..., "parameters": {...}}   several with ; between them   (Llama 3)

The chat template shows a model the functions; it answers in the form it was trained on. Where a
call is required, a grammar lets nothing else through. Text that is no call stays text.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.serve.grammar import Grammar
from sharpen.serve.grammar_check import SPACE

__all__ = ["FORMATS", "ToolCall", "ToolFormat", "ToolReader", "guess_format"]


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How calls are written."""

    opening: str
    """Before a call; empty where the text begins with it."""

    closing: str
    """After a call."""

    between: str
    """Between calls."""

    arguments: str
    """Key of the arguments."""

    def grammar(self, tools: Sequence[Mapping[str, Any]], *, several: bool = True) -> Grammar:
        """Calls of these functions and nothing else.

        Args:
            tools: ``{"name": ..., "parameters": JSON schema}`` each, at least one.
            several: whether more than one call may come.
        """
        rules = []
        for number, tool in enumerate(tools):
            name, schema = json.dumps(tool["name"]), tool.get("parameters") or {}
            before = f'{self.opening}{{"name": {name}, "{self.arguments}": '
            after = f"}}{self.closing}"
            options = {"whitespace_pattern": SPACE}
            whole = {"type": "object", **schema, "x-guidance": options}
            rules += [
                f"call{number}: {json.dumps(before)} arguments{number} {json.dumps(after)}",
                f"arguments{number}: %json {json.dumps(whole)}",
            ]
        calls = " | ".join(f"call{number}" for number in range(len(tools)))
        more = f" ({json.dumps(self.between)} call)*" if several else ""
        return Grammar.lark("\n".join([f"start: call{more}", f"call: {calls}", *rules]))


FORMATS = {
    "hermes": ToolFormat("<tool_call>\n", "\n</tool_call>", "\n", "arguments"),
    "llama3_json": ToolFormat("", "", "; ", "parameters"),
}


def guess_format(template: str | None) -> str | None:
    """Name of the format that a chat template shows its model; None where it shows none."""
    if template is None or "tools" not in template:
        return None
    if "<tool_call>" in template:
        return "hermes"
    return "llama3_json" if '"parameters"' in template else None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call."""

    name: str
    """Of the function."""

    arguments: str
    """A JSON object."""

    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")
    """What the answer to it refers to."""


class ToolReader:
    """Finds calls in a text that comes in pieces.

    Args:
        kind: a name of :data:`FORMATS`.
        names: functions there are; calls of others stay text.

    Raises:
        ConfigError: another format.
    """

    def __init__(self, kind: str, names: Sequence[str]) -> None:
        if kind not in FORMATS:
            raise ConfigError(f"tool_parser={kind!r} must be {' or '.join(FORMATS)}.")
        self._format = FORMATS[kind]
        self._names = frozenset(names)
        self._held = ""
        self._is_text = False  # with tags: since the last call
        self.num_calls = 0

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """Add text; returns what is text for certain, and calls that are complete."""
        self._held += text
        return self._tagged(False) if self._format.opening else self._bare(False)

    def finish(self) -> tuple[str, list[ToolCall]]:
        """What is left at the end."""
        return self._tagged(True) if self._format.opening else self._bare(True)

    def _tagged(self, is_end: bool) -> tuple[str, list[ToolCall]]:
        """Calls between tags, with text around them."""
        opening, closing = self._format.opening.strip(), self._format.closing.strip()
        text, calls = "", []
        while (start := self._held.find(opening)) >= 0:
            end = self._held.find(closing, start)
            if end < 0:
                break
            inside = self._held[start + len(opening) : end]
            before, self._held = self._held[:start], self._held[end + len(closing) :]
            call = self._call(inside)
            if call is None:
                text += f"{before}{opening}{inside}{closing}"
                self._is_text = True
            else:
                text += before if before.strip() or self._is_text else ""
                calls.append(call)
                self._is_text = False
        if is_end:
            rest, self._held = self._held, ""
        else:  # white space waits for what follows: alone around calls it is no text
            cut = start if start >= 0 else len(self._held) - _overlap(self._held, opening)
            if not self._is_text and not self._held[:cut].strip():
                cut = 0
            rest, self._held = self._held[:cut], self._held[cut:]
        self.num_calls += len(calls)
        self._is_text |= bool(rest.strip())
        if self.num_calls and not self._is_text:
            rest = ""
        return text + rest, calls

    def _bare(self, is_end: bool) -> tuple[str, list[ToolCall]]:
        """A text that is calls as a whole, or none."""
        begin = self._held.lstrip()
        if begin and not begin.startswith("{"):
            self._is_text = True
        if not (self._is_text or is_end):
            return "", []
        held, self._held = self._held, ""
        found = None if self._is_text else self._several(held)
        if found is None:
            return held, []
        self.num_calls += len(found)
        return "", found

    def _several(self, text: str) -> list[ToolCall] | None:
        decoder, at, calls = json.JSONDecoder(), 0, []
        while at < len(text):
            at = re.compile(r"[\s;]*").match(text, at).end()  # type: ignore[union-attr]
            if at == len(text):
                break
            try:
                _, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                return None
            call = self._call(text[at:end])
            if call is None:
                return None
            calls.append(call)
            at = end
        return calls or None

    def _call(self, text: str) -> ToolCall | None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or value.get("name") not in self._names:
            return None
        arguments = value.get(self._format.arguments, {})
        if not isinstance(arguments, dict):
            return None
        told = json.dumps(arguments, ensure_ascii=False)
        if any("\ud800" <= c <= "\udfff" for c in told):  # half characters stay escaped
            told = json.dumps(arguments)
        return ToolCall(value["name"], told)


def _overlap(text: str, opening: str) -> int:
    """Length of the longest end of ``text`` that begins ``opening``."""
    sizes = range(min(len(opening) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(opening[:size])), 0)
