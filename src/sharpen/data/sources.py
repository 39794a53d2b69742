"""Rows of files as batches: JSONL and Parquet, text and sources, a few at a time.

A batch ends after so many rows or bytes, whichever comes first, and at the end of a file; so the
same files always make the same batches. Lines that are not valid are told apart, with the place
they lie at; nothing is read twice, and never a whole file at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from sharpen.core.errors import DataError
from sharpen.data.batch import FIELDS, ID, TEXT, Batch, Left, SourceBatch
from sharpen.data.readers import find_files, locate_file

__all__ = ["Source", "restored"]

_ROWS, _BYTES = 2048, 16 << 20


class Source:
    """Files of rows with a text.

    Args:
        path: a file, a folder, or a pattern such as ``corpus/*.jsonl.gz``.
        text_key: where a row's text stands; ``a.b`` is ``b`` of the object ``a``.
        rows: most rows of a batch.
        bytes: most bytes of its texts, but for one that is longer alone.
        limit: at most so many rows.

    Raises:
        MissingFileError: nothing is there.
        DataError: a file of an unknown kind.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        text_key: str = "text",
        rows: int = _ROWS,
        bytes: int = _BYTES,
        limit: int | None = None,
    ) -> None:
        path = Path(path)
        if any(mark in str(path) for mark in "*?[") and not path.exists():
            base = Path(path.anchor or ".")
            found = sorted(base.glob(str(path.relative_to(base) if path.anchor else path)))
            self.files = [file for one in found for file in find_files(one)] or find_files(path)
        else:
            self.files = find_files(path)
        self.text_key, self.limit = text_key, limit
        self._rows, self._bytes = rows, bytes

    def __iter__(self) -> Iterator[SourceBatch]:
        """Batches in order.

        Raises:
            DataError: a file is damaged so that the rest of it cannot be read.
        """
        number = count = 0
        for file in self.files:
            made = _Building(number)
            for where, row, error in locate_file(file):
                if self.limit is not None and count >= self.limit:
                    break
                made.add(str(count), where, row, error, self.text_key)
                count += 1
                if len(made.ids) + len(made.left) >= self._rows or made.size >= self._bytes:
                    yield made.batch()
                    number += 1
                    made = _Building(number)
            if made.ids or made.left:
                yield made.batch()
                number += 1


class _Building:
    """A batch that is not full yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.fields: list[bytes] = []
        self.left: list[Left] = []
        self.size = 0

    def add(self, id: str, where: str, row: dict[str, Any], error: str | None, key: str) -> None:
        text: Any = None
        if error is None:
            text, error = _text(row, key)
        if error is None:
            try:
                fields = orjson.dumps(row, default=str)
                self.size += len(text.encode())
            except (TypeError, ValueError) as reason:
                error = f"cannot be written as JSON: {reason}."
        if error is not None:
            self.left.append(Left(id, "read", reason=f"{where}: {error}"))
            return
        self.ids.append(id)
        self.texts.append(text)
        self.fields.append(fields)

    def batch(self) -> SourceBatch:
        columns = {
            ID: pa.array(self.ids, pa.string()),
            TEXT: pa.array(self.texts, pa.large_string()),
            FIELDS: pa.array(self.fields, pa.large_binary()),
        }
        return SourceBatch(self.number, Batch(pa.RecordBatch.from_pydict(columns)), self.left)


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


def restored(fields: bytes, text: str, key: str) -> bytes:
    """A row as JSON, with its text where it was.

    Raises:
        DataError: the fields are none of a row of this key.
    """
    row = orjson.loads(fields)
    if key in row:
        row[key] = text
    else:
        *parents, last = key.split(".")
        inner = row
        for parent in parents:
            inner = inner.get(parent) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise DataError(f"a row has no place for '{key}'.")
        inner[last] = text
    return orjson.dumps(row)
