"""Routes of the HTTP API.

::

    POST /v1/chat/completions   POST /v1/completions     both also as server-sent events
    GET  /health  /version  /metrics  /monitor            and those of models.py and texts.py

A stream is ``data: {json}`` frames, then ``data: [DONE]``; a comment every 15 seconds keeps idle
connections open. When a client goes away its request leaves the batch at the next token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from sharpen._version import __version__
from sharpen.core.errors import DataError
from sharpen.serve.admission import OverloadedError
from sharpen.serve.api.errors import ApiError, error_body, install_error_handlers
from sharpen.serve.api.forms import ChatForm, Form, Frames, TextForm, usage
from sharpen.serve.api.guard import Guard
from sharpen.serve.api.models import add_model_routes
from sharpen.serve.api.page import add_chat_page
from sharpen.serve.api.schemas import (
    ChatRequest,
    CompletionRequest,
    ToolChoice,
    plain_messages,
    prompts_of,
)
from sharpen.serve.api.state import ServerState, find_model, gone
from sharpen.serve.api.texts import add_text_routes
from sharpen.serve.async_engine import Job
from sharpen.serve.request import Piece
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.tools import FORMATS, ToolReader, guess_format

__all__ = ["create_app"]

_PING_S = 15.0
_SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def create_app(state: ServerState) -> FastAPI:
    """The application."""
    app = FastAPI(title="Sharpen", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(
        Guard,
        api_keys=state.api_keys,
        max_body_bytes=state.max_body_bytes,
        open_paths=("/health", "/") if state.ui else ("/health",),
    )
    install_error_handlers(app)
    if state.ui:
        add_chat_page(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        state.ready()
        return {"status": "ok"}

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        text = state.metrics.text(state.llm.engine if state.llm else None, state.monitor)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @app.get("/monitor")
    async def monitor() -> dict[str, Any]:
        state.ready()
        if state.monitor is None:
            raise ApiError(404, "this server watches no drift. Start it with --monitor REFERENCE.")
        return state.monitor.document()

    add_model_routes(app, state)
    add_text_routes(app, state)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        llm, _ = state.ready()
        adapter = find_model(state, body.model)
        body.refuse_unknown()
        tools, kind, grammar = body.used_tools(), "", None
        if tools:
            kind = _tool_format(state, body)
            grammar = body.call_grammar(kind, tools)
        shown = [tool.model_dump(exclude_none=True) for tool in tools]
        prompt = await asyncio.to_thread(llm.encode_chat, plain_messages(body.messages), shown)
        room = max(llm.engine.max_context - len(prompt), 1)
        limits = (body.max_completion_tokens, body.max_tokens, room)
        limit = next(limit for limit in limits if limit is not None)
        params = body.params(limit, body.num_logprobs, adapter.name if adapter else None, grammar)
        names = [tool.function.name for tool in tools]
        readers = [ToolReader(kind, names) for _ in range(params.n)] if tools else []
        is_named = isinstance(body.tool_choice, ToolChoice)
        form = ChatForm(body.model, params.logprobs is not None, readers, is_named=is_named)
        return await _answer(form, request, state, [prompt], params, body)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        llm, _ = state.ready()
        adapter = find_model(state, body.model)
        body.refuse_unknown()
        prompts = await asyncio.to_thread(lambda: [llm.encode(p) for p in prompts_of(body.prompt)])
        if not prompts:
            raise ApiError(400, "prompt is empty. Give at least one.", param="prompt")
        limit = body.max_tokens if body.max_tokens is not None else 16
        params = body.params(
            limit,
            body.logprobs,
            adapter.name if adapter else None,
            prompt_logprobs=body.logprobs if body.echo else None,
        )
        texts = [llm.tokenizer.decode(p) if body.echo else "" for p in prompts]
        echo = [text for text in texts for _ in range(params.n)]
        form = TextForm(body.model, params.logprobs is not None, echo)
        return await _answer(form, request, state, prompts, params, body)

    return app


def _tool_format(state: ServerState, body: ChatRequest) -> str:
    """How the model writes calls.

    Raises:
        ApiError: nobody says.
    """
    llm, _ = state.ready()
    template = llm.tokenizer.chat_template
    kind = state.tool_parser or guess_format(template)
    if body.tool_choice in (None, "auto"):
        if template is None or "tools" not in template:
            raise ApiError(
                400,
                "this model's chat template shows it no tools. Require a call with tool_choice, "
                "or serve a model that was trained to call.",
                param="tools",
            )
        if kind is None:
            known = " or ".join(FORMATS)
            raise ApiError(
                400,
                "how this model writes calls is not known. Start the server with --tool-parser "
                f"{known}, or require a call with tool_choice.",
                param="tools",
            )
    return kind or "hermes"


async def _answer(
    form: Form,
    request: Request,
    state: ServerState,
    prompts: list[list[int]],
    params: SamplingParams,
    body: ChatRequest | CompletionRequest,
) -> Response:
    """Queue every prompt, then stream its pieces or collect them."""
    llm, worker = state.ready()
    job = Job(worker)
    if params.grammar is not None:
        await asyncio.wrap_future(llm.engine.grammars.begin(params.grammar))
    try:
        for prompt in prompts:
            llm.engine.check(prompt, params)
        for prompt in prompts:
            job.submit(prompt, params)
    except BaseException as error:
        job.cancel()
        if isinstance(error, OverloadedError):
            state.metrics.rejected(error.reason)
        if isinstance(error, DataError) and "the context holds" in str(error):
            raise ApiError(400, str(error), code="context_length_exceeded") from None
        raise
    num_prompt = sum(map(len, prompts))
    if body.stream:
        events = _stream(form, job, num_prompt, body.wants_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers=_SSE_HEADERS)
    watcher = asyncio.create_task(gone(request))
    watcher.add_done_callback(lambda _: job.cancel())
    try:
        pieces: list[list[Piece]] = [[] for _ in job.sequences]
        async for index, piece in job.pieces():
            pieces[index].append(piece)
    finally:
        watcher.cancel()
        job.cancel()
    for own in pieces:
        if own[-1].finish_reason == "error":
            raise ApiError(_blame(own[-1]), f"generation failed: {own[-1].error}")
    document = {
        **form.head,
        "object": form.object,
        "choices": [form.choice(index, own) for index, own in enumerate(pieces)],
        "usage": usage(num_prompt, job.num_new),
    }
    return JSONResponse(document)


def _blame(piece: Piece) -> int:
    """The status of a failure."""
    return 400 if piece.refused else 500


async def _stream(form: Form, job: Job, num_prompt: int, wants_usage: bool) -> AsyncIterator[str]:
    """Server-sent events, those of a round together; closing the generator cancels the job."""
    frames = Frames(form, len(job.sequences), wants_usage)
    try:
        opening = "".join(frames.opening(index) for index in range(len(job.sequences)))
        if opening:
            yield opening
        while True:
            come = await job.take(_PING_S)
            text = "" if come else ": ping\n\n"
            for index, piece in come:
                if piece.finish_reason == "error":
                    body = error_body(_blame(piece), f"generation failed: {piece.error}")
                    yield f"{text}data: {json.dumps(body)}\n\n"
                    return
                text += frames.piece(index, piece)
            if job.ended:
                end = frames.usage(num_prompt, job.num_new) if wants_usage else ""
                yield f"{text}{end}data: [DONE]\n\n"
                return
            if text:
                yield text
    finally:
        job.cancel()
