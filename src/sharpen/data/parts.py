"""What a segment has come to, batch by batch: files that are whole or not there.

::

    <folder>/000007.arrow          rows, and what is remembered of each
             000007.dropped.arrow  000007.edited.arrow
             000007.failed.jsonl   rows that could not be read or made an operator fail
             000007.json           what was counted; written last
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson
import pyarrow as pa

from sharpen.core.errors import DataError
from sharpen.core.files import atomic_write_bytes
from sharpen.data.trace import DROPPED, EDITED, Tally, Trace

__all__ = ["Counted", "Parts"]


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
        """From a part's own record.

        Raises:
            DataError: it is damaged.
        """
        try:
            data = json.loads(path.read_text())
            data["operators"] = {name: Tally(**t) for name, t in data["operators"].items()}
            return cls(**data)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}). Remove {path.parent}.") from None


class Parts:
    """The finished parts of a segment, in their folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: int, kind: str) -> Path:
        """``arrow``, ``dropped.arrow``, ``edited.arrow``, ``failed.jsonl`` or ``json``."""
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
            ("arrow", table),
            ("dropped.arrow", dropped),
            ("edited.arrow", edited),
        ):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write(rows)
            atomic_write_bytes(self.path(number, kind), sink.getvalue())
        if trace.failed:
            lines = b"".join(orjson.dumps(one) + b"\n" for one in trace.failed)
            atomic_write_bytes(self.path(number, "failed.jsonl"), lines)
        atomic_write_bytes(self.path(number, "json"), orjson.dumps(asdict(counted)))

    def rows(self, number: int, columns: Sequence[str] | None = None) -> pa.RecordBatch:
        """The rows of a part, mapped from the file.

        Args:
            number: of the part.
            columns: only these.

        Raises:
            DataError: the part is damaged.
        """
        path = self.path(number, "arrow")
        try:
            with pa.memory_map(str(path)) as source:
                rows = pa.ipc.open_file(source).get_batch(0)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged ({error}). Remove {self.folder}.") from None
        return rows if columns is None else rows.select(list(columns))

    def trace(self, kind: str) -> Iterator[pa.Table]:
        """Dropped or edited rows of all parts, part by part."""
        schema = DROPPED if kind == "dropped" else EDITED
        for number in self.numbers():
            with pa.memory_map(str(self.path(number, f"{kind}.arrow"))) as source:
                table = pa.ipc.open_file(source).read_all()
            if table.num_rows:
                yield table.cast(schema)

    def failed(self) -> Iterator[bytes]:
        """Lines of rows that failed."""
        for number in self.numbers():
            path = self.path(number, "failed.jsonl")
            if path.exists():
                yield path.read_bytes()

    def counted(self) -> Counted:
        """All parts together."""
        whole = Counted()
        for number in self.numbers():
            whole.add(Counted.read(self.path(number, "json")))
        return whole
