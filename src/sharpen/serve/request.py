"""A request on its way: its continuations, their text as it grows, and why they ended."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sharpen.models.tokenizer import Tokenizer
from sharpen.serve.adapters import NamedAdapter
from sharpen.serve.draw import Draw
from sharpen.serve.grammar import Guide
from sharpen.serve.sampling import Sampler, SamplingParams
from sharpen.serve.scheduler import Part, SequenceState
from sharpen.serve.speculation import NgramGuesser
from sharpen.serve.stop import TextStream
from sharpen.serve.token_scores import Score, score_rows

__all__ = ["Continuation", "FinishReason", "Piece", "TokenLogprob"]

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token and its log-probability under the model, before temperature and penalties."""

    id: int
    """The token."""

    text: str
    """Its text; may hold U+FFFD where a character spans tokens."""

    logprob: float
    """Natural logarithm of its probability; NaN for a prompt's first token, which has none."""

    top: tuple[tuple[int, str, float], ...] = ()
    """The most likely tokens: id, text and log-probability, likeliest first."""


@dataclass(slots=True, kw_only=True)
class Piece:
    """What one or a few new tokens added to a continuation.

    Not frozen: one is made for nearly every token, and that would take four times as long.
    """

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

    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of the prompt's tokens, on the first piece, where asked for."""

    error: str = ""
    """What failed, where ``finish_reason`` is ``error``."""

    refused: bool = False
    """Whether the request itself was at fault for that."""


class Continuation:
    """One continuation on its way through the engine.

    Attributes:
        state: where the scheduler has it.
        submitted_s, started_s, first_token_s, last_token_s: when, on ``time.perf_counter``; None
            before.
        guesser: what guesses its tokens, where that is on.
        stop_id: the token that ended it, which is not among its own; None where none did.
        guide: what keeps it within a grammar, where it has one.

    Args:
        tokenizer: for text and stop texts.
        prompt_ids: the prompt.
        params: how to continue.
        index: which of ``params.n`` continuations.
        eos_ids: tokens that end it unless ``ignore_eos``.
        guide: at the start of the grammar, where there is one.
        adapter: what is added to the model for it, if anything.
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
        guide: Guide | None = None,
        adapter: NamedAdapter | None = None,
    ) -> None:
        self.prompt_ids = list(prompt_ids)
        self.params = params
        self.state = SequenceState(
            tokens=list(prompt_ids),
            max_tokens=len(prompt_ids) + params.max_tokens,
            priority=params.priority,
            arrival=time.monotonic(),
            extra=json.dumps([params.cache_salt, adapter.number if adapter else 0]),
        )
        self._prompt_logprobs: list[TokenLogprob] = []
        self._num_scored = 0
        if params.prompt_logprobs is not None:
            self.state.keep_apart()  # nothing known is taken
            text = tokenizer.decode(prompt_ids[:1], skip_special=False)
            first = TokenLogprob(id=prompt_ids[0], text=text, logprob=math.nan)
            self._prompt_logprobs.append(first)
        self.adapter = adapter
        self.index = index
        self.cancelled = False
        self.guesser: NgramGuesser | None = None
        self.finish_reason: FinishReason | None = None
        self.stop_id: int | None = None
        self.num_tokens = 0
        self.submitted_s = time.perf_counter()
        self.started_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self._tokenizer = tokenizer
        self._on_piece = on_piece
        self.guide = guide
        ignores_eos = params.ignore_eos and guide is None  # nothing follows a complete text
        self._stop_ids = frozenset(params.stop_token_ids) | (
            frozenset() if ignores_eos else eos_ids
        )
        blocked = self._stop_ids if params.min_tokens and guide is None else ()
        self.sampler = Sampler(params, prompt_ids, choice=index, blocked=sorted(blocked))
        self._text = TextStream(tokenizer, params.stop)
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def top(self) -> int | None:
        """How many of the most likely tokens are told beside each; None where none is scored."""
        return self.params.logprobs

    @property
    def finished(self) -> bool:
        """Whether its last piece is out."""
        return self.finish_reason is not None

    def choose(self, logits: Tensor) -> int:
        """The next token from logits [V], within the grammar where there is one.

        Raises:
            DataError: the grammar is too complex at this place, or allows nothing.
        """
        if self.guide is not None:
            early = self.num_tokens < self.params.min_tokens
            logits = self.guide.mask(logits, self._stop_ids if early else ())
        token = self.sampler.choose(logits)
        if self.guide is not None and token not in self._stop_ids:
            self.guide.advance(token)
        return token

    def num_wanted(self, part: Part) -> int:
        """Logits of the last so many tokens of a part are wanted."""
        if self.params.prompt_logprobs is not None and part.start < len(self.prompt_ids):
            return part.count
        return 1 + len(self.state.draft) if part.ends else 0

    def score(self, part: Part, logits: Tensor) -> None:
        """Score the prompt's tokens that follow those of a part, by its logits [n, V]."""
        top = self.params.prompt_logprobs
        end = min(part.start + part.count, len(self.prompt_ids) - 1)
        begin = self._num_scored
        if top is None or begin >= end:  # one that gave way has scores already
            return
        tokens = self.prompt_ids[begin + 1 : end + 1]
        rows = logits[begin - part.start : end - part.start]
        scores = score_rows(rows, tokens, [top] * len(tokens))
        self._prompt_logprobs += map(self._named, tokens, scores)
        self._num_scored = end

    def drawn(self, ahead: int) -> Draw | None:
        """How the token is drawn from the model's own logits; None where these are changed first.

        Args:
            ahead: tokens that will have come before.
        """
        return self.sampler.drawn(ahead) if self.guide is None else None

    def push(self, token: int, score: Score | None = None) -> None:
        """Take one token, with its score by the model where :attr:`top` asks for one."""
        self.last_token_s = now = time.perf_counter()
        if self.first_token_s is None:
            self.first_token_s = now
        if token in self._stop_ids:
            self.stop_id = token
            self._finish("stop")
            return
        self.num_tokens += 1
        self._ids.append(token)
        if score is not None:
            self._logprobs.append(self._named(token, score))
        text, stopped = self._text.push(token)
        if stopped:
            self._emit(text, "stop")
        elif self.guide is not None and self.guide.finished:
            self._finish("stop", text)
        elif self.num_tokens >= self.params.max_tokens:
            self._finish("length", text)
        elif text:
            self._emit(text, None)

    def end(self, reason: FinishReason, error: str = "", *, refused: bool = False) -> None:
        """End it from outside; ``refused`` where the request was at fault."""
        if not self.finished:
            self._emit("", reason, error, refused)

    def _finish(self, reason: FinishReason, text: str = "") -> None:
        rest, stopped = self._text.finish()
        self._emit(text + rest, "stop" if stopped else reason)

    def _emit(
        self, text: str, reason: FinishReason | None, error: str = "", refused: bool = False
    ) -> None:
        piece = Piece(
            text=text,
            ids=tuple(self._ids),
            index=self.index,
            finish_reason=reason,
            logprobs=tuple(self._logprobs),
            prompt_logprobs=tuple(self._prompt_logprobs),
            error=error,
            refused=refused,
        )
        self._ids, self._logprobs, self._prompt_logprobs = [], [], []
        self.finish_reason = reason
        self._on_piece(piece)

    def _named(self, token: int, score: Score) -> TokenLogprob:
        text = self._token_text
        logprob, likely = score
        top = tuple((i, text(i), value) for i, value in likely)
        return TokenLogprob(id=token, text=text(token), logprob=logprob, top=top)

    def _token_text(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special=False)
