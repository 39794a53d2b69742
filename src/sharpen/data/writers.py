"""What is left of a data set, as JSONL, Parquet or tar, and the tables of why the rest went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from sharpen.core.errors import DataError
from sharpen.data.batch import FIELDS, ID, STATISTICS, TEXT, str_of
from sharpen.data.parts import Parts
from sharpen.data.sources import restored
from sharpen.data.tar_writer import TarShards
from sharpen.data.trace import DROPPED, EDITED

__all__ = ["Format", "write_rows", "write_trace"]

Format = Literal["jsonl", "parquet", "webdataset"]
_STATS = "stats"


def write_rows(
    folder: Path,
    parts: Parts,
    format: Format,
    text_key: str,
    *,
    shard_bytes: int,
    keep_statistics: bool = False,
) -> list[str]:
    """Write the rows of all parts in files of about so many bytes.

    Args:
        folder: where; it exists.
        parts: of the last segment.
        format: of the files.
        text_key: where a row's text goes.
        shard_bytes: a file is closed when it has reached so many.
        keep_statistics: add what filters measured, as ``stats``.

    Returns:
        The names of the files, at least one.

    Raises:
        DataError: the format cannot hold the rows.
    """
    write = {"jsonl": _write_jsonl, "parquet": _write_parquet, "webdataset": _write_tar}[format]
    tables = (_table(parts.rows(number), keep_statistics) for number in parts.numbers())
    return write(folder, tables, text_key, shard_bytes)


def _table(rows: pa.RecordBatch, keep_statistics: bool) -> pa.RecordBatch:
    if keep_statistics:
        return rows
    return rows.select([n for n in rows.schema.names if not n.startswith(STATISTICS)])


def _write_jsonl(
    folder: Path, tables: Iterable[pa.RecordBatch], text_key: str, shard_bytes: int
) -> list[str]:
    names: list[str] = []
    file = None
    try:
        for table in tables:
            if table.num_rows == 0 and names:
                continue
            if file is None or file.tell() >= shard_bytes:
                if file is not None:
                    file.close()
                names.append(f"data-{len(names):05d}.jsonl")
                file = (folder / names[-1]).open("wb")
            file.writelines(_lines(table, text_key))
    finally:
        if file is not None:
            file.close()
    if not names:
        names = ["data-00000.jsonl"]
        (folder / names[0]).touch()
    return names


def _lines(table: pa.RecordBatch, text_key: str) -> Iterator[bytes]:
    for row in _rows(table, text_key):
        try:
            yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE, default=str_of)
        except TypeError as error:
            raise DataError(
                f"a row cannot be written as JSON ({error}). Write format=parquet."
            ) from None


def _rows(table: pa.RecordBatch, text_key: str) -> Iterator[dict[str, Any]]:
    """Rows as objects, with what filters measured under ``stats``."""
    measured = _measured(table)
    if FIELDS in table.schema.names:
        pairs = zip(table.column(FIELDS).to_pylist(), table.column(TEXT).to_pylist(), strict=True)
        rows: Iterator[dict[str, Any]] = (restored(*pair, text_key) for pair in pairs)
    else:
        rows = iter(_columns(table, text_key, measured=False).to_pylist())
    for i, row in enumerate(rows):
        if measured:
            row[_STATS] = {name: values[i] for name, values in measured.items()}
        yield row


def _measured(table: pa.RecordBatch) -> dict[str, list[Any]]:
    names = [n for n in table.schema.names if n.startswith(STATISTICS)]
    return {n.removeprefix(STATISTICS): table.column(n).to_pylist() for n in names}


def _columns(table: pa.RecordBatch, text_key: str, *, measured: bool) -> pa.Table:
    """The columns as they were read, with what filters measured as a struct."""
    names = [n for n in table.schema.names if n != ID and not n.startswith(STATISTICS)]
    labels = [text_key if n == TEXT else n for n in names]
    arrays = [table.column(n) for n in names]
    stats = [n for n in table.schema.names if n.startswith(STATISTICS)]
    if measured and stats:
        labels.append(_STATS)
        inner = [n.removeprefix(STATISTICS) for n in stats]
        arrays.append(pa.StructArray.from_arrays([table.column(n) for n in stats], inner))
    return pa.Table.from_arrays(arrays, labels)


def _write_tar(
    folder: Path, tables: Iterable[pa.RecordBatch], text_key: str, shard_bytes: int
) -> list[str]:
    shards = TarShards(folder, shard_bytes)
    try:
        for table in tables:
            for row in _rows(table, text_key):
                try:
                    shards.write(row)
                except (TypeError, ValueError) as error:
                    raise DataError(f"a row cannot be a sample of a tar file: {error}.") from None
    finally:
        shards.close()
    return shards.names


class _Shards:
    """Parquet files of about so many bytes of text."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.names: list[str] = []
        self._folder, self._most = folder, shard_bytes
        self._writer: pq.ParquetWriter | None = None
        self._size = 0

    def write(self, table: pa.Table) -> None:
        if self._writer is None or self._size >= self._most or table.schema != self._writer.schema:
            self.close()
            self.names.append(f"data-{len(self.names):05d}.parquet")
            path = self._folder / self.names[-1]
            self._writer = pq.ParquetWriter(path, table.schema, compression="zstd")
            self._size = 0
        self._writer.write_table(table)
        self._size += table.nbytes

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def _write_parquet(
    folder: Path, tables: Iterable[pa.RecordBatch], text_key: str, shard_bytes: int
) -> list[str]:
    shards = _Shards(folder, shard_bytes)
    objects: list[dict[str, Any]] = []
    size = 0

    def flush() -> None:
        nonlocal size
        try:
            table = pa.Table.from_pylist(objects)
        except pa.ArrowException as error:
            raise DataError(
                f"the rows' fields have types that one Parquet column cannot hold: {error}. Write "
                "format=jsonl."
            ) from None
        shards.write(table)
        objects.clear()
        size = 0

    try:
        for table in tables:
            if FIELDS in table.schema.names:
                objects += _rows(table, text_key)
                size += table.nbytes
                if size >= shard_bytes:
                    flush()
            elif table.num_rows or not shards.names:
                shards.write(_columns(table, text_key, measured=True))
        if objects or not shards.names:
            flush()
    finally:
        shards.close()
    return shards.names


def write_trace(folder: Path, parts: Sequence[Parts]) -> None:
    """Write the tables of dropped and edited rows of all segments, and the ids of those kept."""
    folder.mkdir()
    for kind, schema in (("dropped", DROPPED), ("edited", EDITED)):
        path = folder / f"{kind}.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for segment in parts:
                for table in segment.trace(kind):
                    writer.write_table(table)
    ids = pa.schema([("id", pa.string())])
    with pq.ParquetWriter(folder / "kept.parquet", ids, compression="zstd") as writer:
        for number in parts[-1].numbers():
            column = parts[-1].rows(number, [ID]).column(0)
            writer.write_table(pa.Table.from_arrays([column], schema=ids))
