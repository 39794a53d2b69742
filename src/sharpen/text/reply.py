"""What a model proposes, out of what it wrote.

JSON is searched for as in :mod:`sharpen.core.lm.repair`; where there is none, values in tags
``<variable name="...">...</variable>`` are taken. A reply that is cut off, or whose tags do not
pair, gives nothing: a part of a value is never taken for the whole. What a model thinks aloud at
the beginning, ``<think>...</think>``, is left out.
"""

from __future__ import annotations

import re
from typing import Any

from sharpen.core.lm.errors import ReplyError
from sharpen.core.lm.repair import find_json
from sharpen.text.optimizers.base import Suggestion

__all__ = ["all_between", "between", "parse_suggestion", "without_fence"]

_VARIABLE = re.compile(r"<variable\s+name\s*=\s*[\"']?([^\"'<>]+?)[\"']?\s*>")
_THOUGHT = re.compile(r"\A\s*<(think|thinking)>.*?</\1>", re.DOTALL)
_FENCE = re.compile(r"\A\s*```[\w+-]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_TERMINATE = re.compile(r"\W*TERMINATE\W*")


def without_fence(text: str) -> str:
    """A text without the code fence around all of it, if there is one."""
    found = _FENCE.match(text)
    return found[1] if found else text


def between(text: str, begin: str, end: str) -> str:
    """The value between two tags, without white space and a code fence around it.

    Of several values the last is taken: models think first and answer last. Tags within a value
    stay where they pair.

    Raises:
        ReplyError: there is none, it is cut off, or the tags do not pair.

    Examples:
        >>> between("<think>so <NEW>?</think> <NEW>a <NEW>b</NEW></NEW>", "<NEW>", "</NEW>")
        'a <NEW>b</NEW>'
    """
    return all_between(text, begin, end)[-1]


def all_between(text: str, begin: str, end: str) -> list[str]:
    """Every value between two tags, in order; see :func:`between`.

    Raises:
        ReplyError: there is none, one is cut off, or the tags do not pair.
    """
    marks = re.compile(f"{re.escape(begin)}|{re.escape(end)}")
    found = _tagged(_THOUGHT.sub("", text), marks, end)
    if not found:
        raise ReplyError(f"the reply has no value between {begin} and {end}", text)
    return [without_fence(value.strip()) for _, value in found]


def _tagged(text: str, marks: re.Pattern[str], end: str) -> list[tuple[str, str]]:
    """Opening tags with what stands up to their closing ones, those that are not within others.

    Raises:
        ReplyError: tags do not pair; a closing one before the first opening one counts as prose.
    """
    found: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    depth = 0
    for mark in marks.finditer(text):
        if mark[0] != end:
            opened = opened if depth else mark
            depth += 1
        elif depth:
            depth -= 1
            if not depth and opened is not None:
                found.append((opened[0], text[opened.end() : mark.start()]))
        elif found:
            raise ReplyError(f"one {end} too many, so that it is unclear where a value ends", text)
    if depth:
        raise ReplyError(f"a {end} is missing: the reply is cut off, or tags stand in it", text)
    return found


def parse_suggestion(text: str, *, cut: bool = False) -> Suggestion:
    """What a reply proposes.

    Args:
        text: the reply.
        cut: whether a limit of tokens ended it: further tags may be missing then.

    Raises:
        ReplyError: nothing that could be taken for a proposal; the message says why.

    Examples:
        >>> parse_suggestion('Thus: {"reasoning": "...", "suggestion": {"a": 3}}').values
        {'a': 3}
        >>> parse_suggestion('<variable name="a">3</variable>').values
        {'a': '3'}
        >>> parse_suggestion("TERMINATE").terminated
        True
    """
    whole, text = text, _THOUGHT.sub("", text)
    if _TERMINATE.fullmatch(text):
        return Suggestion(terminated=True)
    try:
        found = find_json(text, _wrong)
    except ReplyError as error:
        marks = re.compile(f"{_VARIABLE.pattern}|</variable>")
        tagged = {
            _name(tag): value.removeprefix("\n").removesuffix("\n")
            for tag, value in _tagged(text, marks, "</variable>")
        }
        if not tagged:
            raise ReplyError(str(error), whole) from None
        if cut:
            raise ReplyError(
                "its limit of tokens ended it, so values may be missing", whole
            ) from None
        return Suggestion(
            values=_plain(tagged), reasoning=_tag(text, "reasoning"), answer=_tag(text, "answer")
        )
    return Suggestion(
        values=_plain(found["suggestion"]),
        reasoning=_words(found.get("reasoning")),
        answer=_words(found.get("answer")),
    )


def _name(tag: str) -> str:
    named = _VARIABLE.fullmatch(tag)
    assert named is not None
    return named[1].strip()


def _wrong(value: Any) -> str | None:
    if not isinstance(value, dict) or "suggestion" not in value:
        return "there is no object with the key 'suggestion'"
    if not isinstance(value["suggestion"], dict):
        return "'suggestion' must be an object of values by variable name"
    return None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: without_fence(v) if isinstance(v, str) else v for k, v in values.items()}


def _tag(text: str, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return found[1].strip() if found else ""


def _words(value: Any) -> str:
    return value if isinstance(value, str) else "" if value in (None, {}, []) else str(value)
