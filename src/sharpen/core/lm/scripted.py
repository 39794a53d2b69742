r"""A language model that follows a script: the same replies every time, without a model.

A script is one of::

    ["Paris.", "Rome."]                    replies, one after another
    {"Capital of France?": "Paris."}       replies by the whole last message
    [(r"Capital of (\w+)", "Paris."), ...] the first rule that applies: a pattern that is found
                                           in the last message, or a function of the request
    lambda request: ...                    a function

and a reply is a text or a function of the request. Files hold the first three, the third as
``{match: PATTERN, reply: TEXT}``. Tokens are words: what stands between white space.
"""

from __future__ import annotations

import difflib
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from sharpen.core.config import load_yaml
from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import UnexpectedPrompt
from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine, Usage, text_of

__all__ = ["Scripted", "difference", "load_script", "nearest"]

Reply: TypeAlias = str | Callable[[ChatRequest], str]
Condition: TypeAlias = "str | re.Pattern[str] | Callable[[ChatRequest], bool]"
Script: TypeAlias = (
    Sequence[str] | Mapping[str, Reply] | Sequence[tuple[Condition, Reply]] | Callable[..., str]
)
_WORD = re.compile(r"\S+")


class Scripted(ThreadedEngine):
    r"""Replies by a script.

    Args:
        script: see above.
        strict: refuse what the script has no reply to; else the reply is empty.
        model: its name; scripts of one name given here share cached replies, other scripts share
            them if they are equal data.

    Attributes:
        requests: all that were asked, in the order in which they came.

    Raises:
        ConfigError: the script is none of these, or a pattern is wrong.

    Examples:
        >>> lm = Scripted([(r"capital of (\w+)", "Paris.")])
        >>> lm.complete(ChatRequest("What is the capital of France?")).text
        'Paris.'
    """

    def __init__(self, script: Script, *, strict: bool = True, model: str | None = None) -> None:
        self.model = model or "scripted"
        self.capabilities = {"json_mode", "n", "seed"}
        self.requests: list[ChatRequest] = []
        self._strict = strict
        self._lock = threading.Lock()
        self._replies: list[str] | None = None
        self._rules: list[tuple[Condition, Reply]] = []
        self._given = 0
        rows: list[Any] = [] if callable(script) else list(script)
        if callable(script):
            self._rules = [(lambda request: True, script)]
        elif isinstance(script, Mapping):
            self._rules = [(_exactly(prompt), reply) for prompt, reply in script.items()]
        elif all(isinstance(row, str) for row in rows):
            self._replies = rows
        elif all(isinstance(row, tuple) and len(row) == 2 for row in rows):
            self._rules = [(_condition(one), reply) for one, reply in rows]
        else:
            raise ConfigError(
                "a script must be a list of replies, a mapping of prompts to replies, a list of "
                "pairs of pattern and reply, or a function."
            )
        self._patterns = _patterns(script)
        for _, reply in self._rules:
            if not isinstance(reply, str) and not callable(reply):
                raise ConfigError(f"a reply must be a text or a function, got {reply!r:.80}.")
        self.scope = f"scripted {model or _identity(script)}"

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The script's reply.

        Raises:
            UnexpectedPrompt: it has none; the message shows the nearest prompt and the difference.
        """
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            if self._replies is not None:
                drawn = self._replies[self._given : self._given + request.n]
                self._given += len(drawn)
        if self._replies is not None:
            texts = drawn
            if len(texts) < request.n and self._strict:
                raise UnexpectedPrompt(
                    f"the script has {len(self._replies)} replies, and call {number} asks for "
                    f"another: {request.prompt!r:.400}"
                )
            texts = texts + [""] * (request.n - len(texts))
        else:
            texts = [self._by_rule(request) for _ in range(request.n)]
        cut = [_cut(text, request.max_tokens) for text in texts]
        usage = Usage(
            prompt=sum(_words(text_of(message)) for message in request.messages),
            completion=sum(_words(text) for text in cut),
        )
        pairs = zip(cut, texts, strict=True)
        reasons = ["length" if one != text else "stop" for one, text in pairs]
        return ChatResponse(cut, usage, reasons, self.model)

    def _by_rule(self, request: ChatRequest) -> str:
        for condition, reply in self._rules:
            if callable(condition):
                applies = condition(request)
            else:
                applies = re.search(condition, request.prompt) is not None
            if applies:
                text = reply if isinstance(reply, str) else reply(request)
                if not isinstance(text, str):
                    raise ConfigError(f"a script's function gave {text!r:.80}; it must be a text.")
                return text
        if not self._strict:
            return ""
        raise UnexpectedPrompt(self._told(request.prompt))

    def _told(self, prompt: str) -> str:
        message = f"no rule of the script applies to the prompt {prompt!r:.400}."
        near = nearest(prompt, self._patterns)
        if near is None:
            return message
        return f"{message} The nearest that it knows:\n{difference(near, prompt)}"


def _exactly(prompt: str) -> Callable[[ChatRequest], bool]:
    return lambda request: request.prompt == prompt


def _condition(one: Any) -> Condition:
    if isinstance(one, str):
        try:
            return re.compile(one)
        except re.error as error:
            raise ConfigError(f"the pattern {one!r} of a script is wrong: {error}.") from None
    if isinstance(one, re.Pattern) or callable(one):
        found: Condition = one
        return found
    raise ConfigError(f"a rule begins with a pattern or a function, got {one!r:.80}.")


def _patterns(script: Script) -> list[str]:
    """Prompts or patterns of a script, to show the nearest."""
    if isinstance(script, Mapping):
        return list(script)
    if callable(script):
        return []
    conditions = [row[0] for row in script if isinstance(row, tuple)]
    texts = [one.pattern if isinstance(one, re.Pattern) else one for one in conditions]
    return [one for one in texts if isinstance(one, str)]


def _identity(script: Script) -> str:
    """Equal for equal plain data; of functions each is its own."""
    if callable(script):
        return uuid.uuid4().hex
    rows = list(script.items()) if isinstance(script, Mapping) else list(script)
    flat = [one for row in rows for one in (row if isinstance(row, tuple) else (row,))]
    if not all(isinstance(one, str) for one in flat):
        return uuid.uuid4().hex
    return sha256(repr((type(script).__name__, rows)).encode("utf-8", "surrogatepass")).hexdigest()


def _words(text: str) -> int:
    return len(text.split())


def _cut(text: str, max_tokens: int | None) -> str:
    """The first words of a text."""
    if max_tokens is None or _words(text) <= max_tokens:
        return text
    for i, word in enumerate(_WORD.finditer(text), start=1):
        if i == max_tokens:
            return text[: word.end()]
    raise AssertionError


def nearest(prompt: str, known: Sequence[str]) -> str | None:
    """The most similar of some texts, by their beginnings; None when there are none."""
    match = difflib.SequenceMatcher(autojunk=False)
    match.set_seq2(prompt[:2000])
    best, found = -1.0, None
    for one in known[:1000]:
        match.set_seq1(one[:2000])
        if match.quick_ratio() > best:
            best, found = match.quick_ratio(), one
    return found


def difference(known: str, asked: str) -> str:
    """Lines that two texts do not share, marked - and +."""
    lines = difflib.unified_diff(
        known.splitlines(), asked.splitlines(), "known", "asked", lineterm="", n=1
    )
    return "\n".join(list(lines)[:60])


def load_script(path: str | Path) -> Scripted:
    """A script of a YAML or JSON file.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: it holds something else than a script.
    """
    data = load_yaml(path).data
    if isinstance(data, list):
        data = [_rule(row, f"{path}: entry {i}") for i, row in enumerate(data, start=1)]
    if not isinstance(data, list | dict) or not data:
        raise ConfigError(f"{path} must hold a list or a mapping of replies.")
    return Scripted(data)


def _rule(row: Any, where: str) -> Any:
    if isinstance(row, dict):
        if set(row) != {"match", "reply"} or not all(isinstance(v, str) for v in row.values()):
            raise ConfigError(f"{where} must be {{match: PATTERN, reply: TEXT}}, got {row!r:.80}.")
        return row["match"], row["reply"]
    if not isinstance(row, str):
        raise ConfigError(f"{where} must be a text or {{match: PATTERN, reply: TEXT}}.")
    return row
