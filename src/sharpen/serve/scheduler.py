"""Which tokens a step computes: one rule for prompts, parts of prompts, new and repeated tokens.

A sequence has ``num_computed`` tokens whose keys and values are stored, and ``num_tokens`` known
ones. A step gives each scheduled sequence the next ``min(num_tokens - num_computed, budget left,
chunk)`` of them (Agrawal et al., Taming Throughput-Latency Tradeoff in LLM Inference with
Sarathi-Serve, OSDI 2024, arXiv 2403.02310). One key orders everything, smaller first::

    (priority + aging * arrival, arrival, number)

    1. running sequences that lack one token      each gets it, so no prompt delays them
    2. running sequences still in their prompt    share what is left of the budget
    3. waiting sequences, unless 1 preempted
           the known part of the prompt comes from the pool; one starts when the free blocks hold
           all the rest of it, and none before it in order still waits for blocks

One whose next block a running sequence before it is about to store, such as another continuation
of the same prompt, waits for it and takes it from the pool. Those after it may start meanwhile, but
not with the blocks and the place that it needs.

When blocks run out in 1, the last running sequence in order gives its blocks up and waits again at
its old place; its tokens are computed again, as far as the pool has forgotten them. The first in
order is never the victim and every sequence fits the pool alone, so some sequence always goes on.

A sequence whose keys and values another engine computes reserves its blocks first, counts as
running from then on, and is adopted when they have come. While it waits for them it is no victim.

A sequence with a plan drops keys and values at borders within its prompt (``compress/kv/plan.py``).
No part of it crosses a border; it holds blocks for the most that it still has to store, and gives
those beyond back. What it stores is its own: it takes no known prefix, and leaves none.

Pure Python over numbers: the simulator of clusters runs the same rule. A step of R running
sequences costs O(R), and log of the waiting ones for each that starts.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sharpen.compress.kv.plan import EvictionPlan
from sharpen.core.errors import ConfigError, DataError
from sharpen.serve.blocks import BlockPool

__all__ = ["Part", "Scheduler", "SchedulerConfig", "SequenceState", "Step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Limits of a step, and the order."""

    max_batched_tokens: int = 512
    """Tokens of a step, at most."""

    max_sequences: int = 16
    """Sequences that run at the same time, at most."""

    chunk: int | None = None
    """Tokens of one prompt in one step, at most; default all of the budget."""

    draft_tokens: int = 0
    """Guessed tokens that a sequence may add to its next one."""

    aging: float = 0.0
    """Priority that a second of waiting is worth; 0: a class waits for all smaller ones."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, least in (
            ("max_batched_tokens", self.max_batched_tokens, 1),
            ("max_sequences", self.max_sequences, 1),
            ("chunk", 1 if self.chunk is None else self.chunk, 1),
            ("draft_tokens", self.draft_tokens, 0),
            ("aging", self.aging, 0),
        ):
            if not least <= value:
                raise ConfigError(f"{name}={value} must be at least {least}.")
        most = self.max_sequences * (1 + self.draft_tokens)
        if most >= self.max_batched_tokens:
            raise ConfigError(
                f"max_sequences={self.max_sequences} sequences of {1 + self.draft_tokens} tokens a "
                f"step leave no room for prompts in max_batched_tokens={self.max_batched_tokens}. "
                f"Set it above {most}."
            )


@dataclass(slots=True, eq=False)
class SequenceState:
    """How far a sequence is."""

    tokens: list[int]
    """All that are known: the prompt, then what was generated."""

    max_tokens: int
    """Tokens in all, at most, the prompt included."""

    priority: float = 0.0
    """Smaller goes first."""

    arrival: float = 0.0
    """When it came, in seconds of any clock."""

    extra: str = ""
    """What beside the tokens decides keys and values; only equal ones share a prefix."""

    private: bool = False
    """Whether nobody else can share its prefix, so that its blocks hold nothing when it is gone."""

    draft: list[int] = field(default_factory=list)
    """Guesses of the tokens that follow, to be computed together with the next one."""

    plan: EvictionPlan | None = None
    """When it drops keys and values; None for never."""

    status: Literal["waiting", "reserved", "running", "finished"] = "waiting"
    """Where it is."""

    num_computed: int = 0
    """Tokens whose keys and values were stored; some may have been dropped since."""

    num_cached: int = 0
    """Of the tokens at its last start, those taken from the pool."""

    num_preempted: int = 0
    """How often it gave its blocks up."""

    blocks: list[int] = field(default_factory=list)
    """Its blocks, in order."""

    hashes: list[bytes] = field(default_factory=list)
    """Of its full blocks, as far as they were needed."""

    num_published: int = 0
    """Of its blocks, those that others can find."""

    key: tuple[float, float, int] = (0.0, 0.0, 0)
    """Its place in the order."""

    @property
    def num_tokens(self) -> int:
        """Known tokens."""
        return len(self.tokens)

    @property
    def missing(self) -> int:
        """Known tokens that are not computed."""
        return len(self.tokens) - self.num_computed

    @property
    def dropped(self) -> int:
        """Computed tokens whose keys and values are no longer stored."""
        return self.plan.dropped(self.num_computed) if self.plan is not None else 0

    def keep_apart(self) -> None:
        """Share no prefix with any other sequence."""
        self.extra = f"{id(self)}/{time.monotonic_ns()}"
        self.private = True

    def most_stored(self, end: int) -> int:
        """Tokens that are stored at most, from now until ``end`` are computed."""
        return self.plan.most(self.num_computed, end) if self.plan is not None else end

    def next_part(self, most: int) -> int:
        """Tokens of its next part, at most so many."""
        count = min(self.missing, most)
        border = self.plan.next_border(self.num_computed) if self.plan is not None else None
        return count if border is None else min(count, border - self.num_computed)


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of a sequence that a step computes."""

    sequence: SequenceState

    start: int
    """Of the first one."""

    count: int
    """With guesses at the end."""

    @property
    def ids(self) -> list[int]:
        """The tokens."""
        sequence, end = self.sequence, self.start + self.count
        known = sequence.tokens[self.start : end]
        guessed = end - len(sequence.tokens)
        return known + sequence.draft[:guessed] if guessed > 0 else known

    @property
    def ends(self) -> bool:
        """Whether it reaches the last known token, so that the next one is to be chosen."""
        return self.start + self.count >= self.sequence.num_tokens


@dataclass(slots=True)
class Step:
    """What one step computes."""

    parts: list[Part] = field(default_factory=list)
    """Next tokens first, then prompts."""

    preempted: list[SequenceState] = field(default_factory=list)
    """Those that gave their blocks up for it."""

    copies: list[tuple[int, int]] = field(default_factory=list)
    """Blocks, and those that their contents go to before anything is computed, in this order."""

    @property
    def num_tokens(self) -> int:
        """In all parts."""
        return sum(part.count for part in self.parts)


class Scheduler:
    """Decides step by step.

    Args:
        config: limits.
        pool: blocks for keys and values.
    """

    def __init__(self, config: SchedulerConfig, pool: BlockPool) -> None:
        self.config = config
        self.pool = pool
        self.running: list[SequenceState] = []
        self._waiting: list[tuple[tuple[float, float, int], SequenceState]] = []
        self._num_waiting = 0
        self.num_reserved = 0
        self._numbers = itertools.count()
        self.num_preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    @property
    def num_waiting(self) -> int:
        """Sequences that wait."""
        return self._num_waiting

    @property
    def busy(self) -> bool:
        """Whether any sequence runs or waits."""
        return bool(self.running or self._num_waiting)

    def add(self, sequence: SequenceState) -> None:
        """Let a new sequence wait for its turn.

        Raises:
            DataError: it is empty, or could not fit the pool alone.
        """
        if not sequence.tokens:
            raise DataError("the prompt is empty. Give at least one token.")
        self.check(sequence.max_tokens, sequence.plan)
        self._number(sequence)
        self._wait(sequence)

    def reserve(self, sequence: SequenceState) -> bool:
        """Hold blocks for the known tokens of a new sequence, to be filled from elsewhere.

        Returns:
            Whether there was room; if not, nothing has changed.

        Raises:
            DataError: it is empty, has a plan, or could not fit the pool alone.
        """
        if not sequence.tokens or sequence.plan is not None:
            raise DataError("a sequence that is filled from elsewhere needs tokens and no plan.")
        self.check(sequence.max_tokens)
        needed = -(-sequence.num_tokens // self.pool.size)
        if len(self.running) + self.num_reserved >= self.config.max_sequences:
            return False
        if needed > self.pool.num_free:
            return False
        self._number(sequence)
        sequence.blocks = self.pool.take(needed)
        sequence.status = "reserved"
        self.num_reserved += 1
        return True

    def adopt(self, sequence: SequenceState, token: int) -> None:
        """Run a reserved sequence whose known tokens are stored; ``token`` is the one after them.

        A sequence that was removed since is left alone.
        """
        if sequence.status != "reserved":
            return
        self.num_reserved -= 1
        sequence.num_computed = sequence.num_cached = sequence.num_tokens
        self._publish(sequence)
        sequence.tokens.append(token)
        sequence.status = "running"
        bisect.insort(self.running, sequence, key=lambda one: one.key)

    def check(self, max_tokens: int, plan: EvictionPlan | None = None) -> None:
        """Refuse a sequence of so many tokens that does not fit the pool alone; see :meth:`add`."""
        size = self.pool.size
        stored = max_tokens if plan is None else plan.most(0, max_tokens)
        needed = -(-(stored + self.config.draft_tokens) // size)
        if needed > self.pool.count:
            raise DataError(
                f"a sequence of {max_tokens} tokens needs {needed} blocks of keys and values, and "
                f"there are {self.pool.count} for {self.pool.count * size} tokens. Shorten the "
                "prompt or max_tokens, or give the cache more memory."
            )

    def remove(self, sequence: SequenceState) -> None:
        """Take a sequence out, wherever it is; its blocks are free again."""
        if sequence.status == "running":
            self.running.remove(sequence)
            self._release(sequence, forget=sequence.private)
        elif sequence.status == "reserved":
            self.num_reserved -= 1
            self._release(sequence, forget=sequence.private)
        elif sequence.status == "waiting":
            self._num_waiting -= 1
        sequence.status = "finished"

    def clear(self) -> list[SequenceState]:
        """Take all out, in order; those reserved are left to whoever fills them."""
        waiting = [sequence for _, sequence in self._waiting if sequence.status == "waiting"]
        gone = sorted([*self.running, *waiting], key=lambda sequence: sequence.key)
        for sequence in gone:
            self.remove(sequence)
        self._waiting.clear()
        return gone

    def schedule(self) -> Step:
        """The next step; blocks for its tokens are held when it returns."""
        step = Step()
        left = self.config.max_batched_tokens
        chosen: dict[SequenceState, Part] = {}
        for sequence in tuple(self.running):
            if sequence.status == "running" and sequence.missing == 1:
                count = 1 + len(sequence.draft)
                left += self._make_room(sequence, count, step, chosen)
                if sequence.status == "running":
                    chosen[sequence] = Part(sequence, sequence.num_computed, count)
                    left -= count
        chunk = self.config.chunk or left
        for sequence in self.running:
            if left and sequence.missing > 1:
                count = sequence.next_part(min(left, chunk))
                chosen[sequence] = Part(sequence, sequence.num_computed, count)
                left -= count
        step.parts = list(chosen.values())
        if not step.preempted:
            self._start(step, left, chunk)
        return step

    def update(self, step: Step, new: Sequence[Sequence[int]]) -> None:
        """A step was computed.

        Args:
            step: from :meth:`schedule`; sequences that were removed since are left alone.
            new: for each part, the tokens chosen after its last known token: none where it does
                not reach it, and more than one where guesses were right.
        """
        for part, tokens in zip(step.parts, new, strict=True):
            sequence = part.sequence
            if sequence.status != "running":
                continue
            guessed = len(tokens) - 1 if tokens else 0
            sequence.num_computed = min(part.start + part.count, sequence.num_tokens) + guessed
            sequence.tokens.extend(tokens)
            sequence.draft = []
            if sequence.plan is None:
                self._publish(sequence)
            else:
                self._give_back(sequence)

    def _number(self, sequence: SequenceState) -> None:
        place = sequence.priority + self.config.aging * sequence.arrival
        sequence.key = (place, sequence.arrival, next(self._numbers))

    def _wait(self, sequence: SequenceState) -> None:
        sequence.status = "waiting"
        self._num_waiting += 1
        heapq.heappush(self._waiting, (sequence.key, sequence))

    def _make_room(
        self, asking: SequenceState, count: int, step: Step, chosen: dict[SequenceState, Part]
    ) -> int:
        """Hold blocks for ``count`` more tokens; returns tokens that victims give back."""
        returned = 0
        stored = asking.num_computed - asking.dropped + count
        needed = -(-stored // self.pool.size) - len(asking.blocks)
        while needed > self.pool.num_free:
            victim = self.running[-1]
            part = chosen.pop(victim, None)
            returned += part.count if part is not None else 0
            self._preempt(victim)
            step.preempted.append(victim)
            if victim is asking:
                return returned
        if needed > 0:
            asking.blocks += self.pool.take(needed)
        return returned

    def _preempt(self, victim: SequenceState) -> None:
        self.running.pop()
        self._release(victim)
        victim.num_preempted += 1
        self.num_preemptions += 1
        self._wait(victim)

    def _release(self, sequence: SequenceState, *, forget: bool = False) -> None:
        self.pool.release(sequence.blocks, forget=forget)
        sequence.blocks = []
        sequence.num_computed = 0
        sequence.draft = []

    def _start(self, step: Step, left: int, chunk: int) -> None:
        """Let waiting sequences run, in order, while they fit."""
        most = self.config.max_sequences - self.num_reserved
        passed: list[SequenceState] = []
        kept = 0  # blocks for those that were passed over
        while left and self._waiting and len(self.running) + len(passed) < most:
            sequence = self._waiting[0][1]
            if sequence.status != "waiting":
                heapq.heappop(self._waiting)
                continue
            known = self._known_prefix(sequence)
            stored = sequence.most_stored(sequence.num_tokens)
            needed = -(-stored // self.pool.size) - len(known)
            taken = needed + self.pool.num_needed(known)
            if kept + taken > self.pool.num_free:
                break
            heapq.heappop(self._waiting)
            if self._is_coming(sequence, len(known)):
                passed.append(sequence)
                kept += taken
                continue
            self._num_waiting -= 1
            last = self._known_end(sequence, len(known))
            self.pool.share(known)
            sequence.blocks = known + self.pool.take(needed)
            sequence.num_computed = sequence.num_cached = len(known) * self.pool.size
            sequence.num_published = len(known)
            if last is not None:  # a copy, since the last token is computed again
                step.copies.append((last, sequence.blocks[-1]))
                sequence.num_computed = sequence.num_cached = sequence.num_tokens - 1
            self.prefix_queries += sequence.num_tokens
            self.prefix_hits += sequence.num_cached
            sequence.status = "running"
            bisect.insort(self.running, sequence, key=lambda one: one.key)
            count = sequence.next_part(min(left, chunk))
            step.parts.append(Part(sequence, sequence.num_computed, count))
            left -= count
        for sequence in passed:
            heapq.heappush(self._waiting, (sequence.key, sequence))

    def _is_coming(self, sequence: SequenceState, block: int) -> bool:
        """Whether one before it is about to store the block that comes next in its prompt."""
        if sequence.plan is not None or (block + 1) * self.pool.size >= sequence.num_tokens:
            return False
        wanted = sequence.hashes[block]
        return any(
            one.missing > 1
            and one.key < sequence.key
            and one.num_published <= block < len(one.hashes)
            and one.hashes[block] == wanted
            for one in self.running
        )

    def _known_prefix(self, sequence: SequenceState) -> list[int]:
        """Blocks that hold its first tokens; never its last one, whose logits are wanted."""
        if sequence.plan is not None:
            return []
        whole = (sequence.num_tokens - 1) // self.pool.size
        return self.pool.find(self._hashes(sequence, whole))

    def _known_end(self, sequence: SequenceState, known: int) -> int | None:
        """The block that holds its last tokens, if they fill one and all before them are known."""
        whole, rest = divmod(sequence.num_tokens, self.pool.size)
        if rest or known != whole - 1 or sequence.plan is not None:
            return None
        found = self.pool.find(self._hashes(sequence, whole)[-1:])
        return found[0] if found else None

    def _hashes(self, sequence: SequenceState, count: int) -> list[bytes]:
        """Those of its first full blocks."""
        size, hashes = self.pool.size, sequence.hashes
        for i in range(len(hashes), count):
            previous = hashes[-1] if hashes else self.pool.root(sequence.extra)
            hashes.append(self.pool.chain(previous, sequence.tokens[i * size : (i + 1) * size]))
        return hashes[:count]

    def _give_back(self, sequence: SequenceState) -> None:
        """Release blocks that hold nothing any more, and that no known token needs."""
        assert sequence.plan is not None
        stored = sequence.most_stored(max(sequence.num_tokens, sequence.num_computed))
        needed = -(-stored // self.pool.size)
        if needed < len(sequence.blocks):
            self.pool.release(sequence.blocks[needed:])
            del sequence.blocks[needed:]

    def _publish(self, sequence: SequenceState) -> None:
        """Let others find the blocks that the last step filled."""
        full = sequence.num_computed // self.pool.size
        if full == sequence.num_published:
            return
        hashes = self._hashes(sequence, full)
        for i in range(sequence.num_published, full):
            self.pool.know(sequence.blocks[i], hashes[i])
        sequence.num_published = full
