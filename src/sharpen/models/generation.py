"""The one decoding loop: a static batch of prompts, padded on the left, over a key/value cache.

::

    logits <- prefill(prompts)                one pass over all prompts, the last position's logits
    repeat:  ids <- choose(logits)            greedy: argmax
             drop the rows that are finished
             logits <- model(ids, cache)      one token a row

Left padding lets every row end at the same position; a padding position is never seen by a later
one. Rows leave the batch when they finish, so the last ones do not pay for the first.
Memory: the cache, 2 L B S h_kv e bytes; time: one read of the weights a step, whatever B.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.model_spec import ModelSpec
from sharpen.models.kv_cache import KVCache

__all__ = ["CausalModel", "DecodeBatch", "Generation", "generate"]


class CausalModel(Protocol):
    """What the loop needs of a model; :class:`~sharpen.models.DecoderLM` is one."""

    spec: ModelSpec

    def __call__(
        self,
        input_ids: Tensor,
        *,
        cache: KVCache | None = None,
        logits_to_keep: int | None = None,
    ) -> Tensor:
        """Logits [B, T', V] of token ids [B, T], extending ``cache`` in place."""
        ...

    def new_cache(self, batch: int, *, capacity: int, starts: Tensor | None = None) -> KVCache:
        """A cache in the type and on the device of the model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What was generated after one prompt."""

    ids: list[int]
    """Token ids, without the prompt and without the stop token."""

    finish_reason: Literal["stop", "length"]
    """``stop``: a stop token ended it; ``length``: ``max_new_tokens`` did."""


class DecodeBatch:
    """A batch of prompts being continued, one token a row and step.

    Args:
        model: in evaluation mode.
        prompts: token ids, at least one each.
        capacity: new tokens a row to reserve room for; the cache grows when they do not suffice.

    Attributes:
        rows: index into ``prompts`` of each row still in the batch, ascending.
        logits: [R, V] of the next token, in the weights' type, one row for each of ``rows``.

    Raises:
        DataError: a prompt is empty, or holds an id outside the vocabulary.
    """

    def __init__(
        self, model: CausalModel, prompts: Sequence[Sequence[int]], *, capacity: int = 256
    ) -> None:
        vocab_size = model.spec.vocab_size
        for i, prompt in enumerate(prompts):
            if not prompt:
                raise DataError(
                    f"prompts[{i}] is empty. Give at least one token, such as the tokenizer's bos."
                )
            if min(prompt) < 0 or max(prompt) >= vocab_size:
                raise DataError(f"prompts[{i}] has an id outside 0..{vocab_size - 1}.")
        self._model = model
        self.rows = list(range(len(prompts)))
        width = max(map(len, prompts))
        starts = torch.tensor([width - len(prompt) for prompt in prompts])
        padded = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        with torch.inference_mode():
            self._cache = model.new_cache(len(prompts), capacity=width + capacity, starts=starts)
            padded = padded.to(self._cache.device)
            self.logits = model(padded, cache=self._cache, logits_to_keep=1)[:, -1]

    def step(self, ids: Tensor) -> Tensor:
        """Append ``ids`` [R] int64, one to each row; returns the new :attr:`logits` [R, V]."""
        with torch.inference_mode():
            step = ids.to(self._cache.device)[:, None]
            self.logits = self._model(step, cache=self._cache, logits_to_keep=1)[:, -1]
        return self.logits

    def keep(self, positions: Sequence[int]) -> None:
        """Keep only the rows at ``positions`` of :attr:`rows`; the others leave the batch."""
        if list(positions) == list(range(len(self.rows))):
            return
        self.rows = [self.rows[position] for position in positions]
        with torch.inference_mode():
            index = torch.tensor(positions, dtype=torch.int64, device=self._cache.device)
            self._cache.select(index)
            self.logits = self.logits.index_select(0, index.to(self.logits.device))


def generate(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    choose: Callable[[Tensor], Tensor] | None = None,
    on_tokens: Callable[[list[int], list[int]], bool | None] | None = None,
) -> list[Generation]:
    """Continue prompts.

    Args:
        model: a :class:`~sharpen.models.DecoderLM`; put in evaluation mode while this runs.
        prompts: token ids, at least one each; lengths may differ.
        max_new_tokens: at most so many new tokens a prompt.
        stop_ids: tokens that end a continuation; they are not part of it.
        choose: logits [R, V] of the rows still going to ids [R] int64; default the largest.
        on_tokens: called each step with the indices of the prompts that go on and their new ids;
            returning True ends the whole batch there, as ``length``.

    Returns:
        One :class:`Generation` a prompt, in order.

    Raises:
        ConfigError: ``max_new_tokens`` is below 1.
        DataError: a prompt is empty, or holds an id outside the vocabulary.

    Examples:
        >>> from sharpen.models import DecoderLM, ModelSpec, generate
        >>> spec = ModelSpec(
        ...     family="llama",
        ...     vocab_size=16,
        ...     hidden_size=8,
        ...     intermediate_size=16,
        ...     num_layers=1,
        ...     num_heads=2,
        ...     num_kv_heads=1,
        ...     head_dim=4,
        ...     max_positions=32,
        ... )
        >>> model = DecoderLM(spec)
        >>> model.init_weights(0)
        >>> [len(g.ids) for g in generate(model, [[1, 2, 3], [4]], max_new_tokens=5)]
        [5, 5]
    """
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={max_new_tokens} must be at least 1.")
    if not prompts:
        return []
    training = getattr(model, "training", False)
    if training:
        model.eval()  # type: ignore[attr-defined]
    try:
        return _loop(model, prompts, max_new_tokens, frozenset(stop_ids), choose, on_tokens)
    finally:
        if training:
            model.train()  # type: ignore[attr-defined]


def _loop(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: frozenset[int],
    choose: Callable[[Tensor], Tensor] | None,
    on_tokens: Callable[[list[int], list[int]], bool | None] | None,
) -> list[Generation]:
    batch = DecodeBatch(model, prompts, capacity=max_new_tokens)
    ids: list[list[int]] = [[] for _ in prompts]
    stopped: set[int] = set()
    for count in range(1, max_new_tokens + 1):
        chosen = choose(batch.logits) if choose is not None else batch.logits.argmax(-1)
        new = [int(token) for token in chosen.tolist()]
        going = [i for i, token in enumerate(new) if token not in stop_ids]
        stopped.update(row for row, token in zip(batch.rows, new, strict=True) if token in stop_ids)
        batch.keep(going)
        new = [new[i] for i in going]
        for row, token in zip(batch.rows, new, strict=True):
            ids[row].append(token)
        if not going or count == max_new_tokens:
            if going and on_tokens is not None:
                on_tokens(batch.rows, new)
            break
        if on_tokens is not None and on_tokens(batch.rows, new):
            break
        batch.step(chosen if len(going) == len(chosen) else torch.tensor(new))
    return [
        Generation(ids=ids[row], finish_reason="stop" if row in stopped else "length")
        for row in range(len(prompts))
    ]
