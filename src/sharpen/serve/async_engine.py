"""A model for ``asyncio`` programs: requests run in a thread, pieces come by async iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
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
    """Continuations of one or more prompts, and the pieces that have come of them; for one loop.

    Args:
        worker: runs them.

    Attributes:
        sequences: the continuations, those of the first prompt first.
    """

    def __init__(self, worker: Worker) -> None:
        self.sequences: list[Continuation] = []
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._come: list[tuple[int, Piece]] = []
        self._left = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def num_new(self) -> int:
        """Tokens generated so far."""
        return sum(sequence.num_tokens for sequence in self.sequences)

    def submit(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """Queue a prompt; raises as :meth:`Engine.submit`."""
        first = len(self.sequences)

        def on_piece(piece: Piece) -> None:
            self._worker.post(self._loop, self._take_in, (first + piece.index, piece))

        made = self._worker.submit(prompt, params, on_piece)
        self.sequences += made
        self._left += len(made)

    async def take(self, timeout_s: float | None = None) -> list[tuple[int, Piece]]:
        """All pieces that have come since, each with the index of its continuation.

        Args:
            timeout_s: how long to wait for the first one.

        Returns:
            Nothing when the time is over, or when all have ended.
        """
        if not self._come and self._left:
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(timeout_s, self._wake) if timeout_s is not None else None
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        come, self._come = self._come, []
        return come

    @property
    def ended(self) -> bool:
        """Whether all continuations have, and their pieces were taken."""
        return not (self._left or self._come)

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces with the index of their continuation, until all have ended."""
        while not self.ended:
            for one in await self.take():
                yield one

    def cancel(self) -> None:
        """Stop what has not ended."""
        if not all(sequence.finished for sequence in self.sequences):
            self._worker.cancel(self.sequences)

    def _take_in(self, one: tuple[int, Piece]) -> None:
        self._come.append(one)
        self._left -= one[1].finish_reason is not None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


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
            self._worker.post(loop, resolve, job)

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
