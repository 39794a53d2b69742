"""A cluster as a queue of events: arrivals, iterations that end, keys and values that arrive.

Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024, arXiv
2311.18677. A request is placed on a pair of machines when it arrives; the first token comes from
the machine of its prompt, the others from the second one once keys and values are there
(``transfer.py``), so that the time between the first two tokens holds what of it was not hidden.

Deterministic: events at the same time happen in the order in which they were made. An event costs
O(log events) and one iteration's choice; equal iterations are one event (``batching.py``).

Differs from the paper: transfers do not share links, and routing takes no time.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sharpen.core.errors import ConfigError
from sharpen.plan.serving.machines import Machine
from sharpen.plan.serving.traces import Trace
from sharpen.serve.simulate.batching import Batcher, Job, Run, ScheduledBatcher, WholeBatcher
from sharpen.serve.simulate.policies import Load, Policy, make_policy
from sharpen.serve.simulate.result import SimResult
from sharpen.serve.simulate.transfer import Transfer

__all__ = ["ClusterSim", "Placed", "SimConfig"]

_ARRIVAL, _RUN, _MOVED = range(3)


@dataclass(frozen=True, slots=True)
class Placed:
    """A machine of the cluster and its pool."""

    machine: Machine
    home: Literal["prompt", "token", "mixed"] = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimConfig:
    """How machines batch."""

    batching: Literal["scheduled", "whole"] = "scheduled"
    """The engine's own scheduler, or whole prompts before next tokens."""

    max_batch_tokens: int = 2048
    """Of an iteration."""

    max_batch_size: int = 512
    """Sequences of an iteration."""

    max_preemptions: int = 4
    """Of a sequence, with ``whole``."""

    block_size: int = 64
    """Tokens of a block, with ``scheduled``."""

    skip: bool = True
    """Take equal iterations together, with ``scheduled``; off only to check that."""

    def batcher(self, machine: Machine) -> Batcher:
        """For one machine."""
        if self.batching == "whole":
            return WholeBatcher(
                machine.perf,
                machine.kv_capacity,
                max_batch_tokens=self.max_batch_tokens,
                max_batch_size=self.max_batch_size,
                max_preemptions=self.max_preemptions,
            )
        if self.batching != "scheduled":
            raise ConfigError(f"batching={self.batching!r} must be scheduled or whole.")
        return ScheduledBatcher(
            machine.perf,
            machine.kv_capacity,
            max_batch_tokens=self.max_batch_tokens,
            max_batch_size=self.max_batch_size,
            block_size=self.block_size,
            skip=self.skip,
        )


@dataclass(slots=True, eq=False)
class _Machine:
    """A machine at work; a :class:`~sharpen.serve.simulate.policies.Load`."""

    number: int
    home: Literal["prompt", "token", "mixed"]
    capacity: int
    batcher: Batcher
    pending_tokens: int = 0
    reserved_tokens: int = 0
    foreign: int = 0
    run: Run | None = None
    start_s: float = 0.0
    version: int = 0
    busy_s: float = 0.0
    iterations: int = 0
    gaps: list[tuple[float, int]] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        return self.batcher.waiting

    @property
    def num_jobs(self) -> int:
        return self.batcher.num_jobs


class ClusterSim:
    """Runs a trace on machines.

    Args:
        machines: with their pools.
        policy: a name of :data:`~sharpen.serve.simulate.policies.POLICIES`.
        trace: requests.
        transfer: of keys and values; None takes no time.
        config: how machines batch.
        seed: of the policy ``random``.

    Raises:
        ConfigError: an unknown policy, or no machine for a phase.
    """

    def __init__(
        self,
        machines: Sequence[Placed],
        policy: str,
        trace: Trace,
        *,
        transfer: Transfer | None = None,
        config: SimConfig | None = None,
        seed: int = 0,
    ) -> None:
        config = config or SimConfig()
        self.machines = [
            _Machine(i, one.home, one.machine.kv_capacity, config.batcher(one.machine))
            for i, one in enumerate(machines)
        ]
        self.policy: Policy = make_policy(policy, self.machines, seed)
        self._transfer = transfer
        rows = zip(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, strict=True)
        self._jobs = [Job(i, *row) for i, row in enumerate(rows)]
        self._events: list[tuple[float, int, int, int, int]] = []
        self._numbers = itertools.count()
        self._now = 0.0

    def run(self) -> SimResult:
        """Until every request is done.

        Raises:
            DataError: a request does not fit a machine alone.
        """
        if self._jobs:
            self._push(self._jobs[0].arrival_s, _ARRIVAL, 0, 0)
        while self._events:
            self._now, _, kind, one, two = heapq.heappop(self._events)
            if kind == _ARRIVAL:
                self._arrive(self._jobs[one])
                if one + 1 < len(self._jobs):
                    self._push(self._jobs[one + 1].arrival_s, _ARRIVAL, one + 1, 0)
            elif kind == _RUN:
                self._ended(self.machines[one], two)
            else:
                self._moved(self._jobs[one])
        undone = [job.number for job in self._jobs if job.done < job.output_tokens]
        assert not undone, f"requests {undone[:5]} were never done"
        return SimResult(
            jobs=self._jobs,
            gaps=[gap for machine in self.machines for gap in machine.gaps],
            iterations=sum(machine.iterations for machine in self.machines),
            busy_s=[machine.busy_s for machine in self.machines],
            end_s=max((job.last_s for job in self._jobs), default=0.0),
        )

    def _push(self, time_s: float, kind: int, one: int, two: int) -> None:
        heapq.heappush(self._events, (time_s, next(self._numbers), kind, one, two))

    def _arrive(self, job: Job) -> None:
        prompt, token = self.policy.place(job.prompt_tokens, job.output_tokens)
        job.prompt_on, job.tokens_on = prompt.number, token.number
        job.split = prompt is not token
        prompt.pending_tokens += job.prompt_tokens
        token.pending_tokens += 1
        token.reserved_tokens += job.prompt_tokens + 1 + job.output_tokens
        if job.split:
            prompt.reserved_tokens += job.prompt_tokens + 1
        prompt.foreign += prompt.home == "token"
        token.foreign += token.home == "prompt"
        machine = self.machines[prompt.number]
        machine.batcher.add_prompt(job)
        self._wake(machine)

    def _wake(self, machine: _Machine) -> None:
        """Something arrived: begin, or end the run after the iteration under way."""
        run = machine.run
        if run is None:
            self._begin(machine)
            return
        if run.repeat > 1:
            done = int((self._now - machine.start_s) / run.seconds) + 1
            if done < run.repeat:
                run.repeat = done
                machine.version += 1
                end_s = machine.start_s + run.seconds * done
                self._push(max(end_s, self._now), _RUN, machine.number, machine.version)

    def _begin(self, machine: _Machine) -> None:
        machine.run = machine.batcher.start(self._now)
        if machine.run is not None:
            machine.start_s = self._now
            machine.version += 1
            end_s = self._now + machine.run.seconds * machine.run.repeat
            self._push(end_s, _RUN, machine.number, machine.version)

    def _ended(self, machine: _Machine, version: int) -> None:
        run = machine.run
        if run is None or version != machine.version:
            return
        machine.run = None
        machine.busy_s += run.seconds * run.repeat
        machine.iterations += run.repeat
        ended = machine.batcher.finish(run, machine.start_s, machine.gaps)
        for job in ended.prompts:
            machine.pending_tokens -= job.prompt_tokens
            self._left(machine, "token")
            if job.split and job.output_tokens > 1:
                wait = (
                    self._transfer.exposed_s(job.prompt_tokens, job.compute_s)
                    if self._transfer is not None
                    else 0.0
                )
                self._push(self._now + wait, _MOVED, job.number, 0)
            elif job.split:  # nothing is left to compute, so nothing moves
                machine.reserved_tokens -= job.prompt_tokens + 1
        for job in ended.jobs:
            token = self.machines[job.tokens_on]
            token.pending_tokens -= 1
            token.reserved_tokens -= job.prompt_tokens + 1 + job.output_tokens
            self._left(token, "prompt")
        self._begin(machine)

    def _moved(self, job: Job) -> None:
        source, machine = self.machines[job.prompt_on], self.machines[job.tokens_on]
        source.batcher.release(job)
        source.reserved_tokens -= job.prompt_tokens + 1
        if source.run is None:
            self._begin(source)
        machine.batcher.add_tokens(job)
        self._wake(machine)

    def _left(self, machine: Load, foreign_home: Literal["prompt", "token"]) -> None:
        """One phase ended there; it was foreign to a machine of that home."""
        if machine.home == foreign_home:
            machine.foreign -= 1
            if not machine.foreign:
                self.policy.freed(machine)
