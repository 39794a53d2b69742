"""Some rows of a data set on their way through operators.

A row has an id, a text, and other fields that operators may read and that are carried to the output
as they came. Rows of JSON keep their other fields as one JSON object, so that rows of any shape
share a batch; rows of Parquet and Arrow files keep their columns.

An id is the number of the row in its source, from 0, and for one of several rows made of another
``parent.number``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from sharpen.core.errors import DataError
from sharpen.data.statistics import Texts

__all__ = ["FIELDS", "ID", "STATISTICS", "TEXT", "Batch", "Edited", "Left", "SourceBatch", "str_of"]

ID, TEXT, FIELDS = "_id", "_text", "_fields"
STATISTICS = "stats."
"""Prefix of the columns that filters measured."""

Mask = npt.NDArray[np.bool_]


def str_of(value: Any) -> str:
    """What JSON has no form for, as text.

    Raises:
        TypeError: it is bytes.
    """
    if isinstance(value, bytes | memoryview):
        raise TypeError("it holds bytes, which only columns of Parquet and members of tar can hold")
    return str(value)


class Batch:
    """Rows as columns; never changed, only replaced.

    Args:
        table: with ``_id``, ``_text`` (large strings without nulls), and ``_fields`` (JSON objects)
            or further columns of any name and type.
    """

    def __init__(self, table: pa.RecordBatch) -> None:
        self.table = table

    def __reduce__(self) -> tuple[type[Batch], tuple[pa.RecordBatch]]:
        """What was measured does not go along to another process."""
        return Batch, (self.table,)

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    @functools.cached_property
    def texts(self) -> Texts:
        """The texts, and what is measured of them."""
        return Texts(self.table.column(TEXT))

    @property
    def ids(self) -> pa.Array:
        """[n] strings."""
        return self.table.column(ID)

    @functools.cached_property
    def fields(self) -> list[dict[str, Any]]:
        """[n] all other fields of each row."""
        names = self.table.schema.names
        if FIELDS in names:
            found = self.table.column(FIELDS).to_pylist()
            return [orjson.loads(text) for text in found]
        others = [n for n in names if n not in (ID, TEXT) and not n.startswith(STATISTICS)]
        return self.table.select(others).to_pylist()  # type: ignore[no-any-return]

    def field(self, path: str) -> list[Any]:
        """[n] values of a field, None where it is missing.

        Args:
            path: ``a.b`` is ``b`` of the object ``a``; ``stats.name`` what a filter measured.
        """
        if path.startswith(STATISTICS) and path in self.table.schema.names:
            return self.table.column(path).to_pylist()  # type: ignore[no-any-return]
        keys = path.split(".")

        def value(row: Any) -> Any:
            if path in row:
                return row[path]
            for key in keys:
                row = row.get(key) if isinstance(row, dict) else None
            return row

        return [value(row) for row in self.fields]

    def row(self, i: int) -> dict[str, Any]:
        """A row with its text, for messages."""
        return {**self.fields[i], "text": self.table.column(TEXT)[i].as_py()}

    def select(self, keep: Mask) -> Batch:
        """Some of the rows; what was measured is measured again if asked for."""
        if keep.all():
            return self
        return Batch(self.table.filter(pa.array(keep)))

    def take(self, rows: npt.NDArray[np.int64], ids: Sequence[str], texts: pa.Array) -> Batch:
        """Rows made of those at ``rows``, with new ids and texts."""
        table = self.table.take(pa.array(rows))
        table = table.set_column(table.schema.get_field_index(ID), ID, pa.array(ids, pa.string()))
        return Batch(table.set_column(table.schema.get_field_index(TEXT), TEXT, texts))

    def with_texts(self, texts: pa.Array) -> Batch:
        """The same rows with other texts.

        Raises:
            DataError: another number of them.
        """
        if len(texts) != len(self):
            raise DataError(f"{len(texts)} texts for {len(self)} rows.")
        if texts.type != pa.large_string():
            texts = texts.cast(pa.large_string())
        return Batch(self.table.set_column(self.table.schema.get_field_index(TEXT), TEXT, texts))

    def with_fields(self, values: Mapping[str, Sequence[Any]]) -> Batch:
        """The same rows and texts with other fields.

        Args:
            values: [n] what JSON can hold, by the path of the field.

        Raises:
            DataError: another number of values, or a field inside of what is no object.
        """
        if FIELDS not in self.table.schema.names:
            return self._with_columns(values)
        rows = [orjson.loads(text) for text in self.table.column(FIELDS).to_pylist()]
        for path, column in values.items():
            if len(column) != len(self):
                raise DataError(f"{len(column)} values of '{path}' for {len(self)} rows.")
            for row, value in zip(rows, column, strict=True):
                *parents, last = [path] if path in row else path.split(".")
                inner = row
                for parent in parents:
                    inner = inner.setdefault(parent, {})
                    if not isinstance(inner, dict):
                        raise DataError(f"no field '{path}': '{parent}' is no object.")
                inner[last] = value
        packed = pa.array([orjson.dumps(row) for row in rows], pa.large_binary())
        where = self.table.schema.get_field_index(FIELDS)
        new = Batch(self.table.set_column(where, FIELDS, packed))
        if "texts" in self.__dict__:
            new.__dict__["texts"] = self.texts
        return new

    def _with_columns(self, values: Mapping[str, Sequence[Any]]) -> Batch:
        table = self.table
        for name, column in values.items():
            array = pa.array(column)
            where = table.schema.get_field_index(name)
            if where < 0:
                table = table.append_column(name, array)
            else:
                table = table.set_column(where, name, array)
        return Batch(table)

    def with_statistics(self, values: Mapping[str, npt.NDArray[Any]]) -> Batch:
        """The same rows and texts, with columns ``stats.<name>``."""
        table = self.table
        for name, array in values.items():
            column = pa.array(array)
            where = table.schema.get_field_index(STATISTICS + name)
            if where < 0:
                table = table.append_column(STATISTICS + name, column)
            else:
                table = table.set_column(where, STATISTICS + name, column)
        new = Batch(table)
        if "texts" in self.__dict__:
            new.__dict__["texts"] = self.texts
        return new


@dataclass(frozen=True, slots=True)
class Left:
    """A row that is left out before the operators of a segment see it."""

    id: str

    operator: str
    """``read``, or what needed to know all rows."""

    statistic: str | None = None
    value: float | None = None
    threshold: str | None = None

    kept_id: str | None = None
    """Of which it is a copy."""

    reason: str | None = None

    raw: str | None = None
    """What could not be read, if it is known."""


@dataclass(frozen=True, slots=True)
class Edited:
    """A text that was changed before the operators of a segment see it."""

    id: str
    before: str
    after: str


@dataclass(slots=True)
class SourceBatch:
    """Rows that go into a segment together."""

    number: int
    """From 0."""

    rows: Batch

    left: list[Left] = field(default_factory=list)

    edited: list[Edited] = field(default_factory=list)

    made: int = 0
    """Rows made beyond those there were."""
