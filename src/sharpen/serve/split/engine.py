"""An engine that computes a prompt for another one, or goes on from one that another computed.

It is the ordinary engine (``serve/engine.py``) with two more ways in. A *prompt* request is a
continuation of one token whose keys and values a :class:`~sharpen.serve.split.records.KVSender` is
shown layer by layer. A *tokens* request holds blocks first (``Scheduler.reserve``), gets its keys
and values in them, and runs once the first token has come (``Scheduler.adopt``). When it is
preempted later, its prompt is computed again here, as for any other request.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.models.load import resolve_model
from sharpen.models.paged import Watcher
from sharpen.serve.adapters import NamedAdapter
from sharpen.serve.embedding import Embedding
from sharpen.serve.engine import Engine
from sharpen.serve.llm import LLM
from sharpen.serve.request import Continuation, Piece
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.scheduler import Part
from sharpen.serve.split.fingerprint import adapter_hash, fingerprint
from sharpen.serve.split.records import KVSender, KVWriter
from sharpen.serve.split.ring import Ring
from sharpen.serve.split.scores import pack_scores, unpack_scores
from sharpen.serve.token_scores import Score

__all__ = ["SplitEngine", "SplitLLM", "TokenContinuation", "take_token"]


def take_token(sequence: Continuation, token: int, line: Mapping[str, Any] | None = None) -> None:
    """Let a continuation take a token that was chosen elsewhere.

    Args:
        sequence: it.
        token: the token.
        line: may have its log-probability (``score``) and those of the prompt (``prompt``).
    """
    if sequence.guide is not None and token not in sequence._stop_ids:
        sequence.guide.advance(token)
    sequence.sampler.note(token)
    told = line or {}
    if "prompt" in told:
        sequence._prompt_logprobs = unpack_scores(told["prompt"], sequence._token_text)
    score = None
    if "score" in told:
        logprob, likely = told["score"]
        score = logprob, tuple((i, value) for i, value in likely)
    sequence.push(token, score)


class TokenContinuation(Continuation):
    """A continuation whose tokens, not texts, are wanted; stop texts are the router's business.

    Args:
        engine: for tokenizer and stop tokens.
        prompt_ids: the prompt.
        params: how to continue.
        index: which of ``n`` continuations.
        on_token: called with every token, also with one that ends the continuation, as a line of
            JSON: ``token``, and ``score`` and ``prompt`` where log-probabilities are asked for.
        on_end: called with the last piece.
        sender: takes keys and values of the prompt, where another engine goes on.
    """

    def __init__(
        self,
        engine: Engine,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        index: int,
        on_token: Callable[[dict[str, Any]], None],
        on_end: Callable[[Piece], None],
        sender: KVSender | None = None,
    ) -> None:
        def on_piece(piece: Piece) -> None:
            if piece.finish_reason is not None:
                on_end(piece)

        plain = dataclasses.replace(params, stop=(), n=1, logprobs=None)
        guide = engine.grammars.guide(params.grammar) if params.grammar is not None else None
        adapter = engine.adapters.get(params.adapter) if params.adapter is not None else None
        super().__init__(
            engine.tokenizer, prompt_ids, plain, index, engine.eos_ids, on_piece, guide, adapter
        )
        self.sender = sender
        self._on_token = on_token
        self._top = params.logprobs

    @property
    def top(self) -> int | None:
        """As :class:`Continuation`'s, for where its tokens go."""
        return self._top

    def push(self, token: int, score: Score | None = None) -> None:
        """Take one token; it has no score here where it was chosen elsewhere."""
        if self.sender is not None:
            self.sender.finish(self.state.blocks, token)
        line: dict[str, Any] = {"token": token}
        if score is not None:
            line["score"] = score
        if self.num_tokens == 0 and self._prompt_logprobs:
            line["prompt"] = pack_scores(self._prompt_logprobs)
        self._on_token(line)
        super().push(token)


class SplitEngine(Engine):
    """See the module; arguments as for :class:`~sharpen.serve.engine.Engine`.

    Raises:
        ConfigError: a policy drops keys and values.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        if settings.get("kv_policy") is not None:
            raise ConfigError(
                "workers that split requests keep all keys and values: leave --kv-policy out."
            )
        super().__init__(*args, **settings)
        self._calls: deque[Callable[[], None]] = deque()
        self._storing = Lock()

    @property
    def capacity(self) -> int:
        """Tokens whose keys and values fit."""
        return self.scheduler.pool.count * self.scheduler.pool.size

    def sender(
        self, tokens: int, *, layered: bool, checksum: bool, ring: Ring | None = None
    ) -> KVSender:
        """What takes keys and values of a prompt of so many tokens."""
        spec = self.model.spec
        return KVSender(self._cache, spec, tokens, layered=layered, checksum=checksum, ring=ring)

    def writer(self, sequence: Continuation) -> KVWriter:
        """What puts keys and values into the blocks of a reserved sequence."""
        tokens = len(sequence.prompt_ids)
        return KVWriter(self._cache, self.model.spec, sequence.state.blocks, tokens)

    def start(self, sequence: TokenContinuation) -> Future[bool]:
        """Queue a sequence that begins here; wake the engine's thread afterwards."""
        return self._call(lambda: self._start(sequence))

    def reserve(self, sequence: TokenContinuation) -> Future[bool]:
        """Hold blocks for a sequence whose prompt another engine computes; False without room."""
        return self._call(lambda: self._reserve(sequence))

    def adopt(self, sequence: TokenContinuation, token: int) -> Future[bool]:
        """Go on after ``token`` with a sequence whose keys and values are stored."""
        return self._call(lambda: self._adopt(sequence, token))

    def store(
        self,
        sequence: Continuation,
        writer: KVWriter,
        layer: int,
        start: int,
        data: bytearray | memoryview,
    ) -> None:
        """Put a record into the blocks of a reserved sequence; safe from any thread.

        Raises:
            FileFormatError: it does not fit.
            ExecutionError: the sequence has ended, and its blocks are another's.
        """
        count = len(data) // writer.token_bytes
        with self._storing:
            if sequence.state.status != "reserved":
                raise ExecutionError("the request has ended.")
            writer.check(layer, start, count)
            writer.write(layer, start, count, data)

    def fail(self, error: BaseException) -> None:
        """End all requests with ``error``, also those about to begin."""
        while self._calls:
            self._calls.popleft()()
        super().fail(error)

    def _call(self, function: Callable[[], bool]) -> Future[bool]:
        """Have the engine's thread do something between rounds."""
        done: Future[bool] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except Exception as error:
                done.set_exception(error)

        self._calls.append(run)
        return done

    def _start(self, sequence: TokenContinuation) -> bool:
        self._own(sequence)
        self.scheduler.add(sequence.state)
        self._running[sequence.state] = sequence
        return True

    def _reserve(self, sequence: TokenContinuation) -> bool:
        self._own(sequence)
        if not self.scheduler.reserve(sequence.state):
            return False
        self._running[sequence.state] = sequence
        return True

    def _adopt(self, sequence: TokenContinuation, token: int) -> bool:
        if sequence.state not in self._running:
            return False  # it was cancelled
        sequence.started_s = time.perf_counter()
        try:
            take_token(sequence, token)
        except DataError as error:
            self._end(sequence, "error", str(error))
        if sequence.finished:
            if sequence.state in self._running:
                self._leave(sequence)
            return False
        self.scheduler.adopt(sequence.state, token)
        return True

    def _own(self, sequence: TokenContinuation) -> None:
        if not self._prefix_caching:
            sequence.state.keep_apart()

    def _take_in(self) -> None:
        while self._calls:
            self._calls.popleft()()
        super()._take_in()

    def _leave(self, sequence: Continuation | Embedding) -> None:
        with self._storing:  # nobody writes into blocks that are given up
            super()._leave(sequence)

    def _watcher(self, part: Part) -> Watcher | None:  # type: ignore[override]
        sequence = self._running[part.sequence]
        if isinstance(sequence, TokenContinuation) and sequence.sender is not None:
            return sequence.sender if sequence.sender.layered else None
        return super()._watcher(part)


class SplitLLM(LLM):
    """A model on a :class:`SplitEngine`; arguments as for :class:`~sharpen.serve.llm.LLM`.

    Attributes:
        fingerprint: what must be equal where keys and values are exchanged.
    """

    _engine_type: ClassVar[type[Engine]] = SplitEngine

    def __init__(self, model: str | Path, **settings: Any) -> None:
        super().__init__(model, **settings)
        dtype = self.engine._cache.buffers(0)[0].dtype
        adapter = settings.get("adapter")
        self.fingerprint = fingerprint(
            resolve_model(model), self.spec, dtype, Path(adapter) if adapter is not None else None
        )
        self._hashes: dict[int, str] = {}
        self.adapter_hashes()  # of the files that were loaded just now

    def adapter_hashes(self) -> dict[str, str]:
        """Of all adapters that requests may choose, by name."""
        return {one.name: self.adapter_hash(one) for one in self.engine.adapters}

    def adapter_hash(self, adapter: NamedAdapter) -> str:
        """What must be equal where an adapter is used on both sides."""
        if adapter.number not in self._hashes:
            self._hashes[adapter.number] = adapter_hash(adapter.folder)
        return self._hashes[adapter.number]

    @property
    def split(self) -> SplitEngine:
        """The engine."""
        assert isinstance(self.engine, SplitEngine)
        return self.engine
