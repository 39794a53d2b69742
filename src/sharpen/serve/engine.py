"""The engine: requests join a running batch after their prefill and leave it when they are done.

One round, :meth:`Engine.step`::

    drop      requests that were cancelled
    decode    one token for every running request
    admit     waiting requests, first come first served, while there are free rows:
              prefill them together, take their first token, join the running batch

The batch is one left-padded key/value cache (:class:`~sharpen.models.generation.DecodeBatch`), so
joining copies the cache once: 2 L B S h_kv e bytes a joining round, small beside a read of the
weights. Sampling is by request (:mod:`sharpen.serve.sampling`), so a request's tokens do not
depend on its neighbours, up to the rounding of the matrix products.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sharpen.core.errors import BusyError, ConfigError, DataError
from sharpen.models.generation import CausalModel, DecodeBatch
from sharpen.models.tokenizer import Tokenizer
from sharpen.serve.sampling import Sampler, SamplingParams
from sharpen.serve.stop import TextStream

__all__ = ["Continuation", "Engine", "FinishReason", "Piece", "TokenLogprob"]

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token and its log-probability under the model, before temperature and penalties."""

    id: int
    """The token."""

    text: str
    """Its text; may hold U+FFFD where a character spans tokens."""

    logprob: float
    """Natural logarithm of its probability."""

    top: tuple[tuple[int, str, float], ...] = ()
    """The most likely tokens: id, text and log-probability, likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one or a few new tokens added to a continuation."""

    text: str
    """New text: whole characters, and nothing that may belong to a stop text."""

    ids: tuple[int, ...]
    """The new tokens."""

    index: int = 0
    """Which of ``SamplingParams.n`` continuations it belongs to."""

    finish_reason: FinishReason | None = None
    """Why the continuation ended, on its last piece."""

    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of ``ids``, where asked for."""

    error: str = ""
    """What failed, where ``finish_reason`` is ``error``."""


class Continuation:
    """One continuation on its way through the engine.

    Args:
        tokenizer: for text and stop texts.
        prompt_ids: the prompt.
        params: how to continue.
        index: which of ``params.n`` continuations.
        eos_ids: tokens that end it unless ``ignore_eos``.
        on_piece: gets every piece, the last one with a ``finish_reason``; called by whoever calls
            :meth:`Engine.step`, and must not raise.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        index: int,
        eos_ids: frozenset[int],
        on_piece: Callable[[Piece], None],
    ) -> None:
        self.prompt_ids = list(prompt_ids)
        self.params = params
        self.index = index
        self.cancelled = False
        self.finish_reason: FinishReason | None = None
        self.num_tokens = 0
        self.submitted_s = time.perf_counter()
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self._tokenizer = tokenizer
        self._on_piece = on_piece
        self._stop_ids = frozenset(params.stop_token_ids) | (
            frozenset() if params.ignore_eos else eos_ids
        )
        blocked = self._stop_ids if params.min_tokens else ()
        self.sampler = Sampler(params, prompt_ids, choice=index, blocked=sorted(blocked))
        self._text = TextStream(tokenizer, params.stop)
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def finished(self) -> bool:
        """Whether its last piece is out."""
        return self.finish_reason is not None

    def push(self, token: int, logits: Tensor) -> None:
        """Take one token; ``logits`` [V] are those it was chosen from."""
        self.last_token_s = time.perf_counter()
        if self.first_token_s is None:
            self.first_token_s = self.last_token_s
        if token in self._stop_ids:
            self._finish("stop")
            return
        self.num_tokens += 1
        self._ids.append(token)
        if self.params.logprobs is not None:
            self._logprobs.append(self._logprob(token, logits, self.params.logprobs))
        text, stopped = self._text.push(token)
        if stopped:
            self._emit(text, "stop")
        elif self.num_tokens >= self.params.max_tokens:
            self._finish("length", text)
        elif text:
            self._emit(text, None)

    def end(self, reason: FinishReason, error: str = "") -> None:
        """End it from outside."""
        if not self.finished:
            self._emit("", reason, error)

    def _finish(self, reason: FinishReason, text: str = "") -> None:
        rest, stopped = self._text.finish()
        self._emit(text + rest, "stop" if stopped else reason)

    def _emit(self, text: str, reason: FinishReason | None, error: str = "") -> None:
        piece = Piece(
            text=text,
            ids=tuple(self._ids),
            index=self.index,
            finish_reason=reason,
            logprobs=tuple(self._logprobs),
            error=error,
        )
        self._ids, self._logprobs = [], []
        self.finish_reason = reason
        self._on_piece(piece)

    def _logprob(self, token: int, logits: Tensor, top: int) -> TokenLogprob:
        logprobs = torch.log_softmax(logits.float(), -1)
        values, ids = torch.topk(logprobs, top)
        text = self._token_text
        best = zip(ids.tolist(), values.tolist(), strict=True)
        return TokenLogprob(
            id=token,
            text=text(token),
            logprob=float(logprobs[token]),
            top=tuple((i, text(i), value) for i, value in best),
        )

    def _token_text(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special=False)


class Engine:
    """Runs requests on one model. Submitting and cancelling are safe from any thread.

    Attributes:
        on_finish: called with every continuation that ends, for measurements.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        eos_ids: tokens that end a continuation.
        max_batch: continuations that run at the same time.
        max_waiting: continuations that may wait; more are refused.
        max_context: prompt and new tokens together, at most; default the model's context.
        max_prefill_tokens: tokens of one prefill, padding included; a longer prompt goes alone.
    """

    def __init__(
        self,
        model: CausalModel,
        tokenizer: Tokenizer,
        *,
        eos_ids: frozenset[int] = frozenset(),
        max_batch: int = 16,
        max_waiting: int | None = None,
        max_context: int | None = None,
        max_prefill_tokens: int = 4096,
    ) -> None:
        if max_batch < 1:
            raise ConfigError(f"max_batch={max_batch} must be at least 1.")
        limit = model.spec.max_positions
        if max_context is not None and not 1 <= max_context <= limit:
            raise ConfigError(f"max_context={max_context} must be from 1 to {limit} (the model's).")
        self.model = model
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.max_batch = max_batch
        self.max_waiting = max_waiting
        self.max_context = max_context or limit
        self._max_prefill_tokens = max_prefill_tokens
        self._waiting: deque[Continuation] = deque()
        self._running: list[Continuation] = []
        self._batch: DecodeBatch | None = None
        self._next = torch.empty(0, dtype=torch.int64)
        self._lock = threading.Lock()
        self.on_finish: Callable[[Continuation], None] | None = None

    @property
    def num_running(self) -> int:
        """Continuations in the batch."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Continuations that wait for a free row."""
        return len(self._waiting)

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        on_piece: Callable[[Piece], None],
    ) -> list[Continuation]:
        """Queue a request; one sequence for each of ``params.n`` continuations.

        Raises:
            DataError: the prompt is empty, holds a wrong id, or does not fit the context.
            BusyError: too many requests wait.
        """
        self.check(prompt_ids, params)
        with self._lock:
            free = self.max_batch - len(self._running)
            waiting = len(self._waiting) + params.n - max(free, 0)
            if self.max_waiting is not None and waiting > self.max_waiting:
                raise BusyError(
                    f"{len(self._waiting)} requests already wait, {self.max_waiting} may. "
                    "Try again later."
                )
            made = [
                Continuation(self.tokenizer, prompt_ids, params, i, self.eos_ids, on_piece)
                for i in range(params.n)
            ]
            self._waiting.extend(made)
        return made

    def check(self, prompt_ids: Sequence[int], params: SamplingParams) -> None:
        """Refuse a request that cannot be run; see :meth:`submit`."""
        vocab_size = self.model.spec.vocab_size
        if not prompt_ids:
            raise DataError("the prompt is empty. Give at least one token.")
        if min(prompt_ids) < 0 or max(prompt_ids) >= vocab_size:
            raise DataError(f"the prompt has a token id outside 0..{vocab_size - 1}.")
        total = len(prompt_ids) + params.max_tokens
        if total > self.max_context:
            raise DataError(
                f"the prompt has {len(prompt_ids)} tokens and max_tokens={params.max_tokens}, "
                f"together {total}; the context holds {self.max_context}. Shorten one of them."
            )
        for name, ids in (
            ("stop_token_ids", params.stop_token_ids),
            ("logit_bias", tuple(params.logit_bias)),
        ):
            for token in ids:
                if not 0 <= token < vocab_size:
                    raise DataError(f"{name} has the id {token}, outside 0..{vocab_size - 1}.")

    def cancel(self, sequences: Sequence[Continuation]) -> None:
        """Stop sequences; they leave at the next round."""
        for sequence in sequences:
            sequence.cancelled = True

    def step(self) -> bool:
        """One round; returns False when there is nothing left to do.

        Raises:
            Exception: what the model raised; every request under way has then ended
                with ``error``, and the engine can go on with new ones.
        """
        try:
            self._drop_cancelled()
            if self._batch is not None:
                self._batch.step(self._next)
                self._batch, self._next = self._advance(self._batch, self._running)
            self._admit()
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
            raise
        return bool(self._running or self._waiting)

    def run(self) -> None:
        """Rounds until nothing is left."""
        while self.step():
            continue

    def _drop_cancelled(self) -> None:
        if any(s.cancelled for s in self._running):
            for sequence in self._running:
                if sequence.cancelled:
                    self._end(sequence, "cancelled")
            self._batch, self._next = self._keep_unfinished(
                self._batch, self._running, self._next.tolist()
            )
        with self._lock:
            gone = [s for s in self._waiting if s.cancelled]
            for sequence in gone:
                self._waiting.remove(sequence)
        for sequence in gone:
            self._end(sequence, "cancelled")

    def _admit(self) -> None:
        taken: list[Continuation] = []
        with self._lock:
            width = 0
            while self._waiting and len(self._running) + len(taken) < self.max_batch:
                width = max(width, len(self._waiting[0].prompt_ids))
                if taken and width * (len(taken) + 1) > self._max_prefill_tokens:
                    break
                taken.append(self._waiting.popleft())
        if not taken:
            return
        before = list(self._running)
        self._running = before + taken  # so that a failure ends them too
        capacity = max(s.params.max_tokens for s in taken)
        batch: DecodeBatch | None = DecodeBatch(
            self.model, [s.prompt_ids for s in taken], capacity=min(capacity, 256)
        )
        assert batch is not None
        batch, chosen = self._advance(batch, taken)
        self._running = before + taken
        if batch is None:
            return
        if self._batch is None:
            self._batch, self._next = batch, chosen
        else:
            self._batch.join(batch)
            self._next = torch.cat((self._next, chosen))

    def _advance(
        self, batch: DecodeBatch, sequences: list[Continuation]
    ) -> tuple[DecodeBatch | None, Tensor]:
        """Choose a token a row from ``batch.logits``; finished rows leave both."""
        logits = batch.logits
        largest = logits.argmax(-1).tolist() if any(s.sampler.is_plain for s in sequences) else []
        chosen = []
        for row, sequence in enumerate(sequences):
            if sequence.sampler.is_plain:
                token = int(largest[row])
                sequence.sampler.note(token)
            else:
                token = sequence.sampler.choose(logits[row])
            chosen.append(token)
            sequence.push(token, logits[row])
            if sequence.finished:
                self._report(sequence)
        return self._keep_unfinished(batch, sequences, chosen)

    def _keep_unfinished(
        self, batch: DecodeBatch | None, sequences: list[Continuation], chosen: list[int]
    ) -> tuple[DecodeBatch | None, Tensor]:
        going = [i for i, s in enumerate(sequences) if not s.finished]
        assert batch is not None
        if going:
            batch.keep(going)
        sequences[:] = [sequences[i] for i in going]
        return batch if going else None, torch.tensor([chosen[i] for i in going], dtype=torch.int64)

    def _end(self, sequence: Continuation, reason: FinishReason, error: str = "") -> None:
        sequence.end(reason, error)
        self._report(sequence)

    def _report(self, sequence: Continuation) -> None:
        if self.on_finish is not None:
            self.on_finish(sequence)

    def _fail(self, message: str) -> None:
        with self._lock:
            gone = [*self._running, *self._waiting]
            self._waiting.clear()
        self._running, self._batch = [], None
        for sequence in gone:
            self._end(sequence, "error", message)
