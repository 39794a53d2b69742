"""A data recipe over files: batches through operators, in bounded memory, resumable at any moment.

Operators that must know the whole data set (:mod:`~sharpen.data.ops.barrier`) end a segment. A
segment's batches are computed by threads, since kernels hold no lock, and each is written as a part
of its own as soon as it is done; a killed run finds the finished parts and computes only the
others. Between segments only what such an operator remembers is in memory, never all texts.

The result depends on the files and the operators alone, not on threads, kills or the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from sharpen.core.errors import storage_errors
from sharpen.data.batch import SourceBatch
from sharpen.data.corpus import KEY
from sharpen.data.ops.barrier import Barrier
from sharpen.data.ops.base import Operator
from sharpen.data.parts import Counted, Parts
from sharpen.data.steps import OnError, apply_operators
from sharpen.data.trace import Tally, Trace

__all__ = ["Segment", "run_segment", "segments_of"]

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


def run_segment(
    segment: Segment,
    batches: Iterable[SourceBatch],
    folder: Path,
    *,
    workers: int,
    excerpts: int,
    keep_statistics: bool,
    on_error: OnError,
    on_done: Callable[[int], None],
) -> Parts:
    """Compute what parts of a segment are missing.

    Args:
        segment: the operators.
        batches: all of them, numbered from 0.
        folder: of its parts.
        workers: threads.
        excerpts: edits of each operator and batch of which the texts are kept.
        keep_statistics: keep what filters measured.
        on_error: of rows that make an operator fail.
        on_done: is told the rows of each finished part.

    Raises:
        DataError: an operator failed, with ``on_error="fail"``.
        StorageError: the disk is full, or may not be written.
    """
    parts = Parts(folder)
    with storage_errors(folder, doing="write"):
        folder.mkdir(parents=True, exist_ok=True)

    def compute(given: SourceBatch) -> int:
        trace = Trace(excerpts)
        for gone in given.left:
            trace.leave(gone)
            if on_error == "quarantine" and gone.operator == "read":
                trace.fail(gone.id, "read", gone.reason or "", gone.raw)
        for one in given.edited:
            trace.edit(one.id, segment.before, one.before, one.after)
        trace.made = given.made
        batch, tallies = apply_operators(
            given.rows,
            segment.operators,
            segment.names,
            trace,
            keep_statistics=keep_statistics,
            on_error=on_error,
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
        with storage_errors(folder, doing="write"):
            parts.write(given.number, table, trace, counted)
        return counted.rows_in

    with ThreadPoolExecutor(workers) as pool:
        pending: set[Future[int]] = set()
        try:
            for given in batches:
                if parts.done(given.number):
                    on_done(len(given.rows) + len(given.left))
                    continue
                pending.add(pool.submit(compute, given))
                while len(pending) >= _AHEAD * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for one in done:
                        on_done(one.result())
            for one in pending:
                on_done(one.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return parts
