"""The engine: a scheduler that chooses tokens to compute, a model that computes them, samplers.

One round, :meth:`Engine.step`::

    take in    new requests; drop those that were cancelled
    schedule   the next token of every running sequence, and parts of prompts (``scheduler.py``)
    compute    all of them in one pass over a cache of blocks (``models/paged.py``)
    choose     the next token of every sequence whose known tokens are all computed

Sampling is by request (``sampling.py``), so a request's tokens do not depend on its neighbours, up
to the rounding of the matrix products. Prefixes that the cache still knows are not computed again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sharpen.compress.kv.plan import EvictionPlan
from sharpen.compress.kv.policy import KVPolicy
from sharpen.compress.kv.retention import Retention
from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.models.paged import PagedPart
from sharpen.models.tokenizer import Tokenizer
from sharpen.serve.adapters import Adapters
from sharpen.serve.admission import Admission, QueueLimits
from sharpen.serve.blocks import BlockPool
from sharpen.serve.cache_size import cache_blocks
from sharpen.serve.draw import Draw, draw
from sharpen.serve.embedding import Embedding, Pooling
from sharpen.serve.grammar import Grammars, Guide
from sharpen.serve.paged_model import PagedModel
from sharpen.serve.request import Continuation, FinishReason, Piece
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.scheduler import Part, Scheduler, SchedulerConfig, SequenceState, Step
from sharpen.serve.speculation import NgramGuesser, Speculation
from sharpen.serve.token_scores import Score, score_rows

__all__ = ["Engine", "RoundError"]

_CPU_TOKENS, _CUDA_TOKENS = 512, 8192  # of a round


class RoundError(ExecutionError):
    """The model failed in one round."""


class Engine:
    """Runs requests on one model. Submitting and cancelling are safe from any thread.

    Attributes:
        admission: who may wait.
        adapters: those that requests may choose.
        grammars: compiles what requests must be, each once.
        on_finish: called with every continuation that ends, for measurements.
        on_step: called with the number of tokens of every round that was computed.
        num_guessed: tokens that came as right guesses.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        eos_ids: tokens that end a continuation.
        max_batch: continuations that run at the same time.
        limits: what may wait for its turn; more is refused.
        max_context: prompt and new tokens together, at most; default the model's context.
        max_batched_tokens: tokens of one round; prompts come in parts that fit it. Default 512 on
            the CPU and 8,192 elsewhere.
        block_size: tokens of a block of keys and values.
        cache_bytes: for keys and values; default as in ``cache_size.py``, and no more than
            ``max_batch`` whole contexts.
        prefix_caching: reuse what is known of a prompt.
        aging: priority that a second of waiting is worth.
        speculation: guess tokens from the text itself; None does not.
        max_loras: adapters that may be loaded at the same time.
        kv_policy: what long prompts keep of their keys and values; None keeps all. Prompts that
            drop some share no prefix with others.

    Raises:
        ConfigError: a setting is out of range, the cache holds less than a block, or the policy
            cannot serve the model.
    """

    def __init__(
        self,
        model: PagedModel,
        tokenizer: Tokenizer,
        *,
        eos_ids: frozenset[int] = frozenset(),
        max_batch: int = 16,
        limits: QueueLimits | None = None,
        max_context: int | None = None,
        max_batched_tokens: int | None = None,
        block_size: int = 16,
        cache_bytes: int | None = None,
        prefix_caching: bool = True,
        aging: float = 0.0,
        speculation: Speculation | None = None,
        max_loras: int = 8,
        kv_policy: KVPolicy | None = None,
    ) -> None:
        if max_batch < 1:
            raise ConfigError(f"max_batch={max_batch} must be at least 1.")
        if max_batched_tokens is not None and max_batched_tokens < 1:
            raise ConfigError(f"max_batched_tokens={max_batched_tokens} must be at least 1.")
        if block_size < 1 or block_size & (block_size - 1):
            raise ConfigError(f"block_size={block_size} must be a power of two, such as 16.")
        limit = model.spec.max_positions
        if max_context is not None and not 1 <= max_context <= limit:
            raise ConfigError(f"max_context={max_context} must be from 1 to {limit} (the model's).")
        self.model = model
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.max_batch = max_batch
        self.admission = Admission(limits)
        self.max_context = max_context or limit
        self._speculation = speculation
        if kv_policy is not None:
            kv_policy.check(model.spec)
        self._kv_policy = kv_policy
        self._retentions: dict[SequenceState, Retention] = {}
        drafts = speculation.tokens if speculation is not None else 0
        if max_batched_tokens is None:
            max_batched_tokens = _CUDA_TOKENS if model.device.type == "cuda" else _CPU_TOKENS
        config = SchedulerConfig(
            max_batched_tokens=max(max_batched_tokens, max_batch * (1 + drafts) + 1),
            max_sequences=max_batch,
            draft_tokens=drafts,
            aging=aging,
        )
        count = cache_blocks(
            model,
            block_size,
            cache_bytes,
            most=max_batch * -(-self.max_context // block_size),
            tokens=config.max_batched_tokens,
            sequences=max_batch,
        )
        self.scheduler = Scheduler(config, BlockPool(count, block_size))
        self._cache = model.new_paged_cache(count, block_size)
        model.record(self._cache, max_batch)
        self._prefix_caching = prefix_caching
        self._running: dict[SequenceState, Continuation | Embedding] = {}
        self._arrived: list[Continuation | Embedding] = []
        self._lock = threading.Lock()
        self.num_guessed = 0
        self.adapters = Adapters(model.load_adapter, most=max_loras)
        self.grammars = Grammars(tokenizer, model.spec.vocab_size, eos_ids)
        self.on_finish: Callable[[Continuation | Embedding], None] | None = None
        self.on_step: Callable[[int], None] | None = None

    @property
    def num_running(self) -> int:
        """Continuations in the batch."""
        return len(self.scheduler.running)

    @property
    def num_waiting(self) -> int:
        """Continuations that wait for their turn."""
        return self.scheduler.num_waiting + len(self._arrived)

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        on_piece: Callable[[Piece], None],
    ) -> list[Continuation]:
        """Queue a request; one sequence for each of ``params.n`` continuations.

        Args:
            prompt_ids: its tokens.
            params: how to continue.
            on_piece: gets what comes, see :class:`Continuation`.

        Raises:
            DataError: the prompt is empty, holds a wrong id, or does not fit the context.
            OverloadedError: too many requests wait.
            ConfigError: the grammar cannot be used, or there is no such adapter.
        """
        self.check(prompt_ids, params)
        adapter = self.adapters.get(params.adapter) if params.adapter is not None else None
        guides = [self._guide(params) for _ in range(params.n)]
        with self._lock:
            self._admit(params.n, len(prompt_ids))
            made = [
                Continuation(
                    self.tokenizer, prompt_ids, params, i, self.eos_ids, on_piece, guide, adapter
                )
                for i, guide in enumerate(guides)
            ]
            for one in made:
                self.admission.enter(one, len(prompt_ids), params.max_tokens)
            self._arrived.extend(made)
        return made

    def embed(
        self,
        prompt_ids: Sequence[int],
        on_done: Callable[[Embedding], None],
        *,
        pooling: Pooling = "last",
        adapter: str | None = None,
        priority: float = 0.0,
    ) -> Embedding:
        """Queue a text for its vector.

        Args:
            prompt_ids: its tokens.
            on_done: called once with the result, by whoever calls :meth:`step`.
            pooling: how its tokens' states become one.
            adapter: name of what is added to the model for it.
            priority: smaller goes first.

        Raises:
            DataError: the text is empty, holds a wrong id, or does not fit the context.
            OverloadedError: too many requests wait.
            ConfigError: there is no such adapter.
        """
        self._check_ids(prompt_ids)
        if len(prompt_ids) > self.max_context:
            raise DataError(
                f"the text has {len(prompt_ids)} tokens; the context holds {self.max_context}. "
                "Shorten it."
            )
        self.scheduler.check(len(prompt_ids))
        named = self.adapters.get(adapter) if adapter is not None else None
        with self._lock:
            self._admit(1, len(prompt_ids))
            made = Embedding(prompt_ids, pooling, named, priority, on_done)
            self.admission.enter(made, len(prompt_ids), 0)
            self._arrived.append(made)
        return made

    def check(self, prompt_ids: Sequence[int], params: SamplingParams) -> None:
        """Refuse a request that cannot be run; see :meth:`submit`. May wait for its grammar."""
        vocab_size = self.model.spec.vocab_size
        self._check_ids(prompt_ids)
        total = len(prompt_ids) + params.max_tokens
        if total > self.max_context:
            raise DataError(
                f"the prompt has {len(prompt_ids)} tokens and max_tokens={params.max_tokens}, "
                f"together {total}; the context holds {self.max_context}. Shorten one of them."
            )
        self.scheduler.check(total, self._plan(len(prompt_ids)))
        if params.adapter is not None:
            self.adapters.get(params.adapter)
        if params.grammar is not None:
            self.grammars.begin(params.grammar).result()
        for name, ids in (
            ("stop_token_ids", params.stop_token_ids),
            ("logit_bias", tuple(params.logit_bias)),
        ):
            for token in ids:
                if not 0 <= token < vocab_size:
                    raise DataError(f"{name} has the id {token}, outside 0..{vocab_size - 1}.")

    def _check_ids(self, prompt_ids: Sequence[int]) -> None:
        vocab_size = self.model.spec.vocab_size
        if not prompt_ids:
            raise DataError("the prompt is empty. Give at least one token.")
        if min(prompt_ids) < 0 or max(prompt_ids) >= vocab_size:
            raise DataError(f"the prompt has a token id outside 0..{vocab_size - 1}.")

    def _admit(self, count: int, prompt_tokens: int) -> None:
        """Refuse more sequences than may wait."""
        free = max(self.max_batch - self.num_running, 0)
        self.admission.check(count, prompt_tokens, self.num_waiting, free)

    def _guide(self, params: SamplingParams) -> Guide | None:
        return self.grammars.guide(params.grammar) if params.grammar is not None else None

    def cancel(self, sequences: Sequence[Continuation | Embedding]) -> None:
        """Stop sequences; they leave at the next round."""
        for sequence in sequences:
            sequence.cancelled = True

    def step(self) -> bool:
        """One round; returns False when there is nothing left to do.

        Raises:
            RoundError: the model failed; the requests of this round have then ended with
                ``error``, and the engine can go on with the others.
        """
        self._take_in()
        if self._speculation is not None:
            self._guess(self._speculation)
        step = self.scheduler.schedule()
        if step.parts:
            begin = time.perf_counter()
            self._note_starts(step, begin)
            try:
                for source, target in step.copies:
                    self._cache.copy(source, target)
                new = self._compute(step.parts)
            except Exception as error:
                for part in step.parts:
                    self._end(self._running[part.sequence], "error", _told(error))
                raise RoundError(f"a round of the engine failed: {_told(error)}") from error
            self.admission.computed(step.num_tokens, time.perf_counter() - begin)
            self.scheduler.update(step, new)
            if self.on_step is not None:
                self.on_step(step.num_tokens)
            for part in step.parts:
                sequence = self._running[part.sequence]
                if sequence.finished:
                    self._leave(sequence)
        return self.scheduler.busy or bool(self._arrived)

    def forget_prefixes(self) -> None:
        """Know no prefix any more: the weights are about to change.

        Raises:
            ExecutionError: requests are under way, whose keys and values are of the old ones.
        """
        if self._running or self._arrived:
            raise ExecutionError(
                f"{len(self._running) + len(self._arrived)} requests are under way; weights can "
                "change only between requests. Wait for them, or cancel them."
            )
        self.scheduler.pool.forget()

    def fail(self, error: BaseException) -> None:
        """End all requests with ``error``; the engine cannot go on."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
        for sequence in [*self._running.values(), *arrived]:
            sequence.end("error", _told(error))

    def run(self) -> None:
        """Rounds until nothing is left."""
        while self.step():
            continue

    def _plan(self, prompt_tokens: int) -> EvictionPlan | None:
        """When a prompt drops keys and values; None for never."""
        if self._kv_policy is None:
            return None
        plan = self._kv_policy.plan(prompt_tokens)
        return plan if plan.evicts else None

    def _take_in(self) -> None:
        with self._lock:
            arrived, self._arrived = self._arrived, []
            for sequence in arrived:
                if not self._prefix_caching:
                    sequence.state.keep_apart()
                if isinstance(sequence, Continuation):
                    sequence.state.plan = self._plan(len(sequence.prompt_ids))
                self._running[sequence.state] = sequence
                self.scheduler.add(sequence.state)
        for sequence in [one for one in self._running.values() if one.cancelled]:
            self._end(sequence, "cancelled")

    def _guess(self, settings: Speculation) -> None:
        """Let sequences at their next token have guesses of those that follow it."""
        if len(self.scheduler.running) > settings.max_sequences:
            return
        for state in self.scheduler.running:
            left = state.max_tokens - state.num_tokens - 1
            if state.missing == 1 and left > 0:
                sequence = self._running[state]
                assert isinstance(sequence, Continuation)  # an embedding has no next token
                if sequence.guesser is None:
                    sequence.guesser = NgramGuesser(settings)
                state.draft = sequence.guesser.guess(state.tokens, left)
                if state.draft and sequence.guide is not None:
                    del state.draft[sequence.guide.fitting(state.draft) :]

    def _note_starts(self, step: Step, now: float) -> None:
        started = [self._running[part.sequence] for part in step.parts]
        started = [sequence for sequence in started if sequence.started_s is None]
        for sequence in started:
            sequence.started_s = now
        if started:
            with self._lock:
                for sequence in started:
                    self.admission.leave(sequence)

    def _compute(self, parts: Sequence[Part]) -> list[list[int]]:
        """Run the model; the tokens chosen after each part."""
        sequences = [self._running[part.sequence] for part in parts]
        wanted = [one.num_wanted(part) for one, part in zip(sequences, parts, strict=True)]
        states = self.model.states(
            [
                PagedPart(
                    part.ids,
                    part.start,
                    part.sequence.blocks,
                    count,
                    part.sequence.dropped,
                    self._watcher(part),
                    sequence.adapter.weights if sequence.adapter is not None else None,
                )
                for part, sequence, count in zip(parts, sequences, wanted, strict=True)
            ],
            self._cache,
        )
        for part in parts:
            retention = self._retentions.get(part.sequence)
            if retention is not None:
                retention.drop(self._cache, part.sequence.blocks, part.start + part.count)
        logits = self._logits(states, sequences, wanted)
        tokens = draw(logits, self._draws(parts, sequences, wanted))
        scores = self._scores(logits, tokens, parts, sequences, wanted)
        if None in tokens or any(_scores_prompt(one) for one in sequences):
            logits = logits.cpu()
        new: list[list[int]] = []
        state = row = 0
        for sequence, part, count in zip(sequences, parts, wanted, strict=True):
            if isinstance(sequence, Embedding):
                if count:
                    sequence.take(part, states[state : state + count])
                new.append([])
            else:
                if sequence.params.prompt_logprobs is not None:
                    sequence.score(part, logits[row : row + count])
                row += count
                first = row - 1 - len(part.sequence.draft) if part.ends else row
                new.append(self._choose(sequence, logits, tokens, scores, range(first, row)))
            state += count
        return new

    def _logits(
        self,
        states: Tensor,
        sequences: Sequence[Continuation | Embedding],
        wanted: Sequence[int],
    ) -> Tensor:
        """Of all wanted states but those of embeddings."""
        are_kept = [
            isinstance(sequence, Continuation)
            for sequence, count in zip(sequences, wanted, strict=True)
            for _ in range(count)
        ]
        if not all(are_kept):
            states = states[torch.tensor(are_kept, device=states.device)]
        return self.model.logits(states)

    def _draws(
        self,
        parts: Sequence[Part],
        sequences: Sequence[Continuation | Embedding],
        wanted: Sequence[int],
    ) -> list[Draw | None]:
        """How the rows of logits are drawn from, where that is as the model gives them."""
        draws: list[Draw | None] = []
        for sequence, part, count in zip(sequences, parts, wanted, strict=True):
            if count == 1 and part.ends and isinstance(sequence, Continuation):
                draws.append(sequence.drawn(0))
            elif isinstance(sequence, Continuation):
                new = 1 + len(part.sequence.draft) if part.ends else 0
                draws += [None] * (count - new) + [sequence.drawn(i) for i in range(new)]
        return draws

    def _scores(
        self,
        logits: Tensor,
        tokens: Sequence[int | None],
        parts: Sequence[Part],
        sequences: Sequence[Continuation | Embedding],
        wanted: Sequence[int],
    ) -> dict[int, Score]:
        """Of tokens that were drawn and are to be scored, by row of the logits."""
        found: list[tuple[int, int, int]] = []  # row, token, how many likely ones
        row = 0
        for sequence, part, count in zip(sequences, parts, wanted, strict=True):
            if isinstance(sequence, Continuation):
                row += count
                if sequence.top is not None and part.ends:
                    for own in range(row - 1 - len(part.sequence.draft), row):
                        if (token := tokens[own]) is not None:
                            found.append((own, token, sequence.top))
        if not found:
            return {}
        rows, drawn, tops = (list(column) for column in zip(*found, strict=True))
        kept = logits if len(rows) == len(tokens) else logits[torch.tensor(rows)]
        return dict(zip(rows, score_rows(kept, drawn, tops), strict=True))

    def _choose(
        self,
        sequence: Continuation,
        logits: Tensor,
        tokens: Sequence[int | None],
        scores: Mapping[int, Score],
        rows: Sequence[int],
    ) -> list[int]:
        """The next tokens of a sequence, from logits after its last token and its guesses.

        Args:
            sequence: it takes the tokens.
            logits: [M, V], of all sequences.
            tokens: drawn from each row already, or None.
            scores: of tokens that were drawn and are to be scored, by row.
            rows: those of the next token and of those after right guesses.
        """
        chosen: list[int] = []
        for i, row in enumerate(rows):
            if i:
                if sequence.finished or chosen[-1] != sequence.state.draft[i - 1]:
                    break
                self.num_guessed += 1
            token, score = tokens[row], scores.get(row)
            if token is not None:
                sequence.sampler.note(token)
            else:
                try:
                    token = sequence.choose(logits[row])
                except DataError as error:
                    sequence.end("error", str(error), refused=True)
                    break
                if sequence.top is not None:
                    (score,) = score_rows(logits[row : row + 1], [token], [sequence.top])
            chosen.append(token)
            sequence.push(token, score)
        return chosen

    def _watcher(self, part: Part) -> Retention | None:
        """Who scores the tokens of a part, if they may be dropped later."""
        state = part.sequence
        if self._kv_policy is None or state.plan is None:
            return None
        if part.start == 0:
            layers = self.model.spec.num_layers
            prompt = state.plan.prompt_tokens
            self._retentions[state] = Retention(self._kv_policy, prompt, layers)
        if part.start < state.plan.last_border:
            return self._retentions[state]
        self._retentions.pop(state, None)
        return None

    def _end(
        self, sequence: Continuation | Embedding, reason: FinishReason, error: str = ""
    ) -> None:
        sequence.end(reason, error)
        self._leave(sequence)

    def _leave(self, sequence: Continuation | Embedding) -> None:
        self.scheduler.remove(sequence.state)
        del self._running[sequence.state]
        self._retentions.pop(sequence.state, None)
        with self._lock:
            self.admission.leave(sequence)
        if sequence.finish_reason in ("stop", "length") and sequence.num_tokens:
            self.admission.answered(sequence.num_tokens)
        if self.on_finish is not None:
            self.on_finish(sequence)


def _scores_prompt(sequence: Continuation | Embedding) -> bool:
    return isinstance(sequence, Continuation) and sequence.params.prompt_logprobs is not None


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
