"""What a simulated machine computes in its next iterations.

Two rules. :class:`ScheduledBatcher` runs the engine's own :class:`~sharpen.serve.scheduler.
Scheduler`: prompts in parts, next tokens first. :class:`WholeBatcher` is the rule of the Splitwise
simulator (Patel et al., ISCA 2024, section IV-B): whole prompts, first come first served, up to
``max_batch_tokens``, before next tokens; those left out are preempted. After ``max_preemptions`` a
sequence is not left out twice in a row. Unlike there, a prompt that stays takes memory for all of
its output at once, so that no two wait for each other's.

Iterations of the same sequences at their next tokens are taken together: nothing changes until one
ends, blocks run out, or a request arrives, and then the run is cut after the iteration under way.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from sharpen.core.errors import ConfigError, DataError
from sharpen.plan.serving.perf_model import PerfModel
from sharpen.serve.blocks import BlockPool
from sharpen.serve.scheduler import Part, Scheduler, SchedulerConfig, SequenceState, Step

__all__ = ["Batcher", "Ended", "Job", "Run", "ScheduledBatcher", "WholeBatcher"]

_STRIDE = 32  # iterations taken together while the growing context changes their time


@dataclass(slots=True, eq=False)
class Job:
    """A request in the simulation; times in seconds, -1 before."""

    number: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    split: bool = False
    """Whether its next tokens are computed elsewhere."""
    prompt_on: int = -1
    """Number of the machine of its prompt."""
    tokens_on: int = -1
    """Number of the machine of its other tokens."""
    compute_s: float = 0.0
    """Of iterations that held parts of its prompt."""
    first_s: float = -1.0
    second_s: float = -1.0
    last_s: float = -1.0
    done: int = 0
    """Tokens of the output."""
    preemptions: int = 0
    finish_at: int = 0
    """Count of iterations at which it ends, in :class:`WholeBatcher`."""
    skipped: bool = False


@dataclass(slots=True)
class Run:
    """Equal iterations that follow each other."""

    seconds: float
    """Of one."""

    repeat: int
    """How many, unless something arrives."""

    decodes: int
    """Sequences that get a token in each."""


@dataclass(slots=True)
class Ended:
    """What a run did."""

    prompts: list[Job] = field(default_factory=list)
    """Their first token is known."""

    jobs: list[Job] = field(default_factory=list)
    """Their last token is known; never one of ``prompts`` with tokens left."""


class Batcher(Protocol):
    """Chooses iterations."""

    @property
    def waiting(self) -> bool:
        """Whether anything waits for its turn."""
        ...

    @property
    def num_jobs(self) -> int:
        """Requests that are here, waiting or not."""
        ...

    def add_prompt(self, job: Job) -> None:
        """A prompt arrives; its next tokens are computed here too unless ``job.split``."""

    def add_tokens(self, job: Job) -> None:
        """The keys and values of a prompt have arrived."""

    def release(self, job: Job) -> None:
        """The keys and values of a prompt that was computed here have left."""

    def start(self, now: float) -> Run | None:
        """Choose; None with nothing to do."""
        ...

    def finish(self, run: Run, start_s: float, gaps: list[tuple[float, int]]) -> Ended:
        """A run that began at ``start_s`` is over; times between tokens are added to ``gaps``."""
        ...


def _token(job: Job, now: float) -> None:
    job.done += 1
    if job.done == 2:
        job.second_s = now
    job.last_s = now


class WholeBatcher:
    """Whole prompts before next tokens.

    Args:
        perf: times.
        capacity: tokens whose keys and values fit.
        max_batch_tokens: tokens of an iteration; a longer prompt goes alone.
        max_batch_size: sequences of an iteration.
        max_preemptions: of a sequence; from then on, once left out, it goes before prompts.

    Raises:
        ConfigError: a limit is below 1.
    """

    def __init__(
        self,
        perf: PerfModel,
        capacity: int,
        *,
        max_batch_tokens: int = 2048,
        max_batch_size: int = 512,
        max_preemptions: int = 4,
    ) -> None:
        if max_batch_tokens < 1 or max_batch_size < 1 or max_preemptions < 0:
            raise ConfigError(
                f"max_batch_tokens={max_batch_tokens} and max_batch_size={max_batch_size} must be "
                f"at least 1, max_preemptions={max_preemptions} at least 0."
            )
        self._perf = perf
        self.capacity = capacity
        self._most = (max_batch_tokens, max_batch_size, max_preemptions)
        self.used = 0
        self._held: dict[Job, int] = {}
        self._prompts: deque[Job] = deque()
        self._ready: list[tuple[float, int, Job]] = []  # from elsewhere: they still need memory
        self._own: list[tuple[float, int, Job]] = []  # of prompts from here: they have theirs
        self._active: dict[Job, None] = {}
        self._ends: list[tuple[int, int, Job]] = []
        self._count = 0
        self._context = 0
        self._batch: list[Job] = []
        self._new: list[Job] = []
        self._out: list[Job] = []
        self._resumed: list[Job] = []

    @property
    def waiting(self) -> bool:
        """Whether a prompt, or a sequence without room, waits."""
        return bool(self._prompts or self._ready or self._own)

    @property
    def num_jobs(self) -> int:
        """Requests that are here."""
        ready = len(self._ready) + len(self._own)
        return len(self._prompts) + ready + len(self._active) + len(self._batch)

    def add_prompt(self, job: Job) -> None:
        """See :class:`Batcher`."""
        self._fit(job)
        self._prompts.append(job)

    def add_tokens(self, job: Job) -> None:
        """See :class:`Batcher`."""
        self._fit(job)
        heapq.heappush(self._ready, (job.arrival_s, job.number, job))

    def release(self, job: Job) -> None:
        """See :class:`Batcher`."""
        self.used -= self._held.pop(job)

    def start(self, now: float) -> Run | None:
        """See :class:`Batcher`."""
        most_tokens, most_size, most_preemptions = self._most
        before, self._out = self._out, []
        urgent = {job for job in before if job.preemptions >= most_preemptions}
        tokens = size = kept = len(urgent)
        prompt_tokens = 0
        while self._prompts and size < most_size:
            job = self._prompts[0]
            if size and tokens + job.prompt_tokens > most_tokens:
                break
            # With its whole output where it stays, so that no two wait for each other's memory.
            after = 1 if job.split else job.output_tokens
            if not self._take(job, job.prompt_tokens + after):
                break
            self._batch.append(self._prompts.popleft())
            tokens += job.prompt_tokens
            prompt_tokens += job.prompt_tokens
            size += 1
        room = max(min(most_tokens - tokens, most_size - size), 0 if size else 1) + kept
        if len(self._active) > room:
            order = sorted(
                self._active,
                key=lambda job: (
                    job not in urgent,
                    not job.skipped,
                    job.arrival_s,
                    job.number,
                ),
            )
            self._out = order[room:]
            for job in self._out:
                if not job.skipped:
                    job.last_s = now
                job.skipped = True
                job.preemptions += 1
                job.finish_at += 1
        out = set(self._out)
        self._resumed = [job for job in before if job in self._active and job not in out]
        for job in self._resumed:
            job.skipped = False
        self._new = []
        room -= len(self._active)
        ready = self._ready
        while room > 0 and (ready or self._own):
            source = ready if ready and not (self._own and self._own[0] < ready[0]) else self._own
            job = source[0][2]
            if source is ready and not self._take(job, job.prompt_tokens + job.output_tokens):
                ready = []  # none overtakes it but those that may free the memory it waits for
                continue
            heapq.heappop(source)
            self._active[job] = None
            self._new.append(job)
            job.finish_at = self._count + job.output_tokens - job.done
            heapq.heappush(self._ends, (job.finish_at, job.number, job))
            self._context += job.prompt_tokens + job.done
            room -= 1
        decodes = len(self._active) - len(self._out)
        if not self._batch and not decodes:
            return None
        repeat = 1
        if not (self._batch or self._out or urgent):
            repeat = self._next_end() - self._count
            if self._perf.uses_context:
                repeat = min(repeat, _STRIDE)
        context = self._context + decodes * (repeat - 1) // 2
        seconds = self._perf.iteration_s(prompt_tokens, decodes, context)
        return Run(seconds, repeat, decodes)

    def finish(self, run: Run, start_s: float, gaps: list[tuple[float, int]]) -> Ended:
        """See :class:`Batcher`."""
        first_s = start_s + run.seconds
        end_s = start_s + run.seconds * run.repeat
        ended = Ended()
        late = [job for job in [*self._new, *self._resumed] if job.last_s != start_s]
        gaps += [(first_s - job.last_s, 1) for job in late]
        steady = run.decodes * run.repeat - len(late)
        for job in self._new:
            job.second_s = first_s
        if steady > 0:
            gaps.append((run.seconds, steady))
        self._count += run.repeat
        self._context += run.decodes * run.repeat
        while self._ends and self._ends[0][0] <= self._count:
            at, number, job = heapq.heappop(self._ends)
            if job.finish_at != at:
                heapq.heappush(self._ends, (job.finish_at, number, job))
                continue
            del self._active[job]
            self._context -= job.prompt_tokens + job.output_tokens
            job.done, job.last_s = job.output_tokens, end_s
            self.release(job)
            ended.jobs.append(job)
        for job in self._batch:
            job.compute_s += run.seconds
            job.first_s = end_s
            _token(job, end_s)
            ended.prompts.append(job)
            if job.output_tokens == 1:
                self.release(job)
                ended.jobs.append(job)
            elif not job.split:
                heapq.heappush(self._own, (job.arrival_s, job.number, job))
        self._batch = []
        return ended

    def _next_end(self) -> int:
        while self._ends[0][2].finish_at != self._ends[0][0]:
            _, number, job = heapq.heappop(self._ends)
            heapq.heappush(self._ends, (job.finish_at, number, job))
        return self._ends[0][0]

    def _fit(self, job: Job) -> None:
        needed = job.prompt_tokens + job.output_tokens
        if needed > self.capacity:
            raise DataError(
                f"request {job.number} needs {needed} tokens of keys and values, and the machine "
                f"holds {self.capacity}. Shorten it, or take a larger machine."
            )

    def _take(self, job: Job, tokens: int) -> bool:
        if self.used + tokens > self.capacity:
            return False
        self.used += tokens
        self._held[job] = self._held.get(job, 0) + tokens
        return True


class ScheduledBatcher:
    """The engine's scheduler.

    Args:
        perf: times.
        capacity: tokens whose keys and values fit.
        max_batch_tokens: tokens of an iteration.
        max_batch_size: sequences that run at the same time.
        block_size: tokens of a block.
        skip: take equal iterations together; off only to check that it changes nothing.

    Raises:
        ConfigError: a limit is out of range.
    """

    def __init__(
        self,
        perf: PerfModel,
        capacity: int,
        *,
        max_batch_tokens: int = 2048,
        max_batch_size: int = 512,
        block_size: int = 64,
        skip: bool = True,
    ) -> None:
        config = SchedulerConfig(max_batched_tokens=max_batch_tokens, max_sequences=max_batch_size)
        self.scheduler = Scheduler(config, BlockPool(max(capacity // block_size, 1), block_size))
        self._perf = perf
        self._skip = skip
        self._jobs: dict[SequenceState, Job] = {}
        self._leaving: dict[Job, SequenceState] = {}
        self._arrived: deque[SequenceState] = deque()
        self._step = Step()

    @property
    def waiting(self) -> bool:
        """Whether a sequence waits."""
        return bool(self.scheduler.num_waiting or self._arrived)

    @property
    def num_jobs(self) -> int:
        """Requests that are here."""
        return len(self._jobs)

    def add_prompt(self, job: Job) -> None:
        """See :class:`Batcher`."""
        after = 1 if job.split else job.output_tokens
        self.scheduler.add(self._state(job, job.prompt_tokens + after))

    def add_tokens(self, job: Job) -> None:
        """See :class:`Batcher`."""
        self._arrived.append(self._state(job, job.prompt_tokens + job.output_tokens))
        self.scheduler.check(job.prompt_tokens + job.output_tokens)

    def release(self, job: Job) -> None:
        """See :class:`Batcher`."""
        self.scheduler.pool.release(self._leaving.pop(job).blocks)

    def start(self, now: float) -> Run | None:
        """See :class:`Batcher`."""
        scheduler = self.scheduler
        while self._arrived and scheduler.reserve(self._arrived[0]):
            scheduler.adopt(self._arrived.popleft(), 0)
        step = self._step = scheduler.schedule()
        for sequence in step.preempted:
            self._jobs[sequence].preemptions += 1
        if not step.parts:
            return None
        prompt_tokens = decodes = context = 0
        repeat = 1 << 30
        for part in step.parts:
            sequence = part.sequence
            if part.count == 1 and part.start >= self._jobs[sequence].prompt_tokens:
                decodes += 1
                context += part.start
                repeat = min(repeat, sequence.max_tokens - sequence.num_tokens)
            else:
                prompt_tokens += part.count
        if prompt_tokens or not self._skip:
            repeat = 1
        else:
            repeat = self._room(repeat)
            if self._perf.uses_context:
                repeat = min(repeat, _STRIDE)
        context += decodes * (repeat - 1) // 2
        return Run(self._perf.iteration_s(prompt_tokens, decodes, context), repeat, decodes)

    def finish(self, run: Run, start_s: float, gaps: list[tuple[float, int]]) -> Ended:
        """See :class:`Batcher`."""
        if run.repeat > 1:
            self._step = self._advance(run.repeat - 1)
        first_s = start_s + run.seconds
        end_s = start_s + run.seconds * run.repeat
        ended = Ended()
        steady = run.decodes * (run.repeat - 1)
        new: list[list[int]] = []
        for part in self._step.parts:
            job = self._jobs[part.sequence]
            new.append([0] if part.ends else [])
            if not part.ends:
                job.compute_s += run.seconds if job.done == 0 else 0.0
                continue
            if job.done == 0:
                job.compute_s += run.seconds
                job.first_s = end_s
                _token(job, end_s)
                ended.prompts.append(job)
                continue
            if job.last_s == start_s:
                steady += 1
            else:
                gaps.append((first_s - job.last_s, 1))
            if job.done == 1:
                job.second_s = first_s
            job.done += run.repeat
            job.last_s = end_s
        if steady:
            gaps.append((run.seconds, steady))
        self.scheduler.update(self._step, new)
        for part in self._step.parts:
            job = self._jobs[part.sequence]
            if job.done >= job.output_tokens:
                self._leave(part.sequence)
                ended.jobs.append(job)
            elif job.split and job in ended.prompts:
                self._hand_over(part.sequence)
        return ended

    def _state(self, job: Job, max_tokens: int) -> SequenceState:
        # Names instead of hashes: no two requests share a prefix, and all tokens are 0.
        blocks = max_tokens // self.scheduler.pool.size + 1
        state = SequenceState(
            tokens=[0] * job.prompt_tokens,
            max_tokens=max_tokens,
            arrival=job.arrival_s,
            hashes=[b"%d/%d" % (job.number, i) for i in range(blocks)],
        )
        self._jobs[state] = job
        return state

    def _leave(self, sequence: SequenceState) -> None:
        self.scheduler.remove(sequence)
        del self._jobs[sequence]

    def _hand_over(self, sequence: SequenceState) -> None:
        """Take a sequence out while its blocks stay held, until they have left."""
        blocks = list(sequence.blocks)
        self.scheduler.pool.share(blocks)
        job = self._jobs[sequence]
        self._leave(sequence)
        sequence.blocks = blocks
        self._leaving[job] = sequence

    def _room(self, most: int) -> int:
        """Iterations for which the free blocks last."""
        size, parts = self.scheduler.pool.size, self._step.parts
        if len(parts) * (most // size + 1) <= self.scheduler.pool.num_free:
            return most
        least = min(len(part.sequence.blocks) * size - part.start for part in parts)
        return max(min(least, most), 1)

    def _advance(self, count: int) -> Step:
        """Carry out all but the last of ``count + 1`` iterations of next tokens."""
        pool, step = self.scheduler.pool, Step()
        for part in self._step.parts:
            sequence = part.sequence
            start = part.start + count
            needed = -(-(start + 1) // pool.size) - len(sequence.blocks)
            if needed > 0:
                sequence.blocks += pool.take(needed)
            sequence.tokens.extend([0] * count)
            sequence.num_computed = start
            step.parts.append(Part(sequence, start, 1))
        return step
