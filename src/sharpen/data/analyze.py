"""What a corpus looks like before a threshold is set: one pass, nothing dropped.

The filters of a recipe (or common ones) are measured on every row, its mappers applied between
them. What is kept: a sketch of each statistic, correlations, a sample of rows with their values,
the rows closest to each threshold, and ``statistics.parquet`` with the values of all rows, from
which another threshold is tried in milliseconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.batch import STATISTICS, SourceBatch
from sharpen.data.ops.base import Bound, Filter, Operator, make_operator
from sharpen.data.sketch import Sketch
from sharpen.data.sources import Source
from sharpen.data.steps import measure_operators

__all__ = ["COMMON", "Analysis", "analyze", "common_filters"]

COMMON = (
    "text_length",
    "words_num",
    "mean_word_length",
    "alphanumeric",
    "special_characters",
    "average_line_length",
    "maximum_line_length",
    "character_repetition",
    "word_repetition",
    "stopwords",
)
"""Filters that are measured unless others are asked for."""

Floats = npt.NDArray[np.float64]
T = TypeVar("T")
R = TypeVar("R")

_SAMPLE = 20_000  # rows of which all values are kept for correlations of ranks and suggestions
_NEAR = 3  # rows on each side of a threshold
_EXCERPT = 200


def common_filters() -> list[Operator]:
    """The filters that are measured unless others are asked for."""
    return [make_operator(name, {}) for name in COMMON]


@dataclass
class Near:
    """The rows closest to a threshold, on either side."""

    bound: Bound
    kept: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)
    dropped: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)

    def add(self, values: Floats, texts: pa.Array, ids: pa.Array, start: int) -> None:
        """Look at some rows."""
        limit = self.bound.low if self.bound.low > -np.inf else self.bound.high
        if not np.isfinite(limit):
            return
        inside = (values >= self.bound.low) & (values <= self.bound.high)
        for side, mine in ((self.kept, inside), (self.dropped, ~inside & ~np.isnan(values))):
            rows = np.nonzero(mine)[0]
            far = np.abs(values[rows] - limit)
            for k in np.argsort(far, kind="stable")[:_NEAR].tolist():
                i = int(rows[k])
                told = {
                    "id": ids[i].as_py(),
                    "value": float(values[i]),
                    "text": texts[i].as_py()[:_EXCERPT],
                }
                heapq.heappush(side, (-float(far[k]), -(start + i), told))
                if len(side) > _NEAR:
                    heapq.heappop(side)

    def rows(self) -> dict[str, Any]:
        """As plain data, closest first."""
        return {
            "kept": [told for _, _, told in sorted(self.kept, key=lambda r: (-r[0], -r[1]))],
            "dropped": [told for _, _, told in sorted(self.dropped, key=lambda r: (-r[0], -r[1]))],
        }


@dataclass
class Analysis:
    """What was measured."""

    rows: int = 0

    left: int = 0
    """Rows that could not be read or measured."""

    bytes: int = 0

    sketches: dict[str, Sketch] = field(default_factory=dict)
    """By statistic."""

    bounds: dict[str, Bound] = field(default_factory=dict)
    """What the filters ask of each statistic."""

    dropped: dict[str, int] = field(default_factory=dict)
    """Rows that each filter would drop, alone."""

    kept: int = 0
    """Rows that all filters would keep."""

    near: dict[str, Near] = field(default_factory=dict)

    by: dict[str, dict[str, Sketch]] = field(default_factory=dict)
    """Sketches by the value of a field."""

    names: list[str] = field(default_factory=list)
    """Statistics, in order."""

    sample: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """[rows, statistics] of evenly drawn rows."""

    products: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """[statistics, statistics] sums of centred products, of all rows without gaps."""

    def pearson(self) -> Floats:
        """[statistics, statistics] correlations of all rows without gaps."""
        spread = np.sqrt(np.diag(self.products))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = self.products / np.outer(spread, spread)
        return found

    def spearman(self) -> Floats:
        """[statistics, statistics] correlations of ranks, of the sample; NaN of constants."""
        whole = self.sample[~np.isnan(self.sample).any(1)]
        if len(whole) < 2:
            return np.full((len(self.names),) * 2, np.nan)
        ranks = np.stack([_ranks(column) for column in whole.T])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.corrcoef(ranks).reshape(len(self.names), len(self.names))


def _ranks(values: Floats) -> Floats:
    """Ranks, the mean of equal ones."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: Floats = (ends - (counts - 1) / 2)[place]
    return found


def analyze(
    source: Source,
    operators: Sequence[Operator],
    *,
    by: str | None = None,
    table: Path | None = None,
    workers: int = 2,
    on_error: str = "fail",
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Analysis:
    """Measure every row.

    Args:
        source: the rows.
        operators: filters are measured and drop nothing; mappers, annotators and splitters do what
            they do. None may need all rows.
        by: a field; sketches are also kept for each of its values.
        table: where to write the values of all rows, as Parquet.
        workers: threads.
        on_error: ``fail``, or ``skip`` rows that cannot be read or measured.
        on_rows: is told of rows that are done.

    Raises:
        ConfigError: there is no filter to measure.
        DataError: a row cannot be read or measured, with ``on_error="fail"``.
    """
    filters = [one for one in operators if isinstance(one, Filter)]
    if not filters:
        raise ConfigError("there is no filter to measure.")
    found = Analysis()
    writer: pq.ParquetWriter | None = None
    products, drawn = _Products(0), _Draw(0)

    def measure(given: SourceBatch) -> Any:
        if given.left and on_error == "fail":
            raise DataError(f"{given.left[0].reason} To leave such rows out: on_error=skip.")
        return given, measure_operators(given.rows, operators, on_error=on_error)

    try:
        for given, (batch, failed, keeps) in _ahead(measure, source, workers):
            found.left += len(given.left) + failed
            columns = {
                name.removeprefix(STATISTICS): batch.table.column(name)
                for name in batch.table.schema.names
                if name.startswith(STATISTICS)
            }
            numbers = {
                name: column.to_numpy(zero_copy_only=False).astype(np.float64)
                for name, column in columns.items()
                if not pa.types.is_large_string(column.type) and not pa.types.is_string(column.type)
            }
            if not found.names:
                found.names = list(numbers)
                products, drawn = _Products(len(numbers)), _Draw(len(numbers))
                found.sketches = {name: Sketch() for name in numbers}
                for one in filters:
                    for bound in one.bounds:
                        key = _column(one, bound.statistic)
                        found.bounds[key] = bound
                        found.near[key] = Near(bound)
            if table is not None:
                rows = pa.Table.from_arrays([batch.ids, *columns.values()], ["id", *columns.keys()])
                writer = writer or pq.ParquetWriter(table, rows.schema, compression="zstd")
                writer.write_table(rows)
            if numbers:
                matrix = np.stack([numbers[name] for name in found.names], 1)
                products.add(matrix)
                drawn.add(matrix)
            for name, values in numbers.items():
                found.sketches[name].add(values)
                if name in found.near:
                    found.near[name].add(values, batch.texts.column, batch.ids, found.rows)
            keep = np.ones(len(batch), bool)
            for name, mask in keeps.items():
                found.dropped[name] = found.dropped.get(name, 0) + int((~mask).sum())
                keep &= mask
            found.kept += int(keep.sum())
            if by is not None:
                _add_groups(found, batch.field(by), numbers)
            found.rows += len(batch)
            found.bytes += batch.texts.bytes
            on_rows(len(given.rows) + len(given.left))
    finally:
        if writer is not None:
            writer.close()
    found.products, found.sample = products.sums, drawn.rows
    return found


def _column(one: Filter, statistic: str) -> str:
    return statistic if statistic == one.name else f"{one.name}.{statistic}"


def _ahead(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results in order, a few computed ahead by threads."""
    pending: list[Any] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > workers + 1:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Products:
    """Sums of centred products of rows without gaps (Chan, Golub and LeVeque, 1983)."""

    def __init__(self, size: int) -> None:
        self.sums, self._means, self._count = np.zeros((size, size)), np.zeros(size), 0

    def add(self, matrix: Floats) -> None:
        whole = matrix[np.isfinite(matrix).all(1)]
        if not len(whole):
            return
        mean = whole.mean(0)
        delta, centred = mean - self._means, whole - mean
        total = self._count + len(whole)
        self.sums += centred.T @ centred
        self.sums += np.outer(delta, delta) * self._count * len(whole) / total
        self._means += delta * len(whole) / total
        self._count = total


class _Draw:
    """An even sample: those rows whose scattered numbers are least, whatever the batches."""

    def __init__(self, size: int) -> None:
        self.rows = np.zeros((0, size))
        self._keys = np.zeros(0, np.uint64)
        self._count = 0

    def add(self, matrix: Floats) -> None:
        numbers = np.arange(self._count + 1, self._count + len(matrix) + 1, dtype=np.uint64)
        self._count += len(matrix)
        self._keys = np.concatenate([self._keys, numbers * np.uint64(0x9E3779B97F4A7C15)])
        self.rows = np.concatenate([self.rows, matrix])
        if len(self.rows) > _SAMPLE:
            keep = np.sort(np.argpartition(self._keys, _SAMPLE)[:_SAMPLE])
            self._keys, self.rows = self._keys[keep], self.rows[keep]


def _add_groups(found: Analysis, values: Sequence[Any], numbers: dict[str, Floats]) -> None:
    words = np.array([str(value) for value in values], object)
    for word in dict.fromkeys(words.tolist()):
        mine = words == word
        group = found.by.setdefault(word, {name: Sketch(100_000) for name in numbers})
        for name, column in numbers.items():
            group[name].add(column[mine])
