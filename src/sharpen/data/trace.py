"""Why each row went: one table of every row that was dropped, one of those that were edited.

``dropped.parquet`` has a row for every row that was read or made and is not in the output:
``id``, ``operator``, ``statistic``, ``value``, ``threshold``, ``kept_id`` (of duplicates) and
``reason`` (of rows that could not be read). ``edited.parquet`` has one for every text that an
operator changed, with an excerpt before and after for the first few. ``kept.parquet`` has the id
of every row of the output, in its order.
"""

from __future__ import annotations

import itertools
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sharpen.core.errors import DataError, MissingFileError
from sharpen.data.batch import Left

__all__ = [
    "DROPPED",
    "EDITED",
    "Tally",
    "Trace",
    "bad_rows",
    "dropped_rows",
    "excerpt",
    "kept_ids",
    "why",
]

DROPPED = pa.schema(
    [
        ("id", pa.string()),
        ("operator", pa.string()),
        ("statistic", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.string()),
        ("kept_id", pa.string()),
        ("reason", pa.string()),
    ]
)
EDITED = pa.schema(
    [
        ("id", pa.string()),
        ("operator", pa.string()),
        ("before", pa.large_string()),
        ("after", pa.large_string()),
    ]
)
_AROUND = 40


@dataclass(slots=True)
class Tally:
    """What an operator did."""

    rows_in: int = 0
    rows_out: int = 0
    edited: int = 0
    seconds: float = 0.0
    failed: int = 0
    """Rows that made it fail."""

    @property
    def dropped(self) -> int:
        """Rows that it dropped, those that made it fail among them."""
        return max(self.rows_in - self.rows_out, 0)

    def add(self, other: Tally) -> None:
        """Count another batch."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.edited += other.edited
        self.seconds += other.seconds
        self.failed += other.failed


class Trace:
    """What happened to the rows of a batch.

    Args:
        excerpts: of how many edits of an operator to keep both texts.
    """

    def __init__(self, excerpts: int = 10) -> None:
        self.excerpts = excerpts
        self.dropped: list[tuple[Any, ...]] = []
        self.edited: list[tuple[Any, ...]] = []
        self.failed: list[dict[str, Any]] = []
        """Rows that failed, with all that is known of why."""
        self.made = 0
        """Rows made beyond those that were split."""
        self._kept: Counter[str] = Counter()

    def drop(
        self,
        id: str,
        operator: str,
        *,
        statistic: str | None = None,
        value: float | None = None,
        threshold: str | None = None,
        kept_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        """A row is gone."""
        self.dropped.append((id, operator, statistic, value, threshold, kept_id, reason))

    def leave(self, left: Left) -> None:
        """A row is gone before an operator saw it."""
        self.drop(
            left.id,
            left.operator,
            statistic=left.statistic,
            value=left.value,
            threshold=left.threshold,
            kept_id=left.kept_id,
            reason=left.reason,
        )

    def edit(self, id: str, operator: str, before: str, after: str) -> None:
        """A text was changed."""
        self._kept[operator] += 1
        if self._kept[operator] <= self.excerpts:
            self.edited.append((id, operator, *excerpt(before, after)))
        else:
            self.edited.append((id, operator, None, None))

    def fail(self, id: str, operator: str, error: BaseException | str, row: Any) -> None:
        """A row that made an operator fail, or could not be read, is put by."""
        told = error if isinstance(error, str) else "".join(traceback.format_exception(error))
        self.failed.append({"id": id, "operator": operator, "error": told, "row": row})

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Dropped and edited."""
        return _table(self.dropped, DROPPED), _table(self.edited, EDITED)


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(list(c), f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def excerpt(before: str, after: str) -> tuple[str, str]:
    """Both texts around the first place where they differ."""
    same = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    start = max(same - _AROUND, 0)
    end = same + _AROUND
    return before[start:end], after[start:end]


def dropped_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Every row that was dropped.

    Raises:
        MissingFileError: no trace was written there.
        DataError: the table is damaged.
    """
    path = _table_at(folder, "dropped")
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable table: {error}.") from None


def bad_rows(folder: Path, count: int = 5) -> list[str]:
    """Where the first rows that could not be read lie, and why.

    Raises:
        MissingFileError: no trace was written there.
        DataError: the table is damaged.
    """
    found = (row["reason"] for row in dropped_rows(folder) if row["operator"] == "read")
    return list(itertools.islice(found, count))


def kept_ids(folder: Path) -> Iterator[list[str]]:
    """The ids of the rows of the output, in its order, some at a time.

    Raises:
        MissingFileError: no trace was written there.
        DataError: the table is damaged.
    """
    path = _table_at(folder, "kept")
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield batch.column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable table: {error}.") from None


def _table_at(folder: Path, name: str) -> Path:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise MissingFileError(f"{folder} has no trace; write with trace=True.")
    return path


def why(folder: Path, id: str) -> list[dict[str, Any]]:
    """What the tables say of a row: its edits in order, then why it was dropped, if it was.

    Raises:
        MissingFileError: no trace was written there.
        DataError: a table is damaged.
    """
    found: list[dict[str, Any]] = []
    for name in ("edited", "dropped"):
        path = _table_at(folder, name)
        try:
            rows = pq.read_table(path, filters=[("id", "=", id)]).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a readable table: {error}.") from None
        found += [{"what": name, **{k: v for k, v in row.items() if v is not None}} for row in rows]
    return found
