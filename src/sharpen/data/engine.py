"""A data recipe over files: batches through operators, in bounded memory, resumable at any moment.

Operators that must know the whole data set (deduplicators) end a segment. A segment's batches are
computed by threads, since kernels hold no lock, and each is written as a part of its own as soon as
it is done; a killed run finds the finished parts and computes only the others. Between segments
only keys are in memory, never texts.

::

    WORK/<key of the recipe up to here>/000007.arrow   rows
                                        000007.dropped.arrow, 000007.edited.arrow
                                        000007.json    what was counted; written last

The result depends on the files and the operators alone, not on threads, kills or the clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import storage_errors
from sharpen.core.files import atomic_write_bytes, atomic_write_json
from sharpen.data.batch import ID, Batch
from sharpen.data.ops.base import Deduplicator, Operator
from sharpen.data.sources import Left, SourceBatch
from sharpen.data.steps import OnError, Tally, apply_operators
from sharpen.data.trace import DROPPED, EDITED, Trace

__all__ = ["Counted", "Parts", "Segment", "run_segment", "segments_of", "without_copies"]

KEY = "_key"
_AHEAD = 2  # batches that wait, for each thread


@dataclass(frozen=True, slots=True)
class Segment:
    """Operators between two deduplicators."""

    operators: tuple[Operator, ...]
    names: tuple[str, ...]
    ends: Deduplicator | None
    """What follows them; the last segment has none."""

    ends_name: str = ""


@dataclass(slots=True)
class Counted:
    """What happened in a part, or in many."""

    rows_in: int = 0
    rows_made: int = 0
    rows_out: int = 0
    dropped: int = 0
    edited: int = 0
    operators: dict[str, Tally] = field(default_factory=dict)

    def add(self, other: Counted) -> None:
        """Count another part."""
        self.rows_in += other.rows_in
        self.rows_made += other.rows_made
        self.rows_out += other.rows_out
        self.dropped += other.dropped
        self.edited += other.edited
        for name, tally in other.operators.items():
            self.operators.setdefault(name, Tally()).add(tally)

    @classmethod
    def read(cls, path: Path) -> Counted:
        """From a part's own record."""
        data = json.loads(path.read_text())
        data["operators"] = {name: Tally(**t) for name, t in data["operators"].items()}
        return cls(**data)


def segments_of(operators: Sequence[Operator]) -> list[Segment]:
    """Operators parted after each deduplicator; each has a name of its own.

    The second of two operators of a name is ``name#2``.
    """
    seen: dict[str, int] = {}
    found: list[Segment] = []
    here: list[tuple[Operator, str]] = []
    for one in operators:
        seen[one.name] = seen.get(one.name, 0) + 1
        name = one.name if seen[one.name] == 1 else f"{one.name}#{seen[one.name]}"
        if isinstance(one, Deduplicator):
            found.append(_segment(here, one, name))
            here = []
        else:
            here.append((one, name))
    return [*found, _segment(here, None, "")]


def _segment(here: Sequence[tuple[Operator, str]], ends: Deduplicator | None, name: str) -> Segment:
    return Segment(tuple(o for o, _ in here), tuple(n for _, n in here), ends, name)


class Parts:
    """The finished parts of a segment, in their folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: int, kind: str) -> Path:
        """``arrow``, ``dropped.arrow``, ``edited.arrow`` or ``json`` of a part."""
        return self.folder / f"{number:06d}.{kind}"

    def done(self, number: int) -> bool:
        """Whether a part is whole."""
        return self.path(number, "json").is_file()

    def numbers(self) -> list[int]:
        """Of all whole parts."""
        return sorted(int(p.stem) for p in self.folder.glob("*.json") if p.stem.isdigit())

    def write(self, number: int, table: pa.RecordBatch, trace: Trace, counted: Counted) -> None:
        """A part, its record last."""
        dropped, edited = trace.tables()
        for kind, rows in (
            ("arrow", pa.Table.from_batches([table])),
            ("dropped.arrow", dropped),
            ("edited.arrow", edited),
        ):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows)
            atomic_write_bytes(self.path(number, kind), sink.getvalue())
        atomic_write_json(self.path(number, "json"), asdict(counted))

    def rows(self, number: int) -> pa.RecordBatch:
        """The rows of a part, mapped from the file."""
        with pa.memory_map(str(self.path(number, "arrow"))) as source:
            table = pa.ipc.open_file(source).read_all().combine_chunks()
        batches = table.to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)

    def trace(self, kind: str) -> Iterator[pa.Table]:
        """Dropped or edited rows of all parts, part by part."""
        schema = DROPPED if kind == "dropped" else EDITED
        for number in self.numbers():
            with pa.memory_map(str(self.path(number, f"{kind}.arrow"))) as source:
                table = pa.ipc.open_file(source).read_all()
            if table.num_rows:
                yield table.cast(schema)

    def counted(self) -> Counted:
        """All parts together."""
        whole = Counted()
        for number in self.numbers():
            whole.add(Counted.read(self.path(number, "json")))
        return whole


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
            trace.drop(gone.id, gone.operator, reason=gone.reason, kept_id=gone.kept_id)
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
            table = table.append_column(KEY, segment.ends.keys(batch))
        counted = Counted(
            rows_in=len(given.rows) + len(given.left),
            rows_made=trace.made,
            rows_out=len(batch),
            dropped=len(trace.dropped),
            edited=len(trace.edited),
            operators=dict(zip(segment.names, tallies, strict=True)),
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


def without_copies(parts: Parts, segment: Segment) -> Iterator[SourceBatch]:
    """The rows of a segment that are no copies, part by part; copies are left out.

    Raises:
        DataError: a part is damaged.
    """
    assert segment.ends is not None
    numbers = parts.numbers()
    keys, ids = [], []
    for number in numbers:
        rows = parts.rows(number)
        ids.append(rows.column(ID))
        keys.append(_bytes(rows.column(KEY)))
    whole = np.concatenate(keys) if keys else np.zeros((0, 1), np.uint8)
    stays = segment.ends.copies(whole)
    names = (
        pa.chunked_array(ids, pa.string()).combine_chunks() if ids else pa.array([], pa.string())
    )
    start = 0
    for number in numbers:
        rows = parts.rows(number)
        mine = np.arange(start, start + rows.num_rows)
        kept = stays[start : start + rows.num_rows] == mine
        gone = np.nonzero(~kept)[0]
        copies = names.take(pa.array(mine[gone])).to_pylist()
        originals = names.take(pa.array(stays[mine[gone]])).to_pylist()
        left = [
            Left(copy, segment.ends_name, kept_id=original)
            for copy, original in zip(copies, originals, strict=True)
        ]
        table = rows.drop_columns([KEY])
        yield SourceBatch(number, Batch(table).select(kept), left)
        start += rows.num_rows


def _bytes(column: pa.Array) -> npt.NDArray[np.uint8]:
    """[n, width] of a column of binary values of a fixed size."""
    width = column.type.byte_width
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
