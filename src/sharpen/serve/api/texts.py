"""Routes for texts without an answer: vectors, and tokens.

::

    POST /v1/embeddings   POST /tokenize   POST /detokenize
"""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from sharpen.core.errors import ConfigError
from sharpen.serve.admission import OverloadedError
from sharpen.serve.api.errors import ApiError
from sharpen.serve.api.schemas import Input, plain_messages, prompts_of
from sharpen.serve.api.state import ServerState, find_model, gone
from sharpen.serve.embedding import Embedding, Pooling, finish_vector
from sharpen.serve.llm import LLM

__all__ = ["add_text_routes"]

_MOST_INPUTS = 2048


class EmbeddingRequest(BaseModel):
    """Body of ``POST /v1/embeddings``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    input: Input
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    pooling: Literal["last", "mean"] | None = None
    priority: float = 0.0
    user: str | None = None


class TokenizeRequest(BaseModel):
    """Body of ``POST /tokenize``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    add_special_tokens: bool = True


class DetokenizeRequest(BaseModel):
    """Body of ``POST /detokenize``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str | None = None
    tokens: list[int]


def add_text_routes(app: FastAPI, state: ServerState) -> None:
    """Add them to ``app``."""

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingRequest, request: Request) -> dict[str, Any]:
        llm, _ = state.ready()
        adapter = find_model(state, body.model)
        _check_embedding(body, llm)
        texts = await asyncio.to_thread(lambda: [llm.encode(p) for p in prompts_of(body.input)])
        if not 1 <= len(texts) <= _MOST_INPUTS:
            raise ApiError(
                400, f"input has {len(texts)} texts; 1 to {_MOST_INPUTS} may be.", param="input"
            )
        name = adapter.name if adapter else None
        jobs = await _embed_all(body, request, state, texts, llm.pooling, name)
        data = []
        for index, job in enumerate(jobs):
            assert job.vector is not None
            vector = finish_vector(job.vector, body.dimensions).cpu().numpy().astype("<f4")
            data.append({"object": "embedding", "index": index, "embedding": _coded(vector, body)})
        count = sum(map(len, texts))
        return {
            "object": "list",
            "model": body.model,
            "data": data,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        llm, _ = state.ready()
        if body.model is not None:
            find_model(state, body.model)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "give either prompt or messages.", param="prompt")
        if body.messages is not None:
            tokens = await asyncio.to_thread(llm.encode_chat, plain_messages(body.messages))
        else:
            tokens = await asyncio.to_thread(
                llm.encode, body.prompt or "", add_special=body.add_special_tokens
            )
        return {"tokens": tokens, "count": len(tokens), "max_model_len": llm.engine.max_context}

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> dict[str, str]:
        llm, _ = state.ready()
        if body.model is not None:
            find_model(state, body.model)
        text = await asyncio.to_thread(llm.tokenizer.decode, body.tokens, skip_special=False)
        return {"prompt": text}


def _check_embedding(body: EmbeddingRequest, llm: LLM) -> None:
    size = llm.spec.hidden_size
    if body.dimensions is not None and not 1 <= body.dimensions <= size:
        raise ConfigError(f"dimensions={body.dimensions} must be from 1 to {size}.")
    if not -1e9 <= body.priority <= 1e9:
        raise ConfigError(f"priority={body.priority} must be from -1e9 to 1e9.")


async def _embed_all(
    body: EmbeddingRequest,
    request: Request,
    state: ServerState,
    texts: list[list[int]],
    pooling: Pooling,
    adapter: str | None,
) -> list[Embedding]:
    """Vectors of all texts, a batch of them in the engine at a time."""
    _, worker = state.ready()
    loop = asyncio.get_running_loop()
    running: list[Embedding] = []
    turn = asyncio.Semaphore(worker.engine.max_batch)

    async def embed(text: list[int]) -> Embedding:
        async with turn:
            done: asyncio.Future[Embedding] = loop.create_future()

            def resolve(job: Embedding) -> None:
                if not done.done():
                    done.set_result(job)

            def tell(job: Embedding) -> None:
                worker.post(loop, resolve, job)

            job = worker.embed(
                text,
                tell,
                pooling=body.pooling or pooling,
                adapter=adapter,
                priority=body.priority,
            )
            running.append(job)
            return await done

    everything = asyncio.gather(*(embed(text) for text in texts))
    # One that nobody waits for any more is no error to complain about.
    everything.add_done_callback(lambda done: done.cancelled() or done.exception())
    watcher = asyncio.create_task(gone(request))
    try:
        both: list[asyncio.Future[Any]] = [everything, watcher]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not everything.done():
            raise ApiError(499, "the client went away.")
        jobs = everything.result()
    except OverloadedError as error:
        state.metrics.rejected(error.reason)
        raise
    finally:
        watcher.cancel()
        everything.cancel()
        worker.cancel([job for job in running if not job.finished])
    for job in jobs:
        if job.finish_reason != "stop":
            raise ApiError(500, f"embedding failed: {job.error}")
    return jobs


def _coded(vector: np.ndarray[Any, Any], body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
