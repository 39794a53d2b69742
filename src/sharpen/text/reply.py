"""What a model proposes, out of what it wrote.

JSON is searched for as in :mod:`sharpen.core.lm.repair`; where there is none, values in tags
``<variable name="...">...</variable>`` are taken. A reply that is cut off gives nothing.
"""

from __future__ import annotations

import re
from typing import Any

from sharpen.core.lm.errors import ReplyError
from sharpen.core.lm.repair import find_json
from sharpen.text.optimizers.base import Suggestion

__all__ = ["parse_suggestion", "without_fence"]

_VARIABLE = re.compile(
    r"<variable\s+name\s*=\s*[\"']?([^\"'>]+?)[\"']?\s*>\n?(.*?)\n?</variable>", re.DOTALL
)
_FENCE = re.compile(r"\A\s*```[\w+-]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_TERMINATE = re.compile(r"\W*TERMINATE\W*")


def without_fence(text: str) -> str:
    """A text without the code fence around all of it, if there is one."""
    found = _FENCE.match(text)
    return found[1] if found else text


def parse_suggestion(text: str) -> Suggestion:
    """What a reply proposes.

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
    if _TERMINATE.fullmatch(text):
        return Suggestion(terminated=True)
    try:
        found = find_json(text, _wrong)
    except ReplyError as error:
        tagged = {name.strip(): value for name, value in _VARIABLE.findall(text)}
        if not tagged:
            raise ReplyError(str(error), text) from None
        return Suggestion(
            values=_plain(tagged), reasoning=_tag(text, "reasoning"), answer=_tag(text, "answer")
        )
    return Suggestion(
        values=_plain(found["suggestion"]),
        reasoning=_words(found.get("reasoning")),
        answer=_words(found.get("answer")),
    )


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
