"""What a worker answers to routers and to other workers, beside the ordinary API.

::

    GET  /split/info           the model's fingerprint, the role, room for keys and values
    POST /split/prompt         compute a prompt, and send keys and values to the target
    POST /split/tokens         hold blocks, then go on once they are filled; or do both phases here
    POST /split/vector         the vector of a text
    PUT  /split/kv/{id}        keys and values of a held request, as records
    POST /split/ring           whether a ring of memory of another worker is reached from here

The first three POSTs answer with JSON lines: ``{"reserved": true}``, ``{"token": 5}``, where asked
for with log-probabilities (``score``, ``prompt``), ``{"sent": bytes}``, ``{"vector": text}``,
``{"end": reason, "error": text}``. The connection is the request's life: when it closes, blocks are
free within a round, on whichever side, so nothing is kept for a router that is gone.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import http.client
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from sharpen.core.errors import ConfigError, ExecutionError, FileFormatError
from sharpen.serve.api.errors import ApiError
from sharpen.serve.api.state import ServerState
from sharpen.serve.embedding import Embedding, Pooling
from sharpen.serve.grammar import Grammar
from sharpen.serve.request import Piece
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.split.engine import SplitLLM, TokenContinuation
from sharpen.serve.split.records import KVReader, KVSender, KVWriter
from sharpen.serve.split.ring import Connector, Ring, Rings

__all__ = [
    "Role",
    "WorkerConfig",
    "add_split_routes",
    "pack_params",
    "send_records",
    "unpack_params",
]

_log = logging.getLogger(__name__)
Role = Literal["prefill", "decode", "mixed"]
_SEND_TIMEOUT_S = 60.0
_RING = "X-Sharpen-Ring"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker is for."""

    role: Role
    """Its pool; any worker does either phase when asked."""

    threshold: int = 512
    """Tokens of a prompt from which layers are sent as they are computed."""

    checksum: bool = False
    """Add checksums to keys and values."""

    connector: Connector = "auto"
    """How they go: ``http``, memory that is shared (``shm``), or by where the other worker is."""

    api_key: str | None = None
    """To show to other workers."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.role not in ("prefill", "decode", "mixed"):
            raise ConfigError(f"role={self.role!r} must be prefill, decode, mixed or router.")
        if self.threshold < 0:
            raise ConfigError(f"threshold={self.threshold} must be at least 0.")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: list[int] = Field(min_length=1)
    fingerprint: str
    adapter: str | None = None
    """Its hash, where the request names one."""


class _Phase(_Asked):
    id: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    params: dict[str, Any]
    index: int = 0


class _Vector(_Asked):
    """Body of ``POST /split/vector``."""

    pooling: Pooling
    name: str | None = None
    """Of the adapter."""
    priority: float = 0.0


class _Prompt(_Phase):
    """Body of ``POST /split/prompt``."""

    target: str


class _Ticket(BaseModel):
    """Body of ``POST /split/ring``."""

    model_config = ConfigDict(extra="forbid")

    ticket: str = Field(max_length=200)


class _Tokens(_Phase):
    """Body of ``POST /split/tokens``."""

    whole: bool = False
    """Whether the prompt is computed here, too."""


def pack_params(params: SamplingParams) -> dict[str, Any]:
    """As JSON can hold it."""
    return dataclasses.asdict(params)


def unpack_params(data: Mapping[str, Any]) -> SamplingParams:
    """From :func:`pack_params`.

    Raises:
        ConfigError: an unknown or a bad value.
    """
    given = dict(data)
    try:
        grammar = given.pop("grammar", None)
        bias = {int(k): float(v) for k, v in given.pop("logit_bias", {}).items()}
        stops = tuple(given.pop("stop_token_ids", ()))
        return SamplingParams(
            **given,
            logit_bias=bias,
            stop_token_ids=stops,
            grammar=Grammar(**grammar) if grammar is not None else None,
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"the sampling parameters cannot be used: {error}") from None


class _Lines:
    """Lines of an answer, put from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def put(self, **line: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed when the server goes down
            self._loop.call_soon_threadsafe(self._queue.put_nowait, line)

    def end(self, piece: Piece) -> None:
        self.put(end=piece.finish_reason, error=piece.error)

    async def until(self, last: str) -> AsyncIterator[bytes]:
        while True:
            line = await self._queue.get()
            yield json.dumps(line).encode() + b"\n"
            if last in line or "error" in line:
                return


class _Worker:
    """Requests that are held here."""

    def __init__(self, state: ServerState, config: WorkerConfig) -> None:
        self.state = state
        self.config = config
        self.rings = Rings(config.connector)
        self.held: dict[str, tuple[TokenContinuation, KVWriter]] = {}

    def ready(self) -> SplitLLM:
        llm, _ = self.state.ready()
        assert isinstance(llm, SplitLLM)
        return llm

    def wake(self) -> None:
        _, worker = self.state.ready()
        worker.cancel([])

    def cancel(self, sequence: TokenContinuation | Embedding) -> None:
        if not sequence.finished:
            sequence.cancelled = True
            with suppress(ApiError):
                self.wake()

    def check(self, body: _Phase) -> SamplingParams:
        """Refuse what another model made, and what cannot be run."""
        params = unpack_params(body.params)
        self.check_model(body, params.adapter)
        self.ready().engine.check(body.prompt, params)
        return params

    def check_model(self, body: _Asked, adapter: str | None) -> None:
        """Refuse what is meant for another model or another adapter of that name."""
        llm = self.ready()
        if body.fingerprint != llm.fingerprint:
            raise ApiError(
                409,
                f"this worker's model is {llm.fingerprint} and the request's {body.fingerprint}: "
                "serve the same weights, type and adapter everywhere.",
                code="fingerprint_mismatch",
            )
        if adapter is None:
            return
        own = llm.adapter_hash(llm.engine.adapters.get(adapter))
        if body.adapter != own:
            raise ApiError(
                409,
                f"this worker's adapter {adapter!r} is {own} and the request's {body.adapter}: "
                "load the same files under this name everywhere.",
                code="fingerprint_mismatch",
            )


def add_split_routes(app: FastAPI, state: ServerState, config: WorkerConfig) -> Rings:
    """Add them to ``app``; returns the memory that they share, to be closed after it."""
    here = _Worker(state, config)

    @app.get("/split/info")
    async def info() -> dict[str, Any]:
        llm = here.ready()
        return {
            "fingerprint": llm.fingerprint,
            "role": config.role,
            "capacity": llm.split.capacity,
            "block_size": llm.split.scheduler.pool.size,
            "max_batch": llm.engine.max_batch,
            "max_context": llm.engine.max_context,
            "adapters": await asyncio.to_thread(llm.adapter_hashes),
        }

    @app.post("/split/tokens")
    async def tokens(body: _Tokens) -> Response:
        params = await asyncio.to_thread(here.check, body)
        return await _tokens(here, body, params)

    @app.post("/split/prompt")
    async def prompt(body: _Prompt) -> Response:
        params = await asyncio.to_thread(here.check, body)
        return await _prompt(here, body, params)

    @app.post("/split/vector")
    async def vector(body: _Vector) -> Response:
        await asyncio.to_thread(here.check_model, body, body.name)
        return _vector(here, body)

    @app.post("/split/ring")
    async def ring(body: _Ticket) -> dict[str, bool]:
        try:
            Ring.opened(body.ticket).close()
        except ExecutionError as error:
            _log.debug("%s", error)
            return {"shared": False}
        return {"shared": True}

    @app.put("/split/kv/{name}")
    async def keys_and_values(name: str, request: Request) -> Response:
        return await _receive(here, name, request)

    return here.rings


def _vector(here: _Worker, body: _Vector) -> Response:
    lines = _Lines()

    def done(job: Embedding) -> None:
        if job.vector is None:
            lines.put(end=job.finish_reason, error=job.error or "cancelled")
        else:
            lines.put(vector=base64.b64encode(job.vector.cpu().numpy().tobytes()).decode())

    _, worker = here.state.ready()
    job = worker.embed(
        body.prompt, done, pooling=body.pooling, adapter=body.name, priority=body.priority
    )
    return _Answer(lines.until("vector"), lambda: here.cancel(job))


async def _tokens(here: _Worker, body: _Tokens, params: SamplingParams) -> Response:
    engine, lines = here.ready().split, _Lines()
    if not body.whole:
        params = dataclasses.replace(params, prompt_logprobs=None)  # the other side gives them
    sequence = TokenContinuation(
        engine,
        body.prompt,
        params,
        body.index,
        on_token=lambda line: lines.put(**line),
        on_end=lines.end,
    )
    asked = engine.start(sequence) if body.whole else engine.reserve(sequence)
    here.wake()
    if not await asyncio.wrap_future(asked):
        raise ApiError(503, "there is no room for the request now; ask again.", code="no_room")
    if not body.whole:
        here.held[body.id] = (sequence, engine.writer(sequence))
        lines.put(reserved=True)
    return _Answer(lines.until("end"), lambda: _let_go(here, body.id, sequence))


def _let_go(here: _Worker, name: str, sequence: TokenContinuation) -> None:
    here.held.pop(name, None)
    here.cancel(sequence)


async def _prompt(here: _Worker, body: _Prompt, params: SamplingParams) -> Response:
    engine, lines = here.ready().split, _Lines()
    ring = await asyncio.to_thread(_ring, here, body.target)
    sender = engine.sender(
        len(body.prompt),
        layered=len(body.prompt) >= here.config.threshold,
        checksum=here.config.checksum,
        ring=ring,
    )
    one = dataclasses.replace(params, max_tokens=1, min_tokens=min(params.min_tokens, 1))

    def ended(piece: Piece) -> None:
        if piece.finish_reason in ("cancelled", "error"):
            sender.close()
            lines.put(end=piece.finish_reason, error=piece.error or "cancelled")

    sequence = TokenContinuation(
        engine,
        body.prompt,
        one,
        body.index,
        on_token=lambda line: lines.put(**line),
        on_end=ended,
        sender=sender,
    )

    def send() -> None:
        try:
            send_records(sender, body.target, body.id, here.config.api_key, ring)
            lines.put(sent=sender.sent_bytes)
            if ring is not None:
                here.rings.give(ring)
        except (OSError, http.client.HTTPException, ExecutionError) as error:
            sender.close()
            if ring is not None:
                here.rings.drop(ring)
                here.rings.forget(body.target)
            here.cancel(sequence)
            lines.put(end="error", error=f"keys and values did not reach {body.target}: {error}")

    def let_go() -> None:
        sender.close()
        here.cancel(sequence)

    threading.Thread(target=send, name="sharpen-kv", daemon=True).start()
    started = engine.start(sequence)
    here.wake()
    try:
        await asyncio.wrap_future(started)
    except BaseException:
        sender.close()
        raise
    return _Answer(lines.until("sent"), let_go)


def _ring(here: _Worker, target: str) -> Ring | None:
    """A ring to the target, where both share memory."""

    def ask(ticket: str) -> bool:
        status, text = _call(
            target, "POST", "/split/ring", json.dumps({"ticket": ticket}), here.config.api_key
        )
        return status == 200 and json.loads(text) == {"shared": True}

    try:
        return here.rings.take(target, ask)
    except (OSError, http.client.HTTPException, ValueError):
        return None  # if it is away, the transfer will say so


def send_records(
    sender: KVSender, target: str, name: str, api_key: str | None, ring: Ring | None
) -> None:
    """Put records to a worker.

    Args:
        sender: what gives them.
        target: the worker's address.
        name: of the request that it holds.
        api_key: to show to it.
        ring: where the keys and values are, unless in the stream.

    Raises:
        ExecutionError: it refused them.
        OSError: it does not answer.
    """
    own = {_RING: ring.ticket} if ring is not None else {}
    status, text = _call(target, "PUT", f"/split/kv/{name}", sender.stream(), api_key, own)
    if status != 200:
        raise ExecutionError(f"status {status}: {text}")


def _call(
    target: str,
    method: str,
    path: str,
    data: str | Iterator[bytes | memoryview],
    api_key: str | None,
    own: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Ask another worker; status and answer."""
    parts = urlsplit(target)
    link = http.client.HTTPConnection(
        parts.hostname or "", parts.port or 80, timeout=_SEND_TIMEOUT_S
    )
    is_stream = not isinstance(data, str)
    headers = {
        "Content-Type": "application/octet-stream" if is_stream else "application/json",
        **({"Transfer-Encoding": "chunked"} if is_stream else {}),
        **({"Authorization": f"Bearer {api_key}"} if api_key is not None else {}),
        **(own or {}),
    }
    try:
        link.request(method, path, data, headers, encode_chunked=is_stream)
        answer = link.getresponse()
        return answer.status, answer.read(2000).decode(errors="replace")
    finally:
        link.close()


async def _receive(here: _Worker, name: str, request: Request) -> Response:
    engine = here.ready().split
    held = here.held.get(name)
    if held is None:
        raise ApiError(404, f"no request {name!r} waits for keys and values here.")
    sequence, writer = held
    ring: Ring | None = None

    def store(records: list[tuple[int, int, int, bytearray | memoryview]]) -> None:
        for layer, start, _, data in records:
            engine.store(sequence, writer, layer, start, data)

    try:
        if _RING in request.headers:
            ring = Ring.opened(request.headers[_RING])
        reader = KVReader(writer, ring)
        async for chunk in request.stream():
            if records := reader.feed(chunk):
                await asyncio.to_thread(store, records)
                reader.taken()
        if reader.token is None or not writer.complete:
            raise FileFormatError("the keys and values did not all arrive.")
    except ClientDisconnect:
        _lost(here, sequence, "the worker of its prompt went away.")
        return Response(status_code=499)
    except (FileFormatError, ExecutionError) as error:
        _lost(here, sequence, str(error))
        raise ApiError(409, str(error)) from None
    finally:
        if ring is not None:
            ring.close()
    adopted = engine.adopt(sequence, reader.token)
    here.wake()
    await asyncio.wrap_future(adopted)
    return JSONResponse({"stored": writer.token_bytes})


def _lost(here: _Worker, sequence: TokenContinuation, why: str) -> None:
    """End a request whose keys and values will not come."""
    _log.warning("keys and values were lost: %s", why)
    here.cancel(sequence)


class _Answer(StreamingResponse):
    """Lines whose connection is a request's life."""

    def __init__(self, lines: AsyncIterator[bytes], let_go: Callable[[], None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._let_go = let_go

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; whatever happens, the request is let go."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._let_go()
