"""Predictions out of replies; None where a reply holds none.

=============== ==============================================================
``text``        the whole reply without white space around it
``line``        its first line that is not empty
``label``       the label that stands first in it, of those given
``number``      the last number in it
``regex:P``     the first group of the first match of ``P``, or the match
``json:K``      the value of the key ``K`` of the JSON object in it
``tag:T``       what stands between ``<T>`` and ``</T>``
=============== ==============================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import ReplyError
from sharpen.core.lm.repair import find_json

__all__ = ["Parser", "make_parser"]

Parser = Callable[[str], Any]
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def make_parser(text: str, labels: Sequence[str] = ()) -> Parser:
    """The parser of a name.

    Args:
        text: as in the table above.
        labels: for ``label``.

    Raises:
        ConfigError: an unknown name, a bad expression, or no labels.
    """
    kind, _, argument = text.partition(":")
    if kind == "text" and not argument:
        return lambda reply: reply.strip() or None
    if kind == "line" and not argument:
        return lambda reply: next((x.strip() for x in reply.splitlines() if x.strip()), None)
    if kind == "number" and not argument:
        return _number
    if kind == "label" and not argument:
        return _label(labels)
    if kind == "regex" and argument:
        return _regex(argument)
    if kind == "json" and argument:
        return lambda reply: _json(reply, argument)
    if kind == "tag" and argument:
        return _regex(rf"<{re.escape(argument)}>\s*([\s\S]*?)\s*</{re.escape(argument)}>")
    raise ConfigError(
        f"there is no parser {text!r}. There are: text, line, label, number, regex:PATTERN,"
        " json:KEY, tag:NAME."
    )


def _number(reply: str) -> float | None:
    found = _NUMBER.findall(reply)
    return float(found[-1].replace(",", "")) if found else None


def _label(labels: Sequence[str]) -> Parser:
    if not labels:
        raise ConfigError("the parser 'label' needs labels: labels: [positive, negative].")
    longest = sorted(labels, key=len, reverse=True)
    pattern = re.compile(
        "|".join(rf"(?<!\w){re.escape(label)}(?!\w)" for label in longest), re.IGNORECASE
    )
    by_name = {label.casefold(): label for label in labels}

    def parse(reply: str) -> str | None:
        found = pattern.search(reply)
        return by_name[found[0].casefold()] if found else None

    return parse


def _regex(pattern: str) -> Parser:
    try:
        import re2 as engine
    except ModuleNotFoundError:
        engine = re
    try:
        compiled = engine.compile(pattern)
    except engine.error as error:
        raise ConfigError(f"the expression {pattern!r} of a parser is wrong: {error}.") from None

    def parse(reply: str) -> str | None:
        found = compiled.search(reply)
        if found is None:
            return None
        return str(found.group(1) if compiled.groups else found.group(0))

    return parse


def _json(reply: str, key: str) -> Any:
    try:
        found = find_json(reply, lambda v: None if isinstance(v, dict) and key in v else "no key")
    except ReplyError:
        return None
    return found[key]
