"""Generation by the serving engine: batches that refill, shared prefixes, weights put in place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from sharpen.align.engines.protocol import Generated
from sharpen.core.errors import ExecutionError
from sharpen.models.decoder import DecoderLM
from sharpen.serve.llm import LLM
from sharpen.serve.request import Continuation, Piece
from sharpen.serve.sampling import SamplingParams

__all__ = ["ServedEngine"]

_log = logging.getLogger(__name__)
_TRIES = 2


class ServedEngine:
    """The engine of ``sharpen serve`` in this process, with a copy of the weights.

    A round of the engine that fails is tried once more from the prompts: the same seeds give the
    same tokens.

    Args:
        model: where the first weights and the tokenizer are read.
        dtype: of its copy.
        device: where it runs.
        max_batch: completions at the same time.
        max_context: tokens of a prompt and its completion, at most.
        cache_memory: for keys and values, as for :class:`~sharpen.serve.LLM`.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "auto",
        max_batch: int = 64,
        max_context: int | None = None,
        cache_memory: int | str | None = None,
    ) -> None:
        self.version = -1
        self.llm = LLM(
            model,
            dtype=dtype,
            device=device,
            max_batch=max_batch,
            max_context=max_context,
            kv_cache_memory=cache_memory,
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> list[Generated]:
        """See :class:`~sharpen.align.engines.Engine`.

        Raises:
            DataError: a prompt and ``max_tokens`` do not fit the context.
            ExecutionError: the engine failed twice.
        """
        for attempt in range(_TRIES):
            try:
                return self._generate(prompts, params)
            except ExecutionError as error:
                if attempt + 1 == _TRIES:
                    raise
                _log.warning("the engine failed and generates these completions again: %s", error)
        raise AssertionError

    def update_weights(self, model: DecoderLM, version: int) -> None:
        """See :class:`~sharpen.align.engines.Engine`."""
        self.llm.update_weights(model)
        self.version = version

    def close(self) -> None:
        """Nothing but memory is held."""

    def _generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> list[Generated]:
        engine = self.llm.engine
        for prompt, one in zip(prompts, params, strict=True):
            engine.check(prompt, one)
        pieces: list[list[Piece]] = [[] for _ in prompts]
        made: list[Continuation] = []
        try:
            for prompt, one, box in zip(prompts, params, pieces, strict=True):
                made += engine.submit(list(prompt), one, box.append)
            engine.run()
        except BaseException:
            engine.cancel(made)
            engine.run()
            raise
        return [_generated(one, box) for one, box in zip(made, pieces, strict=True)]


def _generated(sequence: Continuation, pieces: Sequence[Piece]) -> Generated:
    if sequence.finish_reason not in ("stop", "length"):
        raise ExecutionError(f"generation failed: {pieces[-1].error or sequence.finish_reason}")
    ids = [token for piece in pieces for token in piece.ids]
    if sequence.stop_id is not None:
        ids.append(sequence.stop_id)
    asked = sequence.params.logprobs is not None
    return Generated(
        token_ids=ids,
        text="".join(piece.text for piece in pieces),
        finish_reason=sequence.finish_reason,
        logprobs=[one.logprob for piece in pieces for one in piece.logprobs] if asked else None,
    )
