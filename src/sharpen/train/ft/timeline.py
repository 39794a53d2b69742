"""A timeline of training steps: what each rank did when, on one clock, for chrome://tracing.

Jiang et al., MegaScale, 2024 (arXiv 2402.15627), section 5. A span is a name, a start and an end,
read from a clock and kept in a list: two readings and an append, a few microseconds. Ranks write
their spans as JSON lines once a step, so that those of a rank that dies are there too; the driver
merges them into one file in Chrome's trace format (Perfetto reads it as well).

Clocks of ranks on several machines differ. Rank r asks rank 0 for its time a few times; of the
answer with the shortest round trip from t0 to t1, with 0's time s in between::

    offset = s - (t0 + t1) / 2          error at most (t1 - t0) / 2

On CUDA a span is the time that the host spent launching the work, unless the work is waited for.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.core.files import atomic_write_json

if TYPE_CHECKING:
    from sharpen.core.stage import StageContext
    from sharpen.train.config import MetricsConfig
    from sharpen.train.parallel import Parallel

__all__ = [
    "Span",
    "Timeline",
    "chrome_trace",
    "clock_offset",
    "read_spans",
    "spans_file",
    "trace_file",
    "write_trace",
]

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Span:
    """One thing that a rank did."""

    name: str
    """``data``, ``wait`` for the others to begin, ``forward``, ``backward``, ``reduce`` what the
    backward pass has not summed yet, ``optimizer``, ``checkpoint``; ``step`` is around them."""

    start_s: float
    """On rank 0's clock."""

    end_s: float
    """On rank 0's clock."""

    step: int
    """The optimizer step it belongs to, from 1."""


class _Open:
    """A span under way."""

    __slots__ = ("_name", "_start", "_timeline")

    def __init__(self, timeline: Timeline, name: str) -> None:
        self._timeline, self._name = timeline, name

    def __enter__(self) -> None:
        self._start = self._timeline._clock()

    def __exit__(self, *_: object) -> None:
        timeline = self._timeline
        end, offset = timeline._clock(), timeline.offset_s
        timeline.spans.append(Span(self._name, self._start + offset, end + offset, timeline._step))


_NOTHING = nullcontext()


class Timeline:
    """Records spans of some steps.

    Args:
        steps: first and last step to record, from 1; True for all, False for none.
        path: file that gets the spans of each step when it is done; None keeps them here only.
        clock: seconds; that of this machine is the same for all its processes.

    Attributes:
        spans: those recorded so far.
        offset_s: added to the clock of this rank to have that of rank 0.
    """

    def __init__(
        self,
        steps: bool | tuple[int, int],
        *,
        path: Path | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.spans: list[Span] = []
        self.offset_s = 0.0
        self._range = ((1, math.inf) if steps else (1, 0)) if isinstance(steps, bool) else steps
        self._path, self._clock = path, clock
        self._step, self._on, self._written = 0, False, 0

    @property
    def enabled(self) -> bool:
        """Whether any step is recorded."""
        return self._range[0] <= self._range[1]

    def synchronize(self, parallel: Parallel) -> None:
        """Learn rank 0's clock; every rank of the job calls it."""
        if self.enabled and parallel.world_size > 1:
            self.offset_s = clock_offset(parallel, self._clock)

    def begin_step(self, step: int) -> None:
        """What follows belongs to ``step``."""
        self._flush()
        self._step, self._on = step, self._range[0] <= step <= self._range[1]

    def span(self, name: str) -> AbstractContextManager[None]:
        """Record what the block takes; nothing outside the steps asked for."""
        return _Open(self, name) if self._on else _NOTHING

    def __enter__(self) -> Timeline:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is left."""
        self._flush()
        self._on = False

    def _flush(self) -> None:
        new = self.spans[self._written :]
        if self._path is None or not new:
            return
        lines = (json.dumps([s.name, s.start_s, s.end_s, s.step]) for s in new)
        with self._path.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self._written = len(self.spans)


def clock_offset(parallel: Parallel, clock: Callable[[], float]) -> float:
    """Seconds to add to this rank's clock to have rank 0's; a collective operation."""
    import torch
    import torch.distributed as dist

    offset, shortest = 0.0, math.inf
    for _ in range(_ROUNDS):
        for rank in range(1, parallel.world_size):
            box = torch.zeros((), dtype=torch.float64)
            if parallel.rank == 0:
                dist.recv(box, src=rank)
                box.fill_(clock())
                dist.send(box, dst=rank)
            elif parallel.rank == rank:
                asked = clock()
                dist.send(box, dst=0)
                dist.recv(box, src=0)
                answered = clock()
                if answered - asked < shortest:
                    shortest = answered - asked
                    offset = float(box) - (asked + answered) / 2
    return offset


def spans_file(folder: Path, rank: int) -> Path:
    """Where a rank writes its spans."""
    return folder / f"spans-{rank}"


def read_spans(path: Path) -> list[Span]:
    """Spans that a timeline has written; a line torn by a kill is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(Span(*json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return found


def chrome_trace(ranks: Mapping[int, Iterable[Span]]) -> dict[str, Any]:
    """Spans of all ranks in Chrome's trace format: a process a rank, times in microseconds."""
    events: list[dict[str, Any]] = []
    spans = {rank: sorted(found, key=lambda s: s.start_s) for rank, found in ranks.items()}
    begin = min((found[0].start_s for found in spans.values() if found), default=0.0)
    for rank, found in sorted(spans.items()):
        name = {"name": f"rank {rank}"}
        events.append({"ph": "M", "name": "process_name", "pid": rank, "tid": 0, "args": name})
        events += [
            {
                "ph": "X",
                "name": span.name,
                "pid": rank,
                "tid": 0,
                "ts": round((span.start_s - begin) * 1e6, 3),
                "dur": round((span.end_s - span.start_s) * 1e6, 3),
                "args": {"step": span.step},
            }
            for span in found
        ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_trace(path: Path, ranks: Mapping[int, Iterable[Span]]) -> None:
    """Write :func:`chrome_trace` of all ranks to a file.

    Raises:
        StorageError: it cannot be written.
    """
    atomic_write_json(path, chrome_trace(ranks))


def trace_file(metrics: MetricsConfig, context: StageContext) -> Path | None:
    """Where a stage's timeline goes, if there is one."""
    if not metrics.timeline or context.run_folder is None:
        return None
    return context.run_folder / f"timeline-{context.stage}.json"
