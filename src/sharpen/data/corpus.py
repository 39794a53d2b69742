"""All rows before an operator that must know them all: what is remembered of each, and their texts.

What is remembered are columns of the segment's parts (``key.<name>``); a column is brought to
memory when it is asked for, texts and wide columns only for the rows asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.data.batch import ID, TEXT, Batch
from sharpen.data.parts import Parts

__all__ = ["KEY", "Corpus", "as_array"]

KEY = "key."
"""Prefix of the columns of what is remembered."""

Integers = npt.NDArray[np.int64]


class Corpus:
    """The rows of finished parts, numbered from 0 in order.

    Args:
        parts: of the segment before.
        own: the address of the run, for what is kept beyond it.
    """

    def __init__(self, parts: Parts, own: str = "") -> None:
        self.parts, self.own = parts, own
        self._numbers = parts.numbers()
        sizes = [parts.rows(number).num_rows for number in self._numbers]
        self.starts: Integers = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        """[parts + 1] rows before each part."""

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.starts[-1])

    @functools.cached_property
    def ids(self) -> pa.Array:
        """[n] strings."""
        found = [self.parts.rows(number, [ID]).column(0) for number in self._numbers]
        return pa.chunked_array(found, pa.string()).combine_chunks()

    def column(self, name: str) -> npt.NDArray[Any]:
        """What is remembered under a name, of all rows.

        Returns:
            [n], or [n, width] bytes of binary values of a fixed size.
        """
        found = [as_array(rows.column(0)) for rows in self._columns(name)]
        return np.concatenate(found) if found else np.zeros(0)

    def arrays(self, name: str) -> Iterator[pa.Array]:
        """What is remembered under a name, part by part."""
        for rows in self._columns(name):
            yield rows.column(0)

    def _columns(self, name: str) -> Iterator[pa.RecordBatch]:
        for number in self._numbers:
            yield self.parts.rows(number, [KEY + name])

    def gather(self, name: str, rows: Integers) -> npt.NDArray[Any]:
        """[len(rows)] or [len(rows), width] of what is remembered of some rows."""
        return np.concatenate([as_array(a) for a in self._taken(KEY + name, rows)])[_back(rows)]

    def texts(self, rows: Integers) -> pa.Array:
        """[len(rows)] texts."""
        found = list(self._taken(TEXT, rows))
        return pa.chunked_array(found, pa.large_string()).combine_chunks().take(_back(rows))

    def take(self, rows: Integers, *, keys: bool = False) -> pa.RecordBatch:
        """Some rows, in the order in which they are asked for.

        Args:
            rows: their numbers.
            keys: ids and what is remembered instead of the rows themselves.
        """
        wanted = np.unique(rows)
        edges = np.searchsorted(wanted, self.starts)
        found: list[pa.RecordBatch] = []
        for i, number in enumerate(self._numbers):
            whole = self.parts.rows(number)
            names = [n for n in whole.schema.names if n.startswith(KEY) is keys or n == ID]
            mine = wanted[edges[i] : edges[i + 1]]
            if len(mine) or not found:
                found.append(whole.select(names).take(pa.array(mine - self.starts[i])))
        table = pa.Table.from_batches(found).combine_chunks().take(pa.array(_back(rows)))
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else found[0].slice(0, 0)

    def _taken(self, column: str, rows: Integers) -> Iterator[pa.Array]:
        """The values at the distinct rows, in order, part by part."""
        wanted = np.unique(rows)
        edges = np.searchsorted(wanted, self.starts)
        for i, number in enumerate(self._numbers):
            mine = wanted[edges[i] : edges[i + 1]]
            if len(mine):
                whole = self.parts.rows(number, [column]).column(0)
                yield whole.take(pa.array(mine - self.starts[i]))

    def batches(self) -> Iterator[tuple[int, int, Batch]]:
        """Number of the part, rows before it, and its rows without what is remembered."""
        for number, start in zip(self._numbers, self.starts.tolist(), strict=False):
            rows = self.parts.rows(number)
            names = [name for name in rows.schema.names if not name.startswith(KEY)]
            yield number, start, Batch(rows.select(names))


def _back(rows: Integers) -> npt.NDArray[np.intp]:
    """Where each row stands among the distinct rows in order."""
    return np.unique(rows, return_inverse=True)[1].reshape(-1)


def as_array(column: pa.Array) -> npt.NDArray[Any]:
    """[n] values, or [n, width] bytes of binary values of a fixed size."""
    if not pa.types.is_fixed_size_binary(column.type):
        return column.to_numpy(zero_copy_only=False).copy()  # type: ignore[no-any-return]
    width = column.type.byte_width
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    part = data[column.offset * width : (column.offset + len(column)) * width]
    return part.reshape(-1, width).copy()
