"""When the work of a training step happens: streams that run side by side, and what waits.

A task runs on one stream; a stream runs its tasks in the order they were added, and a task also
waits for the tasks it names. A step ends with its last task. Three shapes of it have closed forms,
which the cost model uses and tests compare with the simulation::

    nothing overlaps     sum of all durations
    all overlaps         the longest stream, plus what it cannot start without
    pipeline             m (f + b) (1 + (p - 1) / (v m)),  m micro-batches, p stages, v chunks each

The last is the interleaved schedule of Narayanan et al., *Efficient Large-Scale Language Model
Training on GPU Clusters*, 2021, arXiv 2104.04473, section 2.2: a stage holds v chunks of layers, so
that the fill and drain of the pipeline take 1/v of the time. Simulating takes O(tasks).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from sharpen.core.errors import ConfigError

__all__ = ["Schedule", "ScheduleSim", "Span", "pipeline_schedule", "sharded_schedule"]


@dataclass(frozen=True, slots=True)
class Span:
    """One task, placed in time."""

    name: str
    stream: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Tasks placed in time."""

    spans: tuple[Span, ...]
    """In the order they were added."""

    @property
    def end_s(self) -> float:
        """When the last task ends."""
        return max((s.end_s for s in self.spans), default=0.0)

    def busy_s(self, stream: str) -> float:
        """Time a stream works."""
        return sum(s.end_s - s.start_s for s in self.spans if s.stream == stream)

    def idle_s(self, stream: str) -> float:
        """Time a stream waits, until the last task of all ends."""
        return self.end_s - self.busy_s(stream)

    def trace(self) -> list[dict[str, object]]:
        """Events in Chrome's trace format, for a viewer such as Perfetto; times in microseconds."""
        return [
            {
                "name": s.name,
                "ph": "X",
                "pid": 0,
                "tid": s.stream,
                "ts": s.start_s * 1e6,
                "dur": (s.end_s - s.start_s) * 1e6,
            }
            for s in self.spans
        ]


@dataclass(slots=True)
class _Task:
    name: str
    stream: str
    seconds: float
    after: tuple[str, ...]


@dataclass(slots=True)
class ScheduleSim:
    """Collects tasks, then places them in time.

    Example:
        >>> sim = ScheduleSim()
        >>> sim.add("gather", "network", 2.0)
        >>> sim.add("forward", "compute", 3.0, after=["gather"])
        >>> sim.add("gather next", "network", 2.0)
        >>> sim.run().end_s
        5.0
    """

    _tasks: dict[str, _Task] = field(default_factory=dict)

    def add(self, name: str, stream: str, seconds: float, *, after: Iterable[str] = ()) -> None:
        """Add a task at the end of its stream.

        Args:
            name: unique among the tasks.
            stream: where it runs, such as ``compute``.
            seconds: how long it takes, at least 0.
            after: names of tasks that must have ended; they may be added later.

        Raises:
            ConfigError: the name is taken, or a negative duration.
        """
        if name in self._tasks:
            raise ConfigError(f"there is a task '{name}' already; names must be unique.")
        if not seconds >= 0:
            raise ConfigError(f"the task '{name}' takes {seconds} s; it must be at least 0.")
        self._tasks[name] = _Task(name, stream, seconds, tuple(after))

    def run(self) -> Schedule:
        """Place every task as early as its stream and the tasks it waits for allow.

        Raises:
            ConfigError: tasks wait for each other in a circle, or for one that does not exist.
        """
        queues: dict[str, list[_Task]] = {}
        for task in self._tasks.values():
            for name in task.after:
                if name not in self._tasks:
                    raise ConfigError(f"the task '{task.name}' waits for '{name}', unknown.")
            queues.setdefault(task.stream, []).append(task)
        heads = dict.fromkeys(queues, 0)
        free = dict.fromkeys(queues, 0.0)
        waiting: dict[str, list[str]] = {}  # task -> streams whose head waits for it
        ends: dict[str, float] = {}
        starts: dict[str, float] = {}
        ready = list(queues)
        while ready:
            stream = ready.pop()
            queue = queues[stream]
            while heads[stream] < len(queue):
                task = queue[heads[stream]]
                missing = next((a for a in task.after if a not in ends), None)
                if missing is not None:
                    waiting.setdefault(missing, []).append(stream)
                    break
                start = max([free[stream], *(ends[a] for a in task.after)])
                starts[task.name], ends[task.name] = start, start + task.seconds
                free[stream] = ends[task.name]
                heads[stream] += 1
                ready += waiting.pop(task.name, [])
        if len(ends) < len(self._tasks):
            stuck = [queues[s][heads[s]].name for s in queues if heads[s] < len(queues[s])]
            raise ConfigError(
                f"these tasks wait for each other and never start: {', '.join(stuck)}. "
                "Add a task after those it waits for on its own stream."
            )
        return Schedule(
            tuple(
                Span(t.name, t.stream, starts[t.name], ends[t.name]) for t in self._tasks.values()
            )
        )


def sharded_schedule(
    num_layers: int,
    *,
    forward_s: float,
    backward_s: float,
    gather_s: float = 0.0,
    reduce_s: float = 0.0,
    exchange_s: float = 0.0,
    overlap: float = 1.0,
    prefetch: int = 1,
) -> Schedule:
    """One micro-batch over layers whose parameters are gathered when needed (ZeRO stage 3).

    Args:
        num_layers: equal layers.
        forward_s: computing a layer's forward pass.
        backward_s: and its backward pass.
        gather_s: gathering a layer's parameters, before either pass.
        reduce_s: reducing a layer's gradients, after its backward pass.
        exchange_s: exchanges inside a layer (heads against tokens), which computing waits for, a
            pass.
        overlap: share of gathers and reductions that can run beside computing; the rest of each
            stops it.
        prefetch: layers gathered ahead of the one computed.
    """
    sim = ScheduleSim()
    order = [("f", i) for i in range(num_layers)] + [("b", i) for i in reversed(range(num_layers))]
    aside, stops = overlap, 1 - overlap
    reductions: list[tuple[int, str]] = []

    def reduce_until(position: float) -> None:
        while reductions and reductions[0][0] + prefetch <= position:
            tag = reductions.pop(0)[1]
            sim.add(f"reduce {tag}", "network", aside * reduce_s, after=[f"compute {tag}"])

    for i, (kind, layer) in enumerate(order):
        tag = f"{kind}{layer}"
        ahead = i - 1 - prefetch
        before = [f"compute {order[ahead][0]}{order[ahead][1]}"] if ahead >= 0 else []
        sim.add(f"gather {tag}", "network", aside * gather_s, after=before)
        reduce_until(i)  # gathers ahead of it go first: computing waits for them
        sim.add(f"stop {tag}", "compute", stops * (gather_s + (reduce_s if kind == "b" else 0)))
        after = [f"gather {tag}"]
        if exchange_s:
            sim.add(f"exchange {tag}", "compute", exchange_s, after=after)
        seconds = forward_s if kind == "f" else backward_s
        sim.add(f"compute {tag}", "compute", seconds, after=after)
        if kind == "b":
            reductions.append((i, tag))
    reduce_until(math.inf)
    return sim.run()


def pipeline_schedule(
    stages: int,
    micro_batches: int,
    *,
    chunks: int = 1,
    forward_s: float,
    backward_s: float,
    send_s: float = 0.0,
) -> Schedule:
    """One step of a pipeline: one forward, one backward, in turn (interleaved when chunks > 1).

    Args:
        stages: p, devices of the pipeline, each a stream ``stage 0`` ...
        micro_batches: m; a multiple of ``stages`` when ``chunks`` is above 1.
        chunks: v, groups of layers a device holds.
        forward_s: a micro-batch's forward pass through all layers of one device.
        backward_s: and its backward pass.
        send_s: handing a micro-batch to the next device, beside computing.

    Raises:
        ConfigError: a count below 1, or micro-batches that do not divide.
    """
    if min(stages, micro_batches, chunks) < 1:
        raise ConfigError(
            f"stages={stages}, micro_batches={micro_batches} and chunks={chunks} must be "
            "at least 1."
        )
    if chunks > 1 and micro_batches % stages:
        raise ConfigError(
            f"micro_batches={micro_batches} must be a multiple of stages={stages} when chunks="
            f"{chunks}; choose {-(-micro_batches // stages) * stages}."
        )
    sim = ScheduleSim()
    total = micro_batches * chunks

    def place(k: int, backward: bool) -> tuple[int, int]:
        """Micro-batch and chunk of a device's k-th pass."""
        if chunks == 1:
            return k, 0
        group, inside = divmod(k, stages * chunks)
        chunk, lane = divmod(inside, stages)
        return group * stages + lane, chunks - 1 - chunk if backward else chunk

    for stage in range(stages):
        if chunks == 1:
            warm = min(stages - stage - 1, total)
        else:
            warm = min(2 * (stages - stage - 1) + (chunks - 1) * stages, total)
        passes = [(k, False) for k in range(warm)]
        for k in range(total - warm):
            passes += [(warm + k, False), (k, True)]
        passes += [(k, True) for k in range(total - warm, total)]
        for k, backward in passes:
            batch, chunk = place(k, backward)
            at = chunk * stages + stage  # the chunk's place among all chunks of the model
            if not backward:
                after = [f"f{batch}.{at - 1}"] if at else []
            else:
                last = at == stages * chunks - 1
                after = [f"f{batch}.{at}" if last else f"b{batch}.{at + 1}"]
            kind = "b" if backward else "f"
            name = f"{kind}{batch}.{at}"
            seconds = (backward_s if backward else forward_s) / chunks
            if send_s and after and after[0] != f"f{batch}.{at}":
                sim.add(f"send {name}", f"link {stage} {kind}", send_s, after=after)
                after = [f"send {name}"]
            sim.add(name, f"stage {stage}", seconds, after=after)
    return sim.run()
