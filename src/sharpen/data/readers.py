"""Readers: JSONL, JSON, CSV, Parquet, Arrow, tar, plain text and source trees, as rows in a stream.

A row is a dict. Text files and sources give one row a file, with ``text`` and ``path``. All but
Parquet and Arrow may be packed (.gz, .bz2, .xz, .zst). Where a row lies is said as ``file:line``,
or ``file: row n``. A file that is damaged ends with a row that says so. A folder that Hugging
Face's ``datasets`` saved is read in the order of its files.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from sharpen.core.errors import DataError, DependencyNotInstalled, MissingFileError
from sharpen.data.finding import COLUMNAR, PACKED, TEXTS, File, find_files, kind_of, matching_files
from sharpen.data.remote import RemoteFile
from sharpen.data.tar import tar_rows

__all__ = [
    "Located",
    "find_files",
    "is_columnar",
    "locate_file",
    "locate_rows",
    "read_rows",
    "readable",
    "record_batches",
]

_log = logging.getLogger(__name__)
Row = dict[str, Any]
_ARROW = b"ARROW1"  # how a file begins that is no stream
_MAX_LINE, _MAX_DOCUMENT = 256 << 20, 1 << 30
_MAX_UNPACKED, _MAX_RATIO = 1 << 30, 200  # a packed tar file may unpack to the greater of both
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)


def read_rows(
    path: str | Path,
    *,
    on_error: Literal["fail", "skip"] = "fail",
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[Row]:
    """Stream the rows of a file, or of every known file below a folder.

    Args:
        path: ``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``, ``.arrow``, ``.tar``,
            ``.txt``, ``.md``, ``.rst`` or sources, packed or not; or a folder, a pattern or an
            address of such.
        on_error: what to do with a line or file that cannot be read.
        on_skip: is told why a line was skipped.

    Raises:
        MissingFileError: no such path.
        DataError: a bad line (file, line, reason), unless skipped.
        DependencyNotInstalled: Parquet without pyarrow.
    """
    for _, row in locate_rows(path, on_error=on_error, on_skip=on_skip):
        yield row


def locate_rows(
    path: str | Path,
    *,
    on_error: Literal["fail", "skip"] = "fail",
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, Row]]:
    """As :func:`read_rows`, each row with the place it lies at."""
    files = matching_files(path)
    yield from readable(
        (one for file in files for one in locate_file(file)), on_error=on_error, on_skip=on_skip
    )


Located = tuple[str, Row, str | None, str | None]
"""Where a row lies, the row, what is wrong with it, and what stands there then."""


def locate_file(file: File) -> Iterator[Located]:
    """Every row of one file of a known kind, those that cannot be read among them.

    Raises:
        DataError: it cannot be opened.
    """
    return _READERS[kind_of(file) or ""](file)


def readable(
    located: Iterable[Located],
    *,
    on_error: Literal["fail", "skip"] = "fail",
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, Row]]:
    """Rows that can be read, each with the place it lies at; see :func:`read_rows`.

    Raises:
        DataError: a bad line (file, line, reason), unless skipped.
    """
    for where, row, error, _ in located:
        if error is None:
            yield where, row
        elif on_error == "fail":
            raise DataError(f"{where}: {error} To leave such lines out: on_error: skip.")
        else:
            _log.warning("skipped: %s: %s", where, error)
            if on_skip is not None:
                on_skip(f"{where}: {error}")


def _jsonl(file: File) -> Iterator[Located]:
    number = 0
    with _opened(file) as lines:
        try:
            while line := lines.readline(_MAX_LINE + 1):
                number += 1
                where = f"{file}:{number}"
                if len(line) > _MAX_LINE and not line.endswith(b"\n"):
                    yield where, {}, f"the line is longer than {_MAX_LINE} bytes.", None
                    while line and not line.endswith(b"\n"):
                        line = lines.readline(_MAX_LINE)
                elif line.strip():
                    yield where, *_json_row(line)
        except _DAMAGED as error:
            yield f"{file}:{number + 1}", {}, f"the file is damaged from here on: {error}.", None


@contextmanager
def _opened(file: File) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked.

    Raises:
        DataError: it cannot be opened.
        DependencyNotInstalled: no package for what it is packed with.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(file.open("rb"))
        except OSError as error:
            if isinstance(error, MissingFileError):
                raise
            raise DataError(f"cannot read {file}: {error.strerror or error}.") from None
        yield stack.enter_context(_unpacked(raw, file.suffix.lower()))


def _unpacked(raw: BinaryIO, suffix: str) -> BinaryIO:
    if suffix in (".gz", ".tgz"):
        return cast(BinaryIO, gzip.open(raw, "rb"))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.open(raw, "rb"))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.open(raw, "rb"))
    if suffix == ".zst":
        try:
            import pyarrow
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("reading .zst", "data") from None
        return io.BufferedReader(pyarrow.input_stream(raw, compression="zstd"))
    return raw


def _tar(file: File) -> Iterator[Located]:
    """Samples of an archive."""
    most = None
    if file.name.lower().endswith((".tgz", *PACKED)):
        size = file.size if isinstance(file, RemoteFile) else file.stat().st_size
        most = max(_MAX_UNPACKED, _MAX_RATIO * size) if size is not None else 1 << 40
    with _opened(file) as stream:
        yield from tar_rows(str(file), stream, most)


def _json(file: File) -> Iterator[Located]:
    """One document: a list of objects, or a single one."""
    with _opened(file) as source:
        try:
            data = source.read(_MAX_DOCUMENT + 1)
        except _DAMAGED as error:
            yield str(file), {}, f"the file is damaged: {error}.", None
            return
    if len(data) > _MAX_DOCUMENT:
        told = f"a document may have {_MAX_DOCUMENT} bytes; write one object a line (.jsonl)."
        yield str(file), {}, told, None
        return
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        yield str(file), {}, f"not valid JSON: {error}.", None
        return
    for number, row in enumerate(found if isinstance(found, list) else [found], start=1):
        where = f"{file}: row {number}"
        if isinstance(row, dict):
            yield where, row, None, None
        else:
            yield where, {}, f"a row must be an object, got {row!r:.60}.", str(row)


def _table(file: File) -> Iterator[Located]:
    """Comma or tab separated values under a line of names; all are text."""
    csv.field_size_limit(_MAX_LINE)
    mark = "\t" if file.name.lower().removesuffix(file.suffix).endswith(".tsv") else ","
    mark = "\t" if file.suffix == ".tsv" else mark
    with (
        _opened(file) as raw,
        io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as lines,
    ):
        reader = csv.reader(lines, delimiter=mark, strict=True)
        number = 0
        names: list[str] = []
        while True:
            try:
                values = next(reader, None)
            except (csv.Error, *_DAMAGED) as error:
                where = f"{file}:{reader.line_num}"
                yield where, {}, f"not valid from here on: {error}.", None
                return
            if values is None:
                return
            if not names:
                names = values
                continue
            number += 1
            where = f"{file}: row {number}"
            if len(values) != len(names):
                told = f"{len(values)} values for {len(names)} names."
                yield where, {}, told, mark.join(values)
            elif any("\udc80" <= c <= "\udcff" for value in values for c in value):
                yield where, {}, "it is not UTF-8.", None
            else:
                yield where, dict(zip(names, values, strict=True)), None, None


def _json_row(line: bytes) -> tuple[Row, str | None, str | None]:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raw = line.decode("utf-8", "backslashreplace")
        return {}, f"byte {error.start} of the line is not UTF-8.", raw
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, f"not valid JSON: {error}.", text
    if not isinstance(row, dict):
        return {}, f"a line must be a JSON object, got {text.strip()!r:.60}.", text
    return row, None, None


def is_columnar(file: File) -> bool:
    """Whether a file holds columns."""
    return kind_of(file) in COLUMNAR


def record_batches(file: File, rows: int) -> Iterator[Any]:
    """A file of columns as Arrow's record batches, of so many rows at most.

    Raises:
        DataError: it is damaged.
        DependencyNotInstalled: without pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("reading Parquet", "data") from None
    with ExitStack() as stack:
        path = stack.enter_context(file.copied()) if isinstance(file, RemoteFile) else file
        try:
            if kind_of(file) == ".parquet":
                with pyarrow.parquet.ParquetFile(path) as table:
                    yield from table.iter_batches(batch_size=rows)
                return
            with pyarrow.memory_map(str(path)) as source:
                for batch in _arrow(source):
                    for start in range(0, batch.num_rows, rows):
                        yield batch.slice(start, rows)
        except (pyarrow.ArrowException, OSError) as error:
            kind = "Parquet" if kind_of(file) == ".parquet" else "Arrow"
            raise DataError(f"{file} is not a readable {kind} file: {error}.") from None


def _arrow(source: Any) -> Iterator[Any]:
    """The batches of a file, or of a stream in a file."""
    from pyarrow import ipc

    begin = source.read(len(_ARROW))
    source.seek(0)
    if begin != _ARROW:
        yield from ipc.open_stream(source)
        return
    reader = ipc.open_file(source)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _columnar(file: File) -> Iterator[Located]:
    number = 0
    try:
        for batch in record_batches(file, 1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}: row {number}", row, None, None
    except DataError as error:
        yield f"{file}: row {number + 1}", {}, str(error), None


def _text(file: File) -> Iterator[Located]:
    try:
        with _opened(file) as source:
            data = source.read(_MAX_DOCUMENT + 1)
        if len(data) > _MAX_DOCUMENT:
            yield str(file), {}, f"a text may have {_MAX_DOCUMENT} bytes.", None
            return
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield str(file), {}, f"byte {error.start} is not UTF-8.", None
        return
    except _DAMAGED as error:
        yield str(file), {}, f"the file is damaged: {error}.", None
        return
    yield str(file), {"text": text.replace("\r\n", "\n"), "path": file.name}, None, None


_READERS: dict[str, Callable[[File], Iterator[Located]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _table,
    ".tsv": _table,
    ".tar": _tar,
    **dict.fromkeys(COLUMNAR, _columnar),
    **dict.fromkeys(TEXTS, _text),
}
