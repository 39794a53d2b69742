r"""A JSON value out of what a model wrote around it, or almost.

Each place is read in each way, and the next only if nothing before it is accepted::

    places                                     ways
    1. the whole text                          1. as it stands
    2. what stands between code fences         2. without comments and trailing commas
    3. the outermost balanced objects and      3. as Python's literals: None, True, 'a'
       lists                                   4. with raw line ends and tabs in strings escaped,
    4. <name>value</name> for each property       then with typographic quotes made plain
       of a schema

Of several values the last that is accepted is taken: models think first and answer last. An object
that is cut off at the end of the text ends the search, so that neither a part of it nor a draft
before it is taken for the whole. NaN, infinities,
deep nesting and texts of megabytes are refused; the time is linear in the text.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sharpen.core.lm.errors import ReplyError

__all__ = ["find_json"]

_MOST_CHARS = 1_000_000
_MOST_DEPTH = 64
_MOST_RESTARTS = 8  # each reads the rest of the text
_MOST_LITERAL = 100_000
_CLOSES = {"{": "}", "[": "]"}
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"'})
_BEGINS = re.compile(r'\{\s*["\'}“]|\[\s*["\'\[{\d\]“-]')
_STRING = r'"(?:[^"\\]|\\.)*(?:"|\Z)'  # one that is not closed goes to the end
_COMMENT = r"//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)|(?m:^[ \t]*#[^\n]*)"
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def find_json(
    text: str,
    accept: Callable[[Any], str | None] = lambda value: None,
    *,
    properties: Mapping[str, Any] | None = None,
) -> Any:
    r"""The JSON value in a reply.

    Args:
        text: the reply.
        accept: says what is wrong with a value, or None.
        properties: of the object that is wanted, a schema each, for replies in tags.

    Raises:
        ReplyError: there is none, or none that is accepted; the message says why.

    Examples:
        >>> find_json("Sure!\n```json\n{'score': 4,}\n```")
        {'score': 4}
    """
    if len(text) > _MOST_CHARS:
        raise ReplyError(f"the reply has {len(text):,} characters; {_MOST_CHARS:,} are read.")
    text = text.strip().lstrip("\ufeff")
    reason = ""
    places, cut = _places(text)
    for place in places:
        for fix in _FIXES:
            try:
                value = _checked(fix(place))
            except _NotJson:
                continue
            wrong = accept(value)
            if wrong is None:
                return value
            reason = reason or wrong
    tagged = _tagged(text, properties or {})
    if tagged is not None:
        wrong = accept(tagged)
        if wrong is None:
            return tagged
        reason = reason or wrong
    if not reason:
        reason = "it is cut off inside of an object" if cut else "it holds no JSON"
    raise ReplyError(f"the reply cannot be used: {reason}. It was: {text!r:.300}", text)


class _NotJson(ValueError):
    pass


def _places(text: str) -> tuple[list[str], bool]:
    """Texts that may be the value, likeliest first, and whether an object is cut off."""
    fenced = [_fence(part) for part in text.split("```")[1::2]]
    balanced, cut = _balanced(text)
    if cut:
        return [text], True
    return list(dict.fromkeys([text, *reversed(fenced), *reversed(balanced)])), cut


def _fence(part: str) -> str:
    first, _, rest = part.partition("\n")
    return rest.strip() if re.fullmatch(r"\s*[\w+-]*\s*", first) else part.strip()


def _balanced(text: str) -> tuple[list[str], bool]:
    """The outermost objects and lists, and whether the text ends inside of one."""
    found: list[str] = []
    at, restarts = 0, 0
    opening = re.compile(r"[{\[]")
    while restarts < _MOST_RESTARTS and (begin := opening.search(text, at)):
        end = _end_of(text, begin.start())
        if end is not None:
            found.append(text[begin.start() : end])
            at = end
        elif _BEGINS.match(text, begin.start()):
            return found, not found or begin[0] == "{"
        else:  # a brace of the prose
            restarts += 1
            at = begin.end()
    return found, False


def _end_of(text: str, start: int) -> int | None:
    """Where the object or list that begins at ``start`` ends; None where it does not."""
    stack: list[str] = []
    quote = ""
    marks = re.compile(r'[{}\[\]"\'\\]')
    at = start
    while mark := marks.search(text, at):
        char, at = mark[0], mark.end()
        if char == "\\":
            at += 1
        elif quote:
            if char == quote:
                quote = ""
        elif char == '"' or (char == "'" and _opens(text, mark.start())):
            quote = char
        elif char in _CLOSES:
            stack.append(_CLOSES[char])
        elif char in "}]":
            if not stack or stack.pop() != char:
                return None
            if not stack:
                return at
    return None


def _opens(text: str, at: int) -> bool:
    """Whether an apostrophe begins a string: after what may stand before a value."""
    before = text[max(0, at - 20) : at].rstrip()
    return bool(before) and before[-1] in "{[:,"


def _strict(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise _NotJson(f"{name} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise _NotJson(str(error)) from None


def _outside_strings(text: str, change: Callable[[str], str]) -> str:
    """``change`` on what stands outside of double-quoted strings."""
    parts = re.split(f"({_STRING})", text, flags=re.DOTALL)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def _without_comments(text: str) -> str:
    """Without comments and trailing commas; a pass that knows strings, which may hold "//"."""
    kept = re.sub(f"({_STRING})|{_COMMENT}", lambda m: m[1] or "", text, flags=re.DOTALL)
    return _outside_strings(kept, lambda part: re.sub(r",(\s*[}\]])", r"\1", part))


def _literal(text: str) -> Any:
    if len(text) > _MOST_LITERAL:
        raise _NotJson("too long")
    plain = _outside_strings(
        _without_comments(text),
        lambda part: re.sub(
            r"\b(?:true|false|null)\b",
            lambda m: {"true": "True", "false": "False", "null": "None"}[m[0]],
            part,
        ),
    )
    try:
        value = ast.literal_eval(plain)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise _NotJson(str(error)) from None
    if not isinstance(value, dict | list):
        raise _NotJson("no object")
    return value


def _escaped(text: str) -> str:
    """Raw line ends and tabs inside of strings, escaped."""
    return re.sub(
        _STRING,
        lambda m: re.sub(r"[\n\r\t]", lambda c: _ESCAPES[c[0]], m[0]),
        text,
        flags=re.DOTALL,
    )


_FIXES: Sequence[Callable[[str], Any]] = (
    _strict,
    lambda text: _strict(_without_comments(text)),
    _literal,
    lambda text: _strict(_escaped(_without_comments(text))),
    lambda text: _strict(_escaped(_without_comments(text.translate(_QUOTES)))),
)


def _checked(value: Any) -> Any:
    """The value, unless it is nested too deeply or holds what JSON does not."""
    rows, depth = [value], 0
    while rows:
        depth += 1
        if depth > _MOST_DEPTH:
            raise _NotJson(f"nested more than {_MOST_DEPTH} deep")
        inner: list[Any] = []
        for one in rows:
            if isinstance(one, dict):
                if not all(isinstance(key, str) for key in one):
                    raise _NotJson("a key is no text")
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, float) and not math.isfinite(one):
                raise _NotJson("a number is not finite")
            elif not isinstance(one, str | int | float | None):
                raise _NotJson(f"{type(one).__name__} is no JSON")
        rows = inner
    return value


def _tagged(text: str, properties: Mapping[str, Any]) -> dict[str, Any] | None:
    """Values in tags that are named as the properties; None where there are none."""
    found: dict[str, Any] = {}
    for name, schema in properties.items():
        begin = text.rfind(f"<{name}>")
        end = text.find(f"</{name}>", begin) if begin >= 0 else -1
        if end < 0:
            continue
        inner = text[begin + len(name) + 2 : end].strip()
        is_text = isinstance(schema, Mapping) and schema.get("type") == "string"
        try:
            found[name] = inner if is_text else _checked(_strict(inner))
        except _NotJson:
            found[name] = inner
    return found or None
