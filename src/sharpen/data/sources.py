"""Where rows come from, as batches of a few at a time.

A batch ends after so many rows or bytes, whichever comes first, and at the end of a file; so the
same files always make the same batches. Rows that cannot be read are told apart, with the place
they lie at; nothing is read twice, and never a whole file at once (but for formats that are one
document). Parquet and Arrow files keep their columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from sharpen.core.errors import DataError
from sharpen.data.batch import FIELDS, ID, STATISTICS, TEXT, Batch, Left, Mask, SourceBatch, str_of
from sharpen.data.corpus import KEY
from sharpen.data.finding import File, matching_files
from sharpen.data.mixing import FileRows, Rows
from sharpen.data.readers import Located, is_columnar, locate_file, record_batches

__all__ = ["FileSource", "RowSource", "Source", "restored"]

_ROWS, _BYTES = 2048, 4 << 20


class Source(ABC):
    """Rows with a text.

    Args:
        text_key: where a row's text stands; ``a.b`` is ``b`` of the object ``a``.
        rows: most rows of a batch.
        bytes: most bytes of its texts, but for one that is longer alone.
        limit: at most so many rows.
    """

    def __init__(
        self,
        *,
        text_key: str = "text",
        rows: int = _ROWS,
        bytes: int = _BYTES,
        limit: int | None = None,
    ) -> None:
        self.text_key, self.limit = text_key, limit
        self._rows, self._bytes = rows, bytes

    @abstractmethod
    def fingerprint(self) -> Any:
        """Plain data that changes when the rows do."""

    @abstractmethod
    def __iter__(self) -> Iterator[SourceBatch]:
        """Batches in order.

        Raises:
            DataError: what follows cannot be read.
        """

    def _building(self, located: Iterable[Located], first: int) -> Iterator[_Building]:
        """Batches of rows that are each an object, whose first row has the number ``first``."""
        made = _Building(self.text_key)
        for count, (where, row, error, raw) in enumerate(located, start=first):
            if self.limit is not None and count >= self.limit:
                break
            made.add(str(count), where, row, error, raw)
            if len(made) >= self._rows or made.size >= self._bytes:
                yield made
                made = _Building(self.text_key)
        if len(made):
            yield made


class FileSource(Source):
    """Rows of files.

    Args:
        path: a file, a folder, or a pattern such as ``corpus/*.jsonl.gz``; or an address of such.
        options: as of :class:`Source`.

    Raises:
        MissingFileError: nothing is there.
        DataError: a file of an unknown kind.
    """

    def __init__(self, path: str | Path, **options: Any) -> None:
        super().__init__(**options)
        self.files = matching_files(path)

    def fingerprint(self) -> Any:
        """See :class:`Source`."""
        return FileRows(self.files).fingerprint()

    def __iter__(self) -> Iterator[SourceBatch]:
        """See :class:`Source`."""
        number = count = 0
        for file in self.files:
            if self.limit is not None and count >= self.limit:
                break
            batches: Iterable[_Building | _Columns] = (
                self._columns(file, count)
                if is_columnar(file) and "." not in self.text_key
                else self._building(locate_file(file), count)
            )
            for made in batches:
                yield SourceBatch(number, made.batch(), made.left)
                number += 1
                count += len(made)

    def _columns(self, file: File, first: int) -> Iterator[_Building | _Columns]:
        place = 0
        tables = record_batches(file, self._rows)
        while True:
            try:
                table = next(tables, None)
            except DataError as error:  # what follows is one row that cannot be read
                yield from self._building([(f"{file}: row {place + 1}", {}, str(error), "")], first)
                return
            if table is None:
                return
            start = 0
            while start < table.num_rows:
                some = table.slice(start)
                if self.limit is not None:
                    some = some.slice(0, max(self.limit - first, 0))
                made = _Columns(file, some, place, first, self.text_key, self._bytes)
                if not len(made):
                    return
                yield made
                start += len(made)
                place += len(made)
                first += len(made)


class RowSource(Source):
    """Rows that are each an object.

    Args:
        rows: the same ones each time.
        options: as of :class:`Source`.
    """

    def __init__(self, rows: Rows, **options: Any) -> None:
        super().__init__(**options)
        self._rows_of = rows

    def fingerprint(self) -> Any:
        """See :class:`Source`."""
        return self._rows_of.fingerprint()

    def __iter__(self) -> Iterator[SourceBatch]:
        """See :class:`Source`."""
        for number, made in enumerate(self._building(self._rows_of.located(), 0)):
            yield SourceBatch(number, made.batch(), made.left)


class _Building:
    """A batch of objects that is not full yet."""

    def __init__(self, text_key: str) -> None:
        self._key = text_key
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._fields: list[bytes] = []
        self.left: list[Left] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._ids) + len(self.left)

    def add(
        self, id: str, where: str, row: dict[str, Any], error: str | None, raw: str | None
    ) -> None:
        text: Any = None
        if error is None:
            text, error = _text(row, self._key)
        if error is None:
            try:
                fields = orjson.dumps(row, default=str_of)
                self.size += len(text.encode())
            except (TypeError, ValueError) as reason:
                error = f"cannot be written as JSON: {reason}."
        if error is not None:
            if raw is None:
                raw = str(row)
            self.left.append(Left(id, "read", reason=f"{where}: {error}", raw=raw))
            return
        self._ids.append(id)
        self._texts.append(text)
        self._fields.append(fields)

    def batch(self) -> Batch:
        columns = {
            ID: pa.array(self._ids, pa.string()),
            TEXT: pa.array(self._texts, pa.large_string()),
            FIELDS: pa.array(self._fields, pa.large_binary()),
        }
        return Batch(pa.RecordBatch.from_pydict(columns))


class _Columns:
    """As many rows of a file of columns as a batch takes."""

    def __init__(
        self, file: File, table: pa.RecordBatch, place: int, first: int, key: str, size: int
    ) -> None:
        names = table.schema.names
        if key not in names:
            raise DataError(
                f"{file}: the column '{key}' is missing; found: {', '.join(names) or 'none'}."
            )
        reserved = [n for n in names if n in (ID, TEXT, FIELDS) or n.startswith((STATISTICS, KEY))]
        if reserved:
            raise DataError(f"{file}: the column '{reserved[0]}' has a name that is taken.")
        column = table.column(key)
        self.left: list[Left] = []
        if not _is_text(column.type):
            raise DataError(f"{file}: the column '{key}' must be text, not {column.type}.")
        column = column.cast(pa.large_string())
        lengths = pa.compute.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        before = np.cumsum(lengths) - lengths
        self._count = max(int(np.searchsorted(before, size)), 1) if len(lengths) else 0
        column = column.slice(0, self._count)
        fine = _readable(column)
        for i in np.nonzero(~fine)[0].tolist():
            what = "is null" if not column[i].is_valid else "is not UTF-8"
            reason = f"{file}: row {place + i + 1}: '{key}' {what}."
            self.left.append(Left(str(first + i), "read", reason=reason))
        ids = pa.array(map(str, range(first, first + self._count)), pa.string())
        columns = [column if n == key else table.column(n).slice(0, self._count) for n in names]
        labels = [TEXT if n == key else n for n in names]
        rows = pa.RecordBatch.from_arrays([ids, *columns], [ID, *labels])
        self._rows = rows if fine.all() else rows.filter(pa.array(fine))

    def __len__(self) -> int:
        return self._count

    def batch(self) -> Batch:
        return Batch(self._rows)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _readable(column: pa.Array) -> Mask:
    """[n] which texts are there and of valid UTF-8."""
    fine: Mask = column.is_valid().to_numpy(zero_copy_only=False).copy()
    try:
        column.validate(full=True)
    except pa.ArrowException:
        for i, data in enumerate(column.cast(pa.large_binary()).to_pylist()):
            try:
                fine[i] = data is not None and bool(data.decode() or True)
            except UnicodeDecodeError:
                fine[i] = False
    return fine


def _text(row: dict[str, Any], key: str) -> tuple[Any, str | None]:
    """The text of a row, which leaves it, and what is wrong."""
    inner: Any = row
    *parents, last = [key] if key in row else key.split(".")
    for parent in parents:
        inner = inner.get(parent) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or last not in inner:
        return None, f"the key '{key}' is missing; found: {', '.join(map(str, row)) or 'none'}."
    text = inner[last]
    if not isinstance(text, str):
        return None, f"'{key}' must be text, got {text!r:.60}."
    try:
        text.encode()
    except UnicodeEncodeError:
        return None, f"'{key}' holds half a surrogate pair, not text."
    inner[last] = None  # its place is kept: the text comes back there
    return text, None


def restored(fields: bytes, text: str, key: str) -> dict[str, Any]:
    """A row with its text where it was.

    Raises:
        DataError: the fields are none of a row of this key.
    """
    row: dict[str, Any] = orjson.loads(fields)
    if key in row:
        row[key] = text
        return row
    *parents, last = key.split(".")
    inner: Any = row
    for parent in parents:
        inner = inner.get(parent) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        raise DataError(f"a row has no place for '{key}'.")
    inner[last] = text
    return row
