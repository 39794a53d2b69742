"""``LM``: a language model to call, wherever it runs.

    >>> from sharpen import LM, Scripted
    >>> lm = LM(Scripted(["4"]))
    >>> lm("What is 2 + 2?")
    '4'
    >>> lm.usage.calls
    1

A request goes through the cache, then the budget, then to the engine; what the cache answers costs
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from sharpen.core.errors import ConfigError
from sharpen.core.lm.backends import open_engine
from sharpen.core.lm.budget import Budget
from sharpen.core.lm.errors import BudgetExhausted, ServiceError
from sharpen.core.lm.messages import (
    ChatRequest,
    ChatResponse,
    Engine,
    Message,
    as_messages,
    check_sampling,
)
from sharpen.core.lm.meter import Meter, MeteredEngine, Totals
from sharpen.core.lm.prices import Prices
from sharpen.core.lm.structured import Schema, ask

if TYPE_CHECKING:
    from sharpen.core.lm.cache import CachedEngine, ReplyCache

__all__ = ["LM"]

Prompt = str | Sequence[Message]
OnError = Literal["raise", "return"]

_OF_ALL = (BudgetExhausted, ServiceError, ConfigError)
"""Errors of which the next call would be one, too."""


class LM:
    """A language model.

    Args:
        target: ``"local:NAME"``, a model in this process (extra ``serve``); the address of an
            OpenAI-compatible server, ``"http://HOST:PORT/v1"`` (extra ``lm``); ``"scripted:FILE"``;
            or an engine, such as :class:`Scripted`. None takes the address from the environment:
            ``SHARPEN_LLM_BASE_URL``, else ``OPENAI_BASE_URL``.
        system: a system message that begins every conversation without one.
        cache: where replies are kept: a file, a :class:`ReplyCache`, True for the user's own file,
            or None for nowhere.
        budget: limits of the calls, a :class:`Budget` or its arguments.
        prices: a file of prices for ``usage.cost``, a mapping, or :class:`Prices`.
        concurrency: calls at once of :meth:`map`; for servers, of all calls.
        options: of the engine, where ``target`` is an address: ``model``, ``api_key`` and others.
        sampling: defaults of requests, the fields of :class:`ChatRequest`: ``temperature`` (0),
            ``max_tokens``, ``seed`` ...

    Raises:
        ConfigError: an unknown address, option or parameter.
        DependencyNotInstalled: what the address needs is not installed.
    """

    def __init__(
        self,
        target: str | Engine | None = None,
        *,
        system: str | None = None,
        cache: str | Path | bool | ReplyCache | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        prices: str | Path | Mapping[str, Any] | Prices | None = None,
        concurrency: int = 8,
        options: Mapping[str, Any] | None = None,
        **sampling: Any,
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency={concurrency} must be at least 1 (LM).")
        check_sampling(list(sampling))
        if target is None or isinstance(target, str):
            engine = _open(target, dict(options or {}), concurrency)
        elif options:
            raise ConfigError("options belong to an address; an engine has its own.")
        elif isinstance(target, Engine):
            engine = target
        else:
            raise ConfigError(f"{target!r:.80} is no address and no engine.")
        self.engine = engine
        self.budget = None if budget is None else Budget.of(budget)
        self.system = system
        self._concurrency = concurrency
        self._sampling = sampling
        self._meter = Meter()
        if prices is not None and not isinstance(prices, Prices):
            prices = Prices(prices)
        self._engine: Engine = MeteredEngine(engine, self._meter, self.budget, prices)
        self._cached: CachedEngine | None = None
        if cache is not None and cache is not False:
            from sharpen.core.lm.cache import CachedEngine, ReplyCache

            if not isinstance(cache, ReplyCache):
                cache = ReplyCache(None if cache is True else cache)
            self._engine = self._cached = CachedEngine(self._engine, cache)

    # -- what an engine has ----------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The model's name."""
        return self.engine.model

    @property
    def capabilities(self) -> set[str]:
        """What the engine can; see :class:`Engine`."""
        return self.engine.capabilities

    @property
    def scope(self) -> str:
        """The engine's; see :class:`Engine`."""
        return str(getattr(self.engine, "scope", ""))

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The reply to a request as it stands.

        Raises:
            BudgetExhausted: the call could exceed a limit of the budget.
            ServiceError: the engine does not answer.
            RequestError: the engine refuses the request.
        """
        return self._engine.complete(request)

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        """The same, for programs of ``asyncio``."""
        return await self._engine.acomplete(request)

    # -- asking ----------------------------------------------------------------------------------

    def __call__(self, prompt: Prompt, **sampling: Any) -> str:
        """The text of the reply; raises as :meth:`complete`.

        Args:
            prompt: the user's message, or a conversation.
            sampling: in place of the defaults.
        """
        return self.complete(self.request(prompt, **sampling)).text

    async def acall(self, prompt: Prompt, **sampling: Any) -> str:
        """The same, for programs of ``asyncio``."""
        return (await self.acomplete(self.request(prompt, **sampling))).text

    def chat(self, messages: Prompt, **sampling: Any) -> ChatResponse:
        """The whole reply: texts, tokens, why it ended."""
        return self.complete(self.request(messages, **sampling))

    async def achat(self, messages: Prompt, **sampling: Any) -> ChatResponse:
        """The same, for programs of ``asyncio``."""
        return await self.acomplete(self.request(messages, **sampling))

    def json(
        self,
        prompt: Prompt,
        schema: Mapping[str, Any] | Schema,
        *,
        retries: int = 2,
        **sampling: Any,
    ) -> Any:
        """A reply that fits a JSON schema, as plain data.

        Args:
            prompt: should say in words what is wanted.
            schema: that of the reply.
            retries: how often a reply that does not fit is asked for again, with what is wrong.
            sampling: in place of the defaults.

        Raises:
            ReplyError: no reply fits.
        """
        schema = schema if isinstance(schema, Schema) else Schema(schema)
        enforce = "json_mode" in self.capabilities
        request = self.request(prompt, **sampling)
        return ask(self.complete, request, schema, retries=retries, enforce=enforce)

    def stream(self, prompt: Prompt, **sampling: Any) -> Iterator[str]:
        """Pieces of the reply as they come; past the cache.

        Raises:
            ConfigError: the engine cannot, or there is a budget, which needs whole replies.
        """
        stream = getattr(self.engine, "stream", None)
        if stream is None or self.budget is not None:
            why = "its engine cannot" if stream is None else "a budget counts whole replies"
            raise ConfigError(f"this LM does not stream: {why}. Call it instead.")
        pieces: Iterator[str] = stream(self.request(prompt, **sampling))
        return pieces

    @overload
    def map(
        self,
        prompts: Sequence[Prompt],
        *,
        concurrency: int | None = None,
        on_error: Literal["raise"] = "raise",
        **sampling: Any,
    ) -> list[str]: ...
    @overload
    def map(
        self,
        prompts: Sequence[Prompt],
        *,
        concurrency: int | None = None,
        on_error: Literal["return"],
        **sampling: Any,
    ) -> list[str | Exception]: ...
    def map(
        self,
        prompts: Sequence[Prompt],
        *,
        concurrency: int | None = None,
        on_error: OnError = "raise",
        **sampling: Any,
    ) -> list[str] | list[str | Exception]:
        """The reply to each prompt, in their order.

        Args:
            prompts: messages of the user, or conversations.
            concurrency: calls at once; default the client's own.
            on_error: ``raise`` ends with the first error, after the calls under way; ``return``
                puts errors in the place of replies, unless they concern all that would follow: an
                exhausted budget, a server that is gone.
            sampling: in place of the defaults.
        """
        requests = [self.request(prompt, **sampling) for prompt in prompts]
        calls = [partial(self._text_of, request) for request in requests]
        return self._each(calls, concurrency, on_error)

    def map_json(
        self,
        prompts: Sequence[Prompt],
        schema: Mapping[str, Any] | Schema,
        *,
        retries: int = 2,
        concurrency: int | None = None,
        on_error: OnError = "raise",
        **sampling: Any,
    ) -> list[Any]:
        """:meth:`json` of each prompt, in their order; for the arguments see :meth:`map`."""
        schema = schema if isinstance(schema, Schema) else Schema(schema)
        calls = [
            partial(self.json, prompt, schema, retries=retries, **sampling) for prompt in prompts
        ]
        return self._each(calls, concurrency, on_error)

    def _text_of(self, request: ChatRequest) -> str:
        return self.complete(request).text

    def _each(
        self, calls: Sequence[Callable[[], Any]], concurrency: int | None, on_error: OnError
    ) -> list[Any]:
        """What each call gives, or its error."""
        ended: list[Exception] = []

        def one(call: Callable[[], Any]) -> Any:
            if ended:
                return None
            try:
                return call()
            except Exception as error:
                if on_error == "raise" or isinstance(error, _OF_ALL):
                    ended.append(error)
                return error

        workers = max(1, min(concurrency or self._concurrency, len(calls)))
        with ThreadPoolExecutor(workers, thread_name_prefix="sharpen-lm-map") as pool:
            found = list(pool.map(one, calls))
        if ended:
            raise ended[0]
        return found

    async def amap(
        self, prompts: Sequence[Prompt], *, concurrency: int | None = None, **sampling: Any
    ) -> list[str]:
        """:meth:`map` for programs of ``asyncio``; ends with the first error."""
        import asyncio

        gate = asyncio.Semaphore(concurrency or self._concurrency)

        async def one(prompt: Prompt) -> str:
            async with gate:
                return await self.acall(prompt, **sampling)

        return await asyncio.gather(*(one(prompt) for prompt in prompts))

    def request(self, prompt: Prompt, **sampling: Any) -> ChatRequest:
        """The request of a prompt, with the defaults of this client.

        Raises:
            ConfigError: an unknown parameter, or one out of range.
        """
        check_sampling(list(sampling))
        messages = as_messages(prompt)
        if self.system is not None and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": self.system}, *messages)
        return ChatRequest(messages, **{**self._sampling, **sampling})

    # -- the rest --------------------------------------------------------------------------------

    def with_(self, *, system: str | None = None, **sampling: Any) -> LM:
        """This client with other defaults; engine, cache, budget and counts are shared."""
        check_sampling(list(sampling))
        other = LM.__new__(LM)
        other.__dict__.update(self.__dict__)
        other._sampling = {**self._sampling, **sampling}
        other.system = self.system if system is None else system
        return other

    @property
    def usage(self) -> Totals:
        """What calls took so far."""
        totals = self._meter.totals
        return replace(totals, cache_hits=self._cached.hits) if self._cached is not None else totals

    def close(self) -> None:
        """Close connections of the engine, where it has any."""
        close = getattr(self.engine, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> LM:
        """The client."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self._sampling.items())
        return f"LM({self.model!r}{given})"


def _open(target: str | None, options: dict[str, Any], concurrency: int) -> Engine:
    if target is None:
        url = os.environ.get("SHARPEN_LLM_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
        if not url:
            raise ConfigError(
                "no language model is named. Write LM('local:NAME') or LM('http://HOST:PORT/v1'), "
                "or set SHARPEN_LLM_BASE_URL."
            )
        target = url
    if target.startswith(("http:", "https:")):
        options.setdefault("max_concurrency", concurrency)
    return open_engine(target, **options)
