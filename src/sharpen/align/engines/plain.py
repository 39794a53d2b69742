"""Generation by the model that is trained itself: no copy of the weights, one static batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sharpen.align.engines.protocol import Generated
from sharpen.models.decoder import DecoderLM
from sharpen.models.generation import DecodeBatch
from sharpen.models.tokenizer import Tokenizer
from sharpen.serve.draw import draw
from sharpen.serve.sampling import Sampler, SamplingParams

__all__ = ["PlainEngine"]


class PlainEngine:
    """Plain decoding on the trained model; the same seeds give the tokens of the serving engine.

    Needs no memory for weights, but rows wait for the longest of their batch.

    Args:
        tokenizer: of the model.
        max_batch: completions at the same time.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_batch: int = 64) -> None:
        self.version = -1
        self._tokenizer = tokenizer
        self._max_batch = max_batch
        self._model: DecoderLM | None = None

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> list[Generated]:
        """See :class:`~sharpen.align.engines.Engine`; penalties and grammars are not applied."""
        model = self._model
        assert model is not None, "update_weights comes first"
        was_training = model.training
        model.eval()
        try:
            found: list[Generated] = []
            for first in range(0, len(prompts), self._max_batch):
                part = slice(first, first + self._max_batch)
                found += self._batch(model, prompts[part], params[part])
            return found
        finally:
            model.train(was_training)

    def update_weights(self, model: DecoderLM, version: int) -> None:
        """See :class:`~sharpen.align.engines.Engine`."""
        self._model = model
        self.version = version

    def close(self) -> None:
        """Forget the model."""
        self._model = None

    def _batch(
        self,
        model: DecoderLM,
        prompts: Sequence[Sequence[int]],
        params: Sequence[SamplingParams],
    ) -> list[Generated]:
        ends = set(model.spec.eos_token_ids)
        if self._tokenizer.eos_id is not None:
            ends.add(self._tokenizer.eos_id)
        longest = max(one.max_tokens for one in params)
        batch = DecodeBatch(model, prompts, capacity=longest)
        samplers = [Sampler(one, prompt) for one, prompt in zip(params, prompts, strict=True)]
        ids: list[list[int]] = [[] for _ in prompts]
        logprobs: list[list[float]] = [[] for _ in prompts]
        while batch.rows:
            rows = list(batch.rows)
            chosen = draw(batch.logits, [samplers[row].drawn() for row in rows])
            scores = None
            if any(params[row].logprobs is not None for row in rows):
                scores = torch.log_softmax(batch.logits.float(), -1)
            going, new = [], []
            for place, (row, token) in enumerate(zip(rows, chosen, strict=True)):
                assert token is not None
                samplers[row].note(token)
                ids[row].append(token)
                if scores is not None and token not in ends:
                    logprobs[row].append(float(scores[place, token]))
                if token not in ends and len(ids[row]) < params[row].max_tokens:
                    going.append(place)
                    new.append(token)
            batch.keep(going)
            if going:
                batch.step(torch.tensor(new))
        return [
            self._generated(own, scored, one, ends)
            for own, scored, one in zip(ids, logprobs, params, strict=True)
        ]

    def _generated(
        self, ids: list[int], logprobs: list[float], params: SamplingParams, ends: set[int]
    ) -> Generated:
        stopped = ids[-1] in ends
        return Generated(
            token_ids=ids,
            text=self._tokenizer.decode(ids[:-1] if stopped else ids),
            finish_reason="stop" if stopped else "length",
            logprobs=logprobs if params.logprobs is not None else None,
        )
