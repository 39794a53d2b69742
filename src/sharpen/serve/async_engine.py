"""A model for ``asyncio`` programs: requests run in a thread, pieces come by async iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from sharpen.core.errors import ExecutionError
from sharpen.models.chat import Message
from sharpen.serve.embedding import Embedding, Pooling, finish_vector
from sharpen.serve.llm import LLM, EmbeddingOutput, Prompt
from sharpen.serve.request import Continuation, Piece
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.worker import Worker

__all__ = ["AsyncEngine", "Job"]


class Job:
    """Continuations of one or more prompts, and the queue their pieces come by; for one loop.

    Args:
        worker: runs them.

    Attributes:
        sequences: the continuations, those of the first prompt first.
    """

    def __init__(self, worker: Worker) -> None:
        self.sequences: list[Continuation] = []
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

    @property
    def num_new(self) -> int:
        """Tokens generated so far."""
        return sum(sequence.num_tokens for sequence in self.sequences)

    def submit(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """Queue a prompt; raises as :meth:`Engine.submit`."""
        first = len(self.sequences)

        def on_piece(piece: Piece) -> None:
            with suppress(RuntimeError):  # the loop is closed when a server goes down
                self._loop.call_soon_threadsafe(
                    self._queue.put_nowait, (first + piece.index, piece)
                )

        self.sequences += self._worker.submit(prompt, params, on_piece)

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces with the index of their continuation, until all have ended."""
        left = len(self.sequences)
        while left:
            index, piece = await self._queue.get()
            left -= piece.finish_reason is not None
            yield index, piece

    def cancel(self) -> None:
        """Stop what has not ended."""
        if not all(sequence.finished for sequence in self.sequences):
            self._worker.cancel(self.sequences)


class AsyncEngine:
    """Runs a model in a thread of its own, for any number of tasks of an event loop.

    Args:
        llm: the model; it is driven by this engine alone from now on.

    Example::

        async with AsyncEngine(LLM("smollm2-135m-instruct")) as engine:
            async for piece in engine.chat([{"role": "user", "content": "Hi!"}]):
                print(piece.text, end="")
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self._worker = Worker(llm.engine)

    @classmethod
    def load(cls, model: str | Path, **options: Any) -> Self:
        """The engine of ``LLM(model, **options)``."""
        return cls(LLM(model, **options))

    async def generate(
        self, prompt: Prompt, params: SamplingParams | None = None
    ) -> AsyncIterator[Piece]:
        """Continue a prompt, giving pieces as they come; leaving the loop stops the work.

        Args:
            prompt: a text or token ids.
            params: how to continue.

        Yields:
            Pieces; with ``params.n`` above 1, those of all continuations, by ``index``.

        Raises:
            DataError: the prompt is empty or does not fit the context.
            ExecutionError: generating failed.
        """
        ids = await asyncio.to_thread(self.llm.encode, prompt)
        async for piece in self._run(ids, params or SamplingParams()):
            yield piece

    async def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> AsyncIterator[Piece]:
        """Answer a conversation; as :meth:`generate`.

        Args:
            messages: ``{"role": ..., "content": ...}`` each.
            params: how to answer.
            tools: functions for the chat template, in OpenAI's form.
        """
        ids = await asyncio.to_thread(self.llm.encode_chat, messages, tools)
        async for piece in self._run(ids, params or SamplingParams()):
            yield piece

    async def embed(
        self,
        text: Prompt,
        *,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
        normalize: bool = True,
        adapter: str | None = None,
    ) -> EmbeddingOutput:
        """The vector of a text; arguments as for :meth:`LLM.embed`."""
        loop = asyncio.get_running_loop()
        ids = await asyncio.to_thread(self.llm.encode, text)
        done: asyncio.Future[Embedding] = loop.create_future()

        def resolve(job: Embedding) -> None:
            if not done.done():
                done.set_result(job)

        def tell(job: Embedding) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(resolve, job)

        job = self._worker.embed(ids, tell, pooling=pooling or self.llm.pooling, adapter=adapter)
        try:
            await done
        finally:
            self._worker.cancel([job])
        if job.vector is None:
            raise ExecutionError(f"embedding failed: {job.error}")
        vector = finish_vector(job.vector, dimensions, normalize=normalize)
        return EmbeddingOutput(prompt_ids=ids, embedding=vector.tolist())

    async def close(self) -> None:
        """End the thread after its present round."""
        await asyncio.to_thread(self._worker.close)

    async def __aenter__(self) -> Self:
        """The engine itself."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close it."""
        await self.close()

    async def _run(self, ids: Sequence[int], params: SamplingParams) -> AsyncIterator[Piece]:
        if params.grammar is not None:
            await asyncio.wrap_future(self.llm.engine.grammars.begin(params.grammar))
        job = Job(self._worker)
        job.submit(ids, params)
        try:
            async for _, piece in job.pieces():
                if piece.finish_reason == "error":
                    raise ExecutionError(f"generation failed: {piece.error}")
                yield piece
        finally:
            job.cancel()
