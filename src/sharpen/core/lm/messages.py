"""A request to a language model, its reply, and what an engine must offer.

The names are those of OpenAI's chat API. A request is plain data: its canonical JSON is what caches
and recordings know it by. Engines are synchronous and safe for threads; ``acomplete`` of those here
runs ``complete`` in a thread (:class:`ThreadedEngine`), so that there is one path to test.
"""

from __future__ import annotations

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any, Protocol, TypeAlias, runtime_checkable

from sharpen.core.errors import ConfigError, DataError, did_you_mean

__all__ = [
    "SAMPLING",
    "ChatRequest",
    "ChatResponse",
    "Engine",
    "Message",
    "ThreadedEngine",
    "Usage",
    "as_messages",
    "check_sampling",
    "text_of",
]

Message: TypeAlias = Mapping[str, Any]
"""``{"role": ..., "content": ...}``; the content is a text or a list of parts."""

_MOST_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a call, as the engine counts them."""

    prompt: int = 0
    """Of the messages."""

    completion: int = 0
    """Of all replies."""

    cached: int = 0
    """Of the prompt, those that the engine had at hand."""

    @property
    def total(self) -> int:
        """Prompt and completion."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked of a model."""

    messages: Sequence[Message]
    """The conversation; the last message is what the model replies to."""

    temperature: float = 0.0
    """0 takes the most likely token."""

    top_p: float | None = None
    """Only the fewest most likely tokens whose probability reaches this; None for the engine's."""

    max_tokens: int | None = None
    """At most so many tokens a reply; None for the engine's limit."""

    stop: Sequence[str] | None = None
    """Texts that end a reply."""

    seed: int | None = None
    """The same seed gives the same reply, where the engine can."""

    n: int = 1
    """Number of replies."""

    response_format: Mapping[str, Any] | None = None
    """As in OpenAI's API: ``{"type": "json_schema", "json_schema": {"schema": ...}}``."""

    logprobs: int | None = None
    """Give log-probabilities, and those of so many likeliest tokens, in ``raw``."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the body that an engine understands, such as ``top_k``."""

    repeat: int | None = None
    """Which of several draws of one request this is; without it, replies drawn at a temperature
    above 0 are not cached. Not sent."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a parameter is out of range.
            DataError: the messages are none.
        """
        object.__setattr__(self, "messages", as_messages(self.messages))
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        if not 0 <= self.temperature <= 2:
            raise ConfigError(f"temperature={self.temperature} must be from 0 to 2 (ChatRequest).")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must be above 0 and at most 1 (ChatRequest).")
        for name, low in (("max_tokens", 1), ("n", 1), ("logprobs", 0), ("repeat", 0)):
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigError(f"{name}={value} must be at least {low} (ChatRequest).")

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data, equal for equal requests."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def digest(self, *about: str) -> str:
        """sha256, as 64 hex digits, of the whole request.

        Args:
            about: what else decides the reply, such as the model.

        Raises:
            DataError: a message or parameter is no JSON.
        """
        try:
            text = json.dumps(
                [*about, asdict(self)], sort_keys=True, ensure_ascii=False, separators=(",", ":")
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"a request must be JSON: {error}.") from None
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def prompt(self) -> str:
        """Text of the last message."""
        return text_of(self.messages[-1])


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """What a model replied."""

    texts: Sequence[str]
    """``ChatRequest.n`` replies."""

    usage: Usage | None = None
    """None where the engine did not say, or said what cannot be."""

    finish_reasons: Sequence[str] = ()
    """Of each reply: ``stop``, ``length``, or another word of the engine."""

    model: str = ""
    """The model, as the engine calls it."""

    latency_s: float = 0.0
    """Seconds from the request to the reply."""

    raw: Any = None
    """The engine's whole answer, where it is JSON."""

    @property
    def text(self) -> str:
        """The first reply."""
        return self.texts[0]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChatResponse:
        """From what :meth:`to_json` gave.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        usage = data.get("usage")
        found = cls(
            texts=[_text(one) for one in data["texts"]],
            usage=None if usage is None else Usage(**usage),
            finish_reasons=list(data.get("finish_reasons", ())),
            model=str(data.get("model", "")),
            latency_s=float(data.get("latency_s", 0.0)),
            raw=data.get("raw"),
        )
        if not found.texts:
            raise ValueError("no texts")
        return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


@runtime_checkable
class Engine(Protocol):
    """Answers requests; safe for threads.

    What an engine may also have: ``scope``, a text that parts its replies in a cache from those of
    another engine with a model of the same name; ``stream(request)``, an iterator of pieces of the
    reply; ``attempt(request)`` and ``retry(attempt, request)``, which ``complete`` is made of, so
    that each try can be counted; ``close()``.
    """

    model: str
    """Its model's name."""

    capabilities: set[str]
    """Some of ``json_mode``, ``logprobs``, ``n``, ``seed``, ``stream``, ``tools``, ``images``."""

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The reply."""

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        """The same, for programs of ``asyncio``."""


class ThreadedEngine(ABC):
    """The ``acomplete`` of an engine that has ``complete``: in a thread of a pool of its own."""

    _pool: ThreadPoolExecutor | None = None
    _pool_lock = threading.Lock()

    @abstractmethod
    def complete(self, request: ChatRequest) -> ChatResponse:
        """See :class:`Engine`."""

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        """See :class:`Engine`; a request that was begun runs to its end even if it is cancelled."""
        with ThreadedEngine._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="sharpen-lm")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.complete, request)


SAMPLING = tuple(f.name for f in fields(ChatRequest) if f.name != "messages")
"""Names of the parameters of a request."""


def check_sampling(names: Sequence[str]) -> None:
    """Refuse what is no parameter of a request.

    Raises:
        ConfigError: with the nearest name.
    """
    for name in names:
        if name not in SAMPLING:
            raise ConfigError(
                f"there is no sampling parameter '{name}'.{did_you_mean(name, SAMPLING)} "
                f"Known: {', '.join(SAMPLING)}. What only your server knows goes into extra."
            )


def as_messages(messages: str | Sequence[Message]) -> tuple[dict[str, Any], ...]:
    """Messages of a text, which is the user's, or of a conversation.

    Raises:
        DataError: none, or one without role and content.
    """
    if isinstance(messages, str):
        return ({"role": "user", "content": messages},)
    given: Any = messages  # from users
    if not isinstance(given, Sequence) or not given:
        raise DataError(f"messages must be a list that is not empty, got {given!r:.80}.")
    for i, one in enumerate(given):
        if not isinstance(one, Mapping) or not isinstance(one.get("role"), str):
            raise DataError(f"messages[{i}] must have a role and a content, got {one!r:.80}.")
    return tuple(dict(one) for one in given)


def text_of(message: Message) -> str:
    """Text of a message; of a list of parts, that of those that have one."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [one.get("text") for one in content if isinstance(one, Mapping)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""
