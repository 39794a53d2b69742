"""``Dataset.read(...).apply(...).write(...)``: a recipe for data in Python.

    >>> from sharpen.data import Dataset, ops
    >>> ds = Dataset.read("corpus/*.jsonl.gz").apply(ops.text_length(min=50), ops.exact_dedup())
    >>> result = ds.write("clean", trace=True)  # doctest: +SKIP

Nothing is read before ``write``. The output appears whole or not at all; what was computed of a run
that was killed lies beside it in ``<output>.work`` and is taken up by the same call.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from sharpen.core.config import digest
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.files import FileLock, atomic_dir, atomic_write_json, sha256_file
from sharpen.data.batch import FIELDS, STATISTICS, TEXT, SourceBatch
from sharpen.data.corpus import Corpus
from sharpen.data.engine import run_segment, segments_of
from sharpen.data.ops.base import Operator
from sharpen.data.parts import Counted, Parts
from sharpen.data.sources import Source, restored
from sharpen.data.steps import OnError
from sharpen.data.trace import DROPPED, EDITED, Tally, why

__all__ = ["Dataset", "Result"]

_VERSION = 1
"""Raised when the same files and operators come to another result."""

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to."""

    output: Path

    rows_in: int

    rows_made: int
    """Rows that splitters made beyond those they split."""

    rows_out: int

    rows_dropped: int
    """``rows_in + rows_made == rows_out + rows_dropped``."""

    rows_edited: int
    """Edits; a row that two operators edit counts twice."""

    operators: dict[str, Tally] = field(default_factory=dict)

    cached: bool = False
    """Whether the output was there already, of the same files and operators."""

    def why(self, id: str | int) -> list[dict[str, Any]]:
        """What happened to a row: its edits, then why it was dropped.

        Raises:
            MissingFileError: no trace was written.
        """
        return why(self.output / "trace", str(id))


@dataclass(frozen=True)
class Dataset:
    """Rows of files, and what is to be done with them."""

    source: Source

    operators: tuple[Operator, ...] = ()

    @classmethod
    def read(cls, path: str | Path, *, text_key: str = "text", limit: int | None = None) -> Dataset:
        """Rows of a file, a folder or a pattern.

        Args:
            path: JSONL (also .gz), Parquet, text or sources.
            text_key: where a row's text stands; ``a.b`` is ``b`` of the object ``a``.
            limit: at most so many rows.

        Raises:
            MissingFileError: nothing is there.
            DataError: a file of an unknown kind.
        """
        return cls(Source(path, text_key=text_key, limit=limit))

    def apply(self, *operators: Operator) -> Dataset:
        """The same with more operators at the end.

        Raises:
            ConfigError: something else than an operator.
        """
        for one in operators:
            if not isinstance(one, Operator):
                raise ConfigError(f"{one!r} is no operator; call it: ops.text_length().")
        return replace(self, operators=(*self.operators, *operators))

    def write(
        self,
        output: str | Path,
        *,
        format: Literal["jsonl", "parquet"] = "jsonl",
        trace: bool = False,
        excerpts: int = 10,
        keep_statistics: bool = False,
        on_error: OnError = "fail",
        workers: int | None = None,
        shard_bytes: int = 256 << 20,
        overwrite: bool = False,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> Result:
        """Run the operators and write what is left.

        Args:
            output: folder, which must not exist unless it holds the same result.
            format: ``data-00000.jsonl``, or ``.parquet``.
            trace: also write why each row went.
            excerpts: edits of each operator and batch of which texts are kept in the trace.
            keep_statistics: add what filters measured to the rows, as ``stats``.
            on_error: what becomes of rows that cannot be read or make an operator fail.
            workers: threads; default one for each core.
            shard_bytes: a file is closed when it has reached so many.
            overwrite: replace a folder that holds something else.
            on_rows: is told of rows that are done.

        Raises:
            ConfigError: the folder holds something else.
            DataError: a bad row or a failing operator, with ``on_error="fail"``.
            BusyError: another process writes there.
            StorageError: the disk is full, or may not be written.
        """
        output = Path(output)
        if output.is_file():
            raise ConfigError(f"{output} is a file; the output is a folder.")
        settings = {
            "version": _VERSION,
            "files": [[file.name, sha256_file(file)] for file in self.source.files],
            "text_key": self.source.text_key,
            "limit": self.source.limit,
            "excerpts": excerpts,
            "keep_statistics": keep_statistics,
            "on_error": on_error,
        }
        described = [one.describe() for one in self.operators]
        form = {"format": format, "trace": trace, "shard_bytes": shard_bytes}
        key = digest([settings, described, form])
        work = output.with_name(output.name + ".work")
        known = _known(output)
        if known is not None and known.get("key") == key:
            if work.exists():  # of a run that was killed when all was done
                with FileLock(work / "lock", str(output)):
                    shutil.rmtree(work, ignore_errors=True)
            return _result(output, known, cached=True)
        if output.exists() and not overwrite and any(output.iterdir()):
            raise ConfigError(
                f"{output} holds something else. Choose another folder, or overwrite it."
            )
        with FileLock(work / "lock", str(output)):
            parts = self._run(work, settings, workers or os.cpu_count() or 1, on_rows)
            manifest = self._write(output, parts, key, format, trace, shard_bytes)
            shutil.rmtree(work, ignore_errors=True)
        return _result(output, manifest, cached=False)

    def _run(
        self,
        work: Path,
        settings: dict[str, Any],
        workers: int,
        on_rows: Callable[[int], None],
    ) -> list[Parts]:
        strict = settings["on_error"] == "fail"
        batches: Iterable[SourceBatch] = _checked(self.source) if strict else self.source
        found: list[Parts] = []
        done: list[Any] = []
        for segment in segments_of(self.operators):
            done += [one.describe() for one in segment.operators]
            done += [segment.ends.describe()] if segment.ends is not None else [None]
            parts = run_segment(
                segment,
                batches,
                work / digest([settings, done]),
                workers=workers,
                excerpts=settings["excerpts"],
                keep_statistics=settings["keep_statistics"],
                on_error=settings["on_error"],
                on_done=(lambda rows: None) if found else on_rows,
            )
            found.append(parts)
            if segment.ends is not None:
                batches = segment.ends.pass_on(Corpus(parts), segment.ends_name)
        return found

    def _write(
        self,
        output: Path,
        parts: list[Parts],
        key: str,
        format: Literal["jsonl", "parquet"],
        trace: bool,
        shard_bytes: int,
    ) -> dict[str, Any]:
        counted = [one.counted() for one in parts]
        whole = Counted(rows_in=counted[0].rows_in, rows_out=counted[-1].rows_out)
        for one in counted:
            whole.rows_made += one.rows_made
            whole.dropped += one.dropped
            whole.edited += one.edited
            whole.operators |= one.operators
        with atomic_dir(output) as folder:
            write = _write_jsonl if format == "jsonl" else _write_parquet
            files = write(folder, parts[-1], self.source.text_key, shard_bytes)
            if trace:
                (folder / "trace").mkdir()
                for kind, schema in (("dropped", DROPPED), ("edited", EDITED)):
                    path = folder / "trace" / f"{kind}.parquet"
                    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                        for segment in parts:
                            for table in segment.trace(kind):
                                writer.write_table(table)
            manifest = {
                "schema_version": 1,
                "key": key,
                "operators": [one.describe() for one in self.operators],
                "files": {name: sha256_file(folder / name) for name in files},
                "counted": asdict(whole),
            }
            atomic_write_json(folder / _MANIFEST, manifest)
        return manifest


def _checked(source: Source) -> Iterable[SourceBatch]:
    for batch in source:
        if batch.left:
            raise DataError(f"{batch.left[0].reason} To leave such rows out: on_error=skip.")
        yield batch


def _known(output: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((output / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return found


def _result(output: Path, manifest: dict[str, Any], *, cached: bool) -> Result:
    counted = manifest["counted"]
    return Result(
        output=output,
        rows_in=counted["rows_in"],
        rows_made=counted["rows_made"],
        rows_out=counted["rows_out"],
        rows_dropped=counted["dropped"],
        rows_edited=counted["edited"],
        operators={name: Tally(**tally) for name, tally in counted["operators"].items()},
        cached=cached,
    )


def _statistics(table: pa.RecordBatch) -> list[dict[str, Any]] | None:
    names = [n for n in table.schema.names if n.startswith(STATISTICS)]
    if not names:
        return None
    rows = table.select(names).to_pylist()
    return [{k.removeprefix(STATISTICS): v for k, v in row.items()} for row in rows]


def _write_jsonl(folder: Path, parts: Parts, text_key: str, shard_bytes: int) -> list[str]:
    names: list[str] = []
    file = None
    try:
        for number in parts.numbers():
            table = parts.rows(number)
            if table.num_rows == 0:
                continue
            if file is None or file.tell() >= shard_bytes:
                if file is not None:
                    file.close()
                names.append(f"data-{len(names):05d}.jsonl")
                file = (folder / names[-1]).open("wb")
            statistics = _statistics(table)
            lines = []
            for i, (text, fields) in enumerate(
                zip(table.column(TEXT).to_pylist(), table.column(FIELDS).to_pylist(), strict=True)
            ):
                line = restored(fields, text, text_key)
                if statistics is not None:
                    line = orjson.dumps({**orjson.loads(line), "stats": statistics[i]})
                lines.append(line)
            file.write(b"\n".join(lines) + b"\n")
    finally:
        if file is not None:
            file.close()
    if not names:
        names = ["data-00000.jsonl"]
        (folder / names[0]).touch()
    return names


def _write_parquet(folder: Path, parts: Parts, text_key: str, shard_bytes: int) -> list[str]:
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    size = 0

    def flush() -> None:
        nonlocal size
        names.append(f"data-{len(names):05d}.parquet")
        try:
            table = pa.Table.from_pylist(rows)
        except pa.ArrowException as error:
            raise DataError(
                f"the rows' fields have types that one Parquet column cannot hold: {error}. Write "
                "format=jsonl."
            ) from None
        pq.write_table(table, folder / names[-1], compression="zstd")
        rows.clear()
        size = 0

    for number in parts.numbers():
        table = parts.rows(number)
        statistics = _statistics(table)
        texts, fields = table.column(TEXT).to_pylist(), table.column(FIELDS).to_pylist()
        for i, (text, rest) in enumerate(zip(texts, fields, strict=True)):
            row = orjson.loads(restored(rest, text, text_key))
            if statistics is not None:
                row["stats"] = statistics[i]
            rows.append(row)
            size += len(text)
        if size >= shard_bytes:
            flush()
    if rows or not names:
        flush()
    return names
