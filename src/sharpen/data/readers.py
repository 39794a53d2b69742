"""Readers: JSONL, Parquet, plain text and source trees, as a stream of rows.

A row is a dict. Text files and sources give one row a file, with ``text`` and ``path``. Where a row
lies is said as ``file:line``, or ``file: row n`` for Parquet.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from sharpen.core.errors import DataError, DependencyNotInstalled, MissingFileError

__all__ = [
    "find_files",
    "is_columnar",
    "locate_file",
    "locate_rows",
    "read_rows",
    "record_batches",
]

_log = logging.getLogger(__name__)
Row = dict[str, Any]
_TEXT = (".txt", ".md", ".rst", ".py")
_COLUMNAR = (".parquet", ".arrow")
_KNOWN = (".jsonl", ".jsonl.gz", *_COLUMNAR, *_TEXT)
_MAX_LINE = 256 << 20


def find_files(path: Path) -> list[Path]:
    """The data files at ``path``: itself, or those below a folder, sorted.

    Raises:
        MissingFileError: nothing there, or a folder without a readable file.
        DataError: a file of an unknown kind.
    """
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p) is not None)
        if not found:
            raise MissingFileError(f"{path} has no file of a known kind: {', '.join(_KNOWN)}.")
        return found
    if not path.exists():
        raise MissingFileError(f"no such data file or folder: {path}")
    if _kind(path) is None:
        raise DataError(f"{path} is of no known kind; known: {', '.join(_KNOWN)}.")
    return [path]


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for kind in _KNOWN if name.endswith(kind)), None)


def read_rows(
    path: str | Path,
    *,
    on_error: Literal["fail", "skip"] = "fail",
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[Row]:
    """Stream the rows of a file, or of every known file below a folder.

    Args:
        path: ``.jsonl``, ``.jsonl.gz``, ``.parquet``, ``.txt``, ``.md``, ``.rst``, ``.py``, or a
            folder of such.
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
    for file in find_files(Path(path)):
        for where, row, error, _ in locate_file(file):
            if error is None:
                yield where, row
            elif on_error == "fail":
                raise DataError(f"{where}: {error} To leave such lines out: on_error: skip.")
            else:
                _log.warning("skipped: %s: %s", where, error)
                if on_skip is not None:
                    on_skip(f"{where}: {error}")


Result = tuple[str, Row, str | None, str | None]
"""Where a row lies, the row, what is wrong with it, and what stands there then."""


def locate_file(file: Path) -> Iterator[Result]:
    """Every row of one file of a known kind, those that cannot be read among them.

    Raises:
        DataError: the rest of the file cannot be read.
    """
    return _READERS[_kind(file) or ""](file)


def _jsonl(file: Path) -> Iterator[Result]:
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            while line := lines.readline(_MAX_LINE + 1):
                number += 1
                if len(line) > _MAX_LINE:
                    raise DataError(f"{file}:{number}: the line is longer than {_MAX_LINE} bytes.")
                if line.strip():
                    yield f"{file}:{number}", *_json_row(line)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file} is damaged after line {number}: {error}.") from None


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


def is_columnar(file: Path) -> bool:
    """Whether a file holds columns."""
    return _kind(file) in _COLUMNAR


def record_batches(file: Path, rows: int) -> Iterator[Any]:
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
    try:
        if _kind(file) == ".parquet":
            yield from pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=rows)
            return
        with pyarrow.memory_map(str(file)) as source:
            reader = pyarrow.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)
    except (pyarrow.ArrowException, OSError) as error:
        kind = "Parquet" if _kind(file) == ".parquet" else "Arrow"
        raise DataError(f"{file} is not a readable {kind} file: {error}.") from None


def _columnar(file: Path) -> Iterator[Result]:
    number = 0
    for batch in record_batches(file, 1024):
        for row in batch.to_pylist():
            number += 1
            yield f"{file}: row {number}", row, None, None


def _text(file: Path) -> Iterator[Result]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield str(file), {}, f"byte {error.start} is not UTF-8.", None
        return
    yield str(file), {"text": text.replace("\r\n", "\n"), "path": file.name}, None, None


_READERS: dict[str, Callable[[Path], Iterator[Result]]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    **dict.fromkeys(_COLUMNAR, _columnar),
    **dict.fromkeys(_TEXT, _text),
}
