"""Language models behind HTTP: any server with OpenAI's ``/chat/completions``.

Sharpen's own, vLLM, llama.cpp, Ollama, a provider. What fails for a while (408, 409, 429, 5xx,
broken connections, answers that are none) is asked for again, after a wait that grows
(:mod:`sharpen.core.lm.pace`); what is refused is not. A server that does not know
``response_format``, or wants ``max_completion_tokens`` for ``max_tokens``, is asked its way once it
has said so, and from then on always.

The key goes into the header of requests and nowhere else: never into messages of errors, logs,
``repr``, caches or recordings.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sharpen.core.errors import ConfigError, DependencyNotInstalled, SharpenError
from sharpen.core.lm.addresses import key_of_environment, server_address
from sharpen.core.lm.answers import ask_body, piece_of, read_answer, read_refusal
from sharpen.core.lm.budget import prompt_bound
from sharpen.core.lm.errors import AccessError, ReplyError, RequestError, ServiceError
from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine
from sharpen.core.lm.pace import MinuteLimit, backoff_s

if TYPE_CHECKING:
    import httpx

__all__ = ["OpenAIEngine", "http", "https"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

_HIDDEN = "[key]"
_LONGEST_WAIT_S = 120.0  # that a server may ask for


class OpenAIEngine(ThreadedEngine):
    """A model of a server.

    Args:
        base_url: such as ``http://127.0.0.1:8000/v1``; None takes ``SHARPEN_LLM_BASE_URL``, else
            ``OPENAI_BASE_URL``.
        model: the name there; default ``SHARPEN_LLM_MODEL``, else the server's only model.
        api_key: default ``SHARPEN_LLM_API_KEY``; ``OPENAI_API_KEY`` only where the address is
            OpenAI's or that of ``OPENAI_BASE_URL``.
        timeout_s: for a whole answer, each time it is asked for.
        connect_timeout_s: for a connection.
        read_timeout_s: between two pieces of an answer; of one that does not stream the first comes
            when all is written. Default ``timeout_s``.
        max_retries: how often a request is sent again.
        backoff_s: the first wait is at most this long, each further one up to twice as long.
        max_concurrency: requests at once.
        rpm: requests in any minute.
        tpm: tokens in any minute, estimated as a quarter of the bytes, and ``max_tokens``.
        max_reply_bytes: a longer answer is refused.
        headers: further ones.

    Raises:
        ConfigError: no address, one that is none, or a value out of range.
        AccessError: no model is named, and the server does not have exactly one.
        DependencyNotInstalled: ``httpx`` is not installed.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float | None = None,
        max_retries: int = 5,
        backoff_s: float = 0.5,
        max_concurrency: int = 8,
        rpm: float | None = None,
        tpm: float | None = None,
        max_reply_bytes: int = 16 << 20,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        positive = {
            "timeout_s": timeout_s,
            "connect_timeout_s": connect_timeout_s,
            "read_timeout_s": read_timeout_s,
            "max_concurrency": max_concurrency,
            "rpm": rpm,
            "tpm": tpm,
            "max_reply_bytes": max_reply_bytes,
        }
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value} must be positive (OpenAIEngine).")
        if max_retries < 0 or not backoff_s >= 0:
            raise ConfigError(
                f"max_retries={max_retries} and backoff_s={backoff_s} must not be negative."
            )
        self.base_url = server_address(base_url)
        self.scope = self.base_url
        self.capabilities = {"json_mode", "logprobs", "n", "seed", "stream", "tools", "images"}
        self._key = api_key or key_of_environment(self.base_url)
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        if self._key:
            if not self._key.isascii() or not self._key.isprintable():
                raise ConfigError("the API key has characters that no key has.")
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._timeout_s = timeout_s
        self._connect_s = connect_timeout_s
        self._read_s = min(read_timeout_s or timeout_s, timeout_s)
        self._max_retries = max_retries
        self._backoff_s = backoff_s
        self._max_bytes = max_reply_bytes
        self._gate = threading.BoundedSemaphore(max_concurrency)
        self._requests = MinuteLimit(rpm) if rpm is not None else None
        self._tokens = MinuteLimit(tpm) if tpm is not None else None
        self._with_format = True
        self._limit = "max_tokens"
        self._client: httpx.Client | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._httpx = _load_httpx()
        self.model = model or os.environ.get("SHARPEN_LLM_MODEL") or self._only_model()

    # -- requests --------------------------------------------------------------------------------

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The reply.

        Raises:
            ServiceError: the server does not answer, or failed at every try.
            AccessError: it refuses the key, or has no such model.
            RequestError: it refuses the request.
            ReplyError: the answer is longer than ``max_reply_bytes``.
        """
        return self.retry(self.attempt, request)

    def attempt(self, request: ChatRequest) -> ChatResponse:
        """The reply, asked for once; raises as :meth:`complete`."""
        begin = time.perf_counter()
        body = self._body(request)
        with self._turn(request), self._sent(body) as response:
            data = self._read(response, begin)
        with self._hidden():
            if response.status_code != 200:
                raise read_refusal(response.status_code, response.headers, data)
            return read_answer(data, request, self.model, time.perf_counter() - begin)

    def retry(self, attempt: Callable[[ChatRequest], T], request: ChatRequest) -> T:
        """``attempt`` until it succeeds, is refused, or has failed too often."""
        failures = 0
        learned: set[str] = set()
        while True:
            try:
                return attempt(request)
            except RequestError as error:
                way = self._adapts(error, request)
                if not way or way in learned:
                    raise
                _log.info("%s wants %s.", self.base_url, way)
                learned.add(way)
            except ServiceError as error:
                failures += 1
                wait = error.after_s
                if wait is None:
                    wait = backoff_s(failures, self._backoff_s)
                if not error.is_transient or failures > self._max_retries or wait > _LONGEST_WAIT_S:
                    raise self._given_up(error, failures, wait) from error
                _log.info("%s; again in %.1f s", error, wait)
                time.sleep(wait)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        return ask_body(request, self.model, with_format=self._with_format, limit=self._limit)

    def _adapts(self, error: RequestError, request: ChatRequest) -> str:
        """What a refusal says of how the server wants to be asked; from then on it is."""
        told = str(error)
        if error.status != 400:
            return ""
        if request.response_format is not None and "response_format" in told:
            self._with_format = False
            self.capabilities.discard("json_mode")
            return "no response_format"
        if request.max_tokens is not None and "max_completion_tokens" in told:
            self._limit = "max_completion_tokens"
            return "max_completion_tokens"
        return ""

    def stream(self, request: ChatRequest) -> Iterator[str]:
        """Pieces of the first reply as they come; raises as :meth:`complete`.

        What fails before the first piece is asked for again.
        """
        begun = self.retry(self._begin, request)
        try:
            yield from begun
        finally:
            begun.close()

    def _begin(self, request: ChatRequest) -> _Pieces:
        pieces = self._pieces(request)
        first = next(pieces, None)
        return _Pieces(first, pieces)

    def _pieces(self, request: ChatRequest) -> Iterator[str]:
        begin = time.perf_counter()
        body = self._body(request)
        is_whole = False
        with self._turn(request), self._sent({**body, "stream": True}) as response, self._hidden():
            if response.status_code != 200:
                data = self._read(response, begin)
                raise read_refusal(response.status_code, response.headers, data)
            for line in self._lines(response, begin):
                found = piece_of(line)
                if found is not None:
                    is_whole = is_whole or found[1]
                    if found[0]:
                        yield found[0]
        if not is_whole:
            raise ServiceError(
                "the stream was cut before its end", may_have_cost=True, is_transient=True
            )

    # -- one exchange ----------------------------------------------------------------------------

    @contextmanager
    def _turn(self, request: ChatRequest) -> Iterator[None]:
        """Wait for room among the requests at once, and in the minute."""
        with self._gate:
            wait = self._requests.reserve() if self._requests is not None else 0.0
            if self._tokens is not None:
                tokens = prompt_bound(request) // 4 + request.n * (request.max_tokens or 0)
                wait = max(wait, self._tokens.reserve(tokens))
            if wait > 0:
                time.sleep(wait)
            yield

    @contextmanager
    def _sent(
        self, body: Mapping[str, Any] | None, path: str = "/chat/completions"
    ) -> Iterator[Any]:
        """A request on its way; a None body gets."""
        httpx = self._httpx
        try:
            content = None if body is None else json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"a request must be JSON: {error}.") from None
        method = "GET" if body is None else "POST"
        with self._hidden():
            try:
                with self._connected().stream(
                    method, self.base_url + path, content=content, headers=self._headers
                ) as response:
                    yield response
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                raise ServiceError(
                    f"no connection: {str(error) or type(error).__name__}", is_transient=True
                ) from None
            except (httpx.TransportError, httpx.DecodingError) as error:
                what = (
                    "no answer in time" if isinstance(error, httpx.TimeoutException) else "broken"
                )
                raise ServiceError(
                    f"the connection: {what} ({str(error) or type(error).__name__})",
                    may_have_cost=True,
                    is_transient=True,
                ) from None

    def _read(self, response: Any, begin: float) -> bytes:
        data = bytearray()
        for chunk in response.iter_bytes():
            data += chunk
            self._check(len(data), begin)
        return bytes(data)

    def _lines(self, response: Any, begin: float) -> Iterator[str]:
        size, rest = 0, b""
        for chunk in response.iter_bytes():
            size += len(chunk)
            self._check(size, begin)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "replace")
        yield rest.decode("utf-8", "replace")

    def _check(self, size: int, begin: float) -> None:
        if size > self._max_bytes:
            raise ReplyError(f"the answer has more than max_reply_bytes={self._max_bytes:,}.")
        if time.perf_counter() - begin > self._timeout_s:
            raise ServiceError(
                f"the answer was not whole after timeout_s={self._timeout_s:g}",
                may_have_cost=True,
                is_transient=True,
            )

    def _connected(self) -> httpx.Client:
        """This process's connections."""
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                timeout = self._httpx.Timeout(self._read_s, connect=self._connect_s, pool=None)
                limits = self._httpx.Limits(max_connections=None)
                self._client = self._httpx.Client(timeout=timeout, limits=limits)
                self._pid = os.getpid()
                weakref.finalize(self, self._client.close).atexit = False
            return self._client

    def _only_model(self) -> str:
        """The name of the server's only model."""

        def get(_: ChatRequest) -> bytes:
            begin = time.perf_counter()
            with self._sent(None, "/models") as response:
                data = self._read(response, begin)
            with self._hidden():
                if response.status_code != 200:
                    raise read_refusal(response.status_code, response.headers, data)
            return data

        data = self.retry(get, ChatRequest([{"role": "user", "content": ""}]))
        try:
            names = [str(row["id"]) for row in json.loads(data)["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            names = []
        if len(names) == 1:
            return names[0]
        told = ", ".join(names[:20]) or "it does not say which"
        raise AccessError(
            f"{self.base_url} does not have exactly one model ({told}): name one, with "
            "options={'model': NAME} or SHARPEN_LLM_MODEL."
        )

    # -- errors ----------------------------------------------------------------------------------

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        """Keep the key out of what servers write into their errors."""
        try:
            yield
        except SharpenError as error:
            if self._key and error.args and self._key in str(error):
                error.args = (str(error).replace(self._key, _HIDDEN), *error.args[1:])
            raise

    def _given_up(self, error: ServiceError, failures: int, wait: float) -> ServiceError:
        """The last error, with where and how often."""
        told = f"{self.base_url}: {error}"
        if error.is_transient:
            told += f" ({failures} {'time' if failures == 1 else 'times'})."
            if wait > _LONGEST_WAIT_S:
                told += f" It wants to be asked again in {wait:.0f} seconds."
            elif error.status is None and not error.may_have_cost:
                told += " Is the server running?"
        final = type(error)(told, error.status, may_have_cost=error.may_have_cost)
        final.after_s = error.after_s
        return final

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def __repr__(self) -> str:
        return f"OpenAIEngine({self.base_url!r}, model={self.model!r})"


class _Pieces:
    """A stream whose first piece is there."""

    def __init__(self, first: str | None, rest: Iterator[str]) -> None:
        self._first, self._rest = first, rest

    def __iter__(self) -> Iterator[str]:
        if self._first is not None:
            yield self._first
            yield from self._rest

    def close(self) -> None:
        close = getattr(self._rest, "close", None)
        if close is not None:
            close()


def _load_httpx() -> Any:
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise DependencyNotInstalled.for_feature("a language model over HTTP", "lm") from error
    return httpx


def http(rest: str, **options: Any) -> OpenAIEngine:
    """``http://HOST:PORT/v1``; the options are those of :class:`OpenAIEngine`."""
    return OpenAIEngine(f"http:{rest}", **options)


def https(rest: str, **options: Any) -> OpenAIEngine:
    """``https://HOST/v1``; the options are those of :class:`OpenAIEngine`."""
    return OpenAIEngine(f"https:{rest}", **options)
