"""A study's trials as a file: JSON lines with all that is known, or a table of the values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.feedback import Trial
from sharpen.core.files import atomic_write_bytes

__all__ = ["export"]


def export(
    trials: Sequence[Trial], columns: Sequence[str], rows: Sequence[Sequence[Any]], path: Path
) -> Path:
    """Write a file of the kind that its ending says, whole or not at all.

    Args:
        trials: for ``.jsonl``.
        columns: of the table, for ``.csv`` and ``.parquet``.
        rows: of the table, one a trial.
        path: replaced if it exists.

    Raises:
        ConfigError: another kind of file.
        DependencyNotInstalled: pyarrow is missing (``.parquet``).
        StorageError: it cannot be written.
    """
    if path.suffix == ".jsonl":
        lines = (json.dumps(trial.to_dict(), ensure_ascii=False) for trial in trials)
        data = "".join(f"{line}\n" for line in lines).encode()
    elif path.suffix == ".csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
        data = buffer.getvalue().encode()
    elif path.suffix == ".parquet":
        data = _parquet(columns, rows)
    else:
        raise ConfigError(f"{path} must end in .jsonl, .csv or .parquet.")
    atomic_write_bytes(path, data)
    return path


def _parquet(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """The table; a column of several kinds of values, or of lists, is JSON text."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("export to .parquet", "data") from None
    found = {}
    for place, name in enumerate(columns):
        values = [row[place] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int}:
            kind = pyarrow.int64()
        elif kinds <= {int, float}:
            kind = pyarrow.float64()
        elif kinds == {bool}:
            kind = pyarrow.bool_()
        else:
            kind = pyarrow.string()
            if kinds != {str}:
                values = [None if value is None else json.dumps(value) for value in values]
        found[name] = pyarrow.array(values, kind)
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(found), buffer)
    return buffer.getvalue()
