"""A data recipe over files: batches through operators, in bounded memory, resumable at any moment.

Operators that must know the whole data set (:mod:`~sharpen.data.ops.barrier`) end a segment. A
segment's batches are computed by threads, since kernels hold no lock, and each is written as a part
of its own as soon as it is done; a killed run finds the finished parts and computes only the
others. Between segments only what such an operator remembers is in memory, never all texts.

The result depends on the files and the operators alone, not on threads, kills or the clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from sharpen.core.errors import storage_errors
from sharpen.data.batch import SourceBatch
from sharpen.data.corpus import KEY
from sharpen.data.ops.barrier import Barrier
from sharpen.data.ops.base import Operator
from sharpen.data.parts import Counted, Parts
from sharpen.data.steps import OnError, apply_operators
from sharpen.data.trace import Tally, Trace

__all__ = [
    "Executor",
    "Part",
    "Segment",
    "Threads",
    "Work",
    "is_complete",
    "run_segment",
    "segments_of",
    "write_part",
]

Part: TypeAlias = tuple[pa.RecordBatch, Trace, Counted]
"""What a batch came to: its rows, why others went, and how many."""

_COMPLETE = "complete"
_AHEAD = 2  # batches that wait, for each thread


@dataclass(frozen=True, slots=True)
class Segment:
    """Operators between two that must know all rows."""

    operators: tuple[Operator, ...]
    names: tuple[str, ...]

    ends: Barrier | None
    """What follows them; the last segment has none."""

    ends_name: str = ""

    before: str = "read"
    """What its rows come from: ``read``, or the name of the operator before it."""

    def ordered(self, order: Sequence[int]) -> Segment:
        """The same with the operators in another order."""
        operators = tuple(self.operators[i] for i in order)
        return replace(self, operators=operators, names=tuple(self.names[i] for i in order))


def segments_of(operators: Sequence[Operator]) -> list[Segment]:
    """Operators parted after each that must know all rows; each has a name of its own.

    The second of two operators of a name is ``name#2``.
    """
    seen: dict[str, int] = {}
    found: list[Segment] = []
    here: list[tuple[Operator, str]] = []
    before = "read"
    for one in operators:
        seen[one.name] = seen.get(one.name, 0) + 1
        name = one.name if seen[one.name] == 1 else f"{one.name}#{seen[one.name]}"
        if isinstance(one, Barrier):
            found.append(_segment(here, one, name, before))
            here, before = [], name
        else:
            here.append((one, name))
    return [*found, _segment(here, None, "", before)]


def _segment(
    here: Sequence[tuple[Operator, str]], ends: Barrier | None, name: str, before: str
) -> Segment:
    return Segment(tuple(o for o, _ in here), tuple(n for _, n in here), ends, name, before)


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with each batch of a segment; goes to other processes as it is."""

    segment: Segment

    excerpts: int
    """Edits of each operator and batch of which the texts are kept."""

    keep_statistics: bool
    on_error: OnError

    def compute(self, given: SourceBatch) -> Part:
        """A batch through the operators.

        Raises:
            DataError: an operator failed, with ``on_error="fail"``.
        """
        segment, trace = self.segment, Trace(self.excerpts)
        for gone in given.left:
            trace.leave(gone)
            if self.on_error == "quarantine" and gone.operator == "read":
                trace.fail(gone.id, "read", gone.reason or "", gone.raw)
        for one in given.edited:
            trace.edit(one.id, segment.before, one.before, one.after)
        trace.made = given.made
        batch, tallies = apply_operators(
            given.rows,
            segment.operators,
            segment.names,
            trace,
            keep_statistics=self.keep_statistics,
            on_error=self.on_error,
        )
        table = batch.table
        if segment.ends is not None:
            for key, column in segment.ends.keys(batch).items():
                table = table.append_column(KEY + key, column)
        known = len(given.rows) + len(given.left) - given.made
        counted = Counted(
            rows_in=known,
            rows_made=trace.made,
            rows_out=len(batch),
            dropped=len(trace.dropped),
            edited=len(trace.edited),
            operators={
                segment.before: Tally(known, len(given.rows), edited=len(given.edited)),
                **dict(zip(segment.names, tallies, strict=True)),
            },
        )
        return table, trace, counted


class Executor(Protocol):
    """Where batches are computed."""

    slots: int
    """Batches at once."""

    def submit(self, work: Work, given: SourceBatch, parts: Parts) -> Future[Any]:
        """Begin a batch."""

    def collect(self, done: Future[Any], parts: Parts) -> int:
        """See a batch to its end, its part written; returns the rows that went in."""

    def close(self) -> None:
        """Wait for what has begun, and give back what was taken."""


class Threads:
    """Batches on the threads of this process.

    Args:
        workers: threads; None is one for each core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.slots = workers or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.slots)

    def submit(self, work: Work, given: SourceBatch, parts: Parts) -> Future[int]:
        """See :class:`Executor`."""

        def compute() -> int:
            part = work.compute(given)
            write_part(parts, given.number, part)
            return part[2].rows_in

        return self._pool.submit(compute)

    def collect(self, done: Future[int], parts: Parts) -> int:
        """See :class:`Executor`."""
        return done.result()

    def close(self) -> None:
        """See :class:`Executor`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def write_part(parts: Parts, number: int, part: Part) -> None:
    """Write what a batch came to.

    Raises:
        StorageError: the disk is full, or may not be written.
    """
    with storage_errors(parts.folder, doing="write"):
        parts.write(number, *part)


def run_segment(
    work: Work,
    batches: Iterable[SourceBatch],
    folder: Path,
    executor: Executor,
    on_done: Callable[[int], None],
) -> Parts:
    """Compute what parts of a segment are missing.

    Args:
        work: what to do with each batch.
        batches: all of them, numbered from 0.
        folder: of its parts.
        executor: where.
        on_done: is told the rows of each finished part.

    Raises:
        DataError: an operator failed, with ``on_error="fail"``.
        StorageError: the disk is full, or may not be written.
    """
    parts = Parts(folder)
    with storage_errors(folder, doing="write"):
        folder.mkdir(parents=True, exist_ok=True)
    pending: set[Future[Any]] = set()
    for given in batches:
        if parts.done(given.number):
            on_done(len(given.rows) + len(given.left))
            continue
        pending.add(executor.submit(work, given, parts))
        while len(pending) >= _AHEAD * executor.slots:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for one in done:
                on_done(executor.collect(one, parts))
    for one in pending:
        on_done(executor.collect(one, parts))
    with storage_errors(folder, doing="write"):
        (folder / _COMPLETE).touch()
    return parts


def is_complete(folder: Path) -> bool:
    """Whether all parts of a segment are there, so that nothing need be read for it."""
    return (folder / _COMPLETE).exists()
