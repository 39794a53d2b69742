"""``Dataset.read(...).apply(...).write(...)``: a recipe for data in Python.

    >>> from sharpen.data import Dataset, ops
    >>> ds = Dataset.read("corpus/*.jsonl.gz").apply(ops.text_length(min=50), ops.exact_dedup())
    >>> result = ds.write("clean", trace=True)  # doctest: +SKIP

Nothing is read before ``write``. The output appears whole or not at all; what was computed of a run
that was killed lies beside it in ``<output>.work`` and is taken up by the same call.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sharpen.core.config import digest
from sharpen.core.errors import ConfigError, DataError, storage_errors
from sharpen.core.files import FileLock, atomic_dir, atomic_write_json, sha256_file
from sharpen.data.batch import SourceBatch
from sharpen.data.corpus import Corpus
from sharpen.data.engine import (
    Executor,
    Segment,
    Threads,
    Work,
    is_complete,
    run_segment,
    segments_of,
)
from sharpen.data.ops.barrier import Deduplicator
from sharpen.data.ops.base import Filter, Operator
from sharpen.data.ordering import known_order
from sharpen.data.parts import Counted, Parts
from sharpen.data.report import write_report
from sharpen.data.segment_cache import SegmentCache
from sharpen.data.sources import FileSource, Source
from sharpen.data.steps import OnError
from sharpen.data.trace import Tally, why
from sharpen.data.writers import Format, write_rows, write_trace

__all__ = ["Dataset", "Result"]

_VERSION = 1
"""Raised when the same files and operators come to another result."""

_MANIFEST, _MEASURED, _REPORT = "manifest.json", "measured.json", "report.html"
_QUARANTINE = "quarantine.jsonl"
_TOLD = 5  # bad rows that an error names


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

    sha256: str = ""
    """Of the files of rows: equal for equal rows."""

    cached: bool = False
    """Whether the output was there already, of the same files and operators."""

    @property
    def report(self) -> Path:
        """A page of what each operator did."""
        return self.output / _REPORT

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
            path: of JSONL, JSON, CSV, Parquet, Arrow, tar, text or sources; or an address of such.
            text_key: where a row's text stands; ``a.b`` is ``b`` of the object ``a``.
            limit: at most so many rows.

        Raises:
            MissingFileError: nothing is there.
            DataError: a file of an unknown kind.
        """
        return cls(FileSource(path, text_key=text_key, limit=limit))

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
        format: Format = "jsonl",
        trace: bool = False,
        excerpts: int = 10,
        keep_statistics: bool = False,
        on_error: OnError = "fail",
        order: Literal["auto", "given"] = "auto",
        executor: Literal["threads", "ray"] = "threads",
        workers: int | None = None,
        shard_bytes: int = 256 << 20,
        cache: str | Path | None = None,
        cache_bytes: int = 20 << 30,
        overwrite: bool = False,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> Result:
        """Run the operators and write what is left.

        Args:
            output: folder, which must not exist unless it holds the same result.
            format: ``data-00000.jsonl``, ``.parquet``, or ``webdataset``: ``.tar`` of samples.
            trace: also write why each row went.
            excerpts: edits of each operator and batch of which texts are kept in the trace.
            keep_statistics: add what filters measured to the rows, as ``stats``.
            on_error: what becomes of rows that cannot be read or make an operator fail: ``fail``
                ends the run, ``skip`` counts them with the reason, ``quarantine`` also keeps them
                in ``quarantine.jsonl``.
            order: of filters that follow each other: ``auto`` puts those first that drop the most
                for the least time; the rows that are kept are the same.
            executor: ``threads`` of this process, or tasks of a ``ray`` cluster; the rows are the
                same.
            workers: threads, default one for each core; or tasks at once, default as many as the
                cluster has room for.
            shard_bytes: a file is closed when it has reached so many.
            cache: a folder in which what operators came to is kept, up to each that must know all
                rows (a ``checkpoint`` is one): another recipe that begins alike goes on from there.
            cache_bytes: of the cache; what was not used for longest goes.
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
            "source": self.source.fingerprint(),
            "text_key": self.source.text_key,
            "limit": self.source.limit,
            "excerpts": excerpts,
            "keep_statistics": keep_statistics,
            "on_error": on_error,
            "order": order,
        }
        described = [one.describe() for one in self.operators]
        own = digest([settings, described])
        indexes = [one.open_index(own) for one in self.operators if isinstance(one, Deduplicator)]
        settings["indexes"] = [one.fingerprint() for one in indexes if one is not None]
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
        with ExitStack() as locks:
            locks.enter_context(FileLock(work / "lock", str(output)))
            for index in indexes:
                if index is not None:
                    locks.enter_context(FileLock(index.folder / "lock", str(index.folder)))
            pool = make_executor(executor, workers)
            try:
                kept = None if cache is None else SegmentCache(Path(cache), cache_bytes, locks)
                parts = self._run(work, settings, own, pool, kept, on_rows)
            finally:
                pool.close()
            for one, segment in zip(segments_of(self.operators), parts, strict=True):
                if isinstance(one.ends, Deduplicator):
                    one.ends.remember(Corpus(segment, own))
            with storage_errors(output, doing="write"), atomic_dir(output) as folder:
                files = write_rows(
                    folder,
                    parts[-1],
                    format,
                    self.source.text_key,
                    shard_bytes=shard_bytes,
                    keep_statistics=keep_statistics,
                )
                if trace:
                    write_trace(folder / "trace", parts)
                files += _write_failed(folder, parts)
                manifest, seconds = _manifest(parts, key, described, folder, files)
                manifest["source"] = digest(settings["source"])
                atomic_write_json(folder / _MANIFEST, manifest)
                atomic_write_json(folder / _MEASURED, seconds)
                write_report(folder, manifest["counted"], _result(folder, manifest).operators)
            shutil.rmtree(work, ignore_errors=True)
            if kept is not None:
                kept.shrink()
        return _result(output, manifest)

    def _run(
        self,
        work: Path,
        settings: dict[str, Any],
        own: str,
        executor: Executor,
        cache: SegmentCache | None,
        on_rows: Callable[[int], None],
    ) -> list[Parts]:
        strict = settings["on_error"] == "fail"
        batches: Iterable[SourceBatch] = _checked(self.source) if strict else self.source
        found: list[Parts] = []
        done: list[Any] = []
        later = "stats." in str([one.describe() for one in self.operators])
        keep = settings["keep_statistics"] or later
        for segment in segments_of(self.operators):
            done += [one.describe() for one in segment.operators]
            done += [segment.ends.describe()] if segment.ends is not None else [None]
            key = digest([settings, keep, done])
            folder = work / key if cache is None else cache.folder(key)
            told = (lambda rows: None) if found else on_rows
            if is_complete(folder):
                parts = Parts(folder)
                told(parts.counted().rows_in)
            else:
                if settings["order"] == "auto":
                    segment, batches = _ordered(segment, batches, folder, key)
                each = Work(segment, settings["excerpts"], keep, settings["on_error"])
                parts = run_segment(each, batches, folder, executor, told)
            found.append(parts)
            if segment.ends is not None:
                batches = segment.ends.pass_on(Corpus(parts, own), segment.ends_name)
        return found


def make_executor(name: str, workers: int | None) -> Executor:
    """Where batches are computed.

    Raises:
        ConfigError: an unknown name.
        DependencyNotInstalled: Ray is missing.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers} must be at least 1.")
    if name == "threads":
        return Threads(workers)
    if name == "ray":
        from sharpen.data.ray_tasks import RayTasks

        return RayTasks(workers)
    raise ConfigError(f"executor={name!r} must be threads or ray.")


def _ordered(
    segment: Segment, batches: Iterable[SourceBatch], folder: Path, key: str
) -> tuple[Segment, Iterable[SourceBatch]]:
    """The segment with its filters in the order that costs least by its first rows."""
    if sum(isinstance(one, Filter) for one in segment.operators) < 2:
        return segment, batches
    following = iter(batches)
    first = next(following, None)
    if first is None:
        return segment, ()
    order = known_order(folder, key, segment.operators, first.rows)
    return segment.ordered(order), itertools.chain([first], following)


def _manifest(
    parts: list[Parts], key: str, described: list[dict[str, Any]], folder: Path, files: list[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """What decides and describes the output, and apart from it how long each operator took."""
    counted = [one.counted() for one in parts]
    whole = Counted(rows_in=counted[0].rows_in, rows_out=counted[-1].rows_out)
    for one in counted:
        whole.rows_made += one.rows_made
        whole.dropped += one.dropped
        whole.edited += one.edited
        whole.operators |= one.operators
    seconds = {name: tally.seconds for name, tally in whole.operators.items()}
    for tally in whole.operators.values():
        tally.seconds = 0.0
    hashes = {name: sha256_file(folder / name) for name in files}
    manifest = {
        "schema_version": 1,
        "key": key,
        "operators": described,
        "files": hashes,
        "sha256": hashlib.sha256("".join(hashes.values()).encode()).hexdigest(),
        "counted": asdict(whole),
    }
    return manifest, seconds


def _write_failed(folder: Path, parts: list[Parts]) -> list[str]:
    """Rows that were put by, one JSON object a line; no file if there are none."""
    lines = [line for one in parts for line in one.failed()]
    if not lines:
        return []
    (folder / _QUARANTINE).write_bytes(b"".join(lines))
    return [_QUARANTINE]


def _checked(source: Source) -> Iterable[SourceBatch]:
    for batch in source:
        if batch.left:
            first, *others = [left.reason or "" for left in batch.left[:_TOLD]]
            told = [f"{first} To leave such rows out: on_error=skip.", *others]
            raise DataError("\n".join(told))
        yield batch


def _known(output: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((output / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return found


def _result(output: Path, manifest: dict[str, Any], *, cached: bool = False) -> Result:
    counted = manifest["counted"]
    seconds = _seconds(output)
    operators = {}
    for name, tally in counted["operators"].items():
        operators[name] = Tally(**{**tally, "seconds": seconds.get(name, 0.0)})
    return Result(
        output=output,
        rows_in=counted["rows_in"],
        rows_made=counted["rows_made"],
        rows_out=counted["rows_out"],
        rows_dropped=counted["dropped"],
        rows_edited=counted["edited"],
        operators=operators,
        sha256=manifest["sha256"],
        cached=cached,
    )


def _seconds(output: Path) -> dict[str, float]:
    try:
        found: dict[str, float] = json.loads((output / _MEASURED).read_text())
    except (OSError, ValueError):
        return {}
    return found
