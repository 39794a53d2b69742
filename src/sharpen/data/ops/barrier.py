"""Operators that must know all rows before any goes on.

A segment of the recipe ends before such an operator: of every row it remembers something (a hash, a
field, a signature), and when all rows are there it passes them on, in order and in batches.

=============  ==========================================================
deduplicator   keeps one of each group of copies
selector       keeps the rows that a field or a draw puts first
grouper        makes one row of many
corpus mapper  edits a text by what the others hold
=============  ==========================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch, Edited, Left, Mask, SourceBatch
from sharpen.data.corpus import Corpus
from sharpen.data.dedup_index import DedupIndex, WithEarlier, write_entry
from sharpen.data.ops.base import Miss, Operator

__all__ = ["Barrier", "Copies", "CorpusMapper", "Deduplicator", "Selector", "numbers_of"]

Integers = npt.NDArray[np.int64]
_RANK, _ENTRY = "rank", "index.entry"
_NOT_MARKS = ("keep", "index", "verify", "cluster", "threshold", "distance")


@dataclass(frozen=True, kw_only=True)
class Barrier(Operator, ABC):
    """See the kinds below it."""

    @abstractmethod
    def keys(self, batch: Batch) -> Mapping[str, pa.Array]:
        """[n] what is remembered of each row, by a name of its own."""

    @abstractmethod
    def pass_on(self, rows: Corpus, name: str) -> Iterator[SourceBatch]:
        """The rows that go on, in order, with those that are left out.

        Args:
            rows: all of them.
            name: of the operator, as it is to stand in the trace.
        """


def _without(rows: Corpus, keep: Mask, left: Callable[[int, str], Left]) -> Iterator[SourceBatch]:
    """Batches of the rows that are kept; ``left`` makes the others' record of number and id."""
    for number, start, batch in rows.batches():
        mine = keep[start : start + len(batch)]
        gone = np.nonzero(~mine)[0]
        ids = batch.ids.take(pa.array(gone)).to_pylist()
        records = [left(start + i, id) for i, id in zip(gone.tolist(), ids, strict=True)]
        yield SourceBatch(number, batch.select(mine), records)


@dataclass(frozen=True, slots=True)
class Copies:
    """Which rows are copies."""

    of: Integers
    """[n] the row that stays in place of each; its own number for those that stay."""

    similarity: Callable[[Integers, Integers], npt.NDArray[np.float64]] | None = None
    """Of pairs of rows, for the trace."""

    threshold: str | None = None


@dataclass(frozen=True, kw_only=True)
class Deduplicator(Barrier, ABC):
    """Finds rows that are copies of others."""

    kind: ClassVar[str] = "deduplicator"

    keep: str = "first"
    """Which copy stays: ``first``, ``longest``, or the one with the greatest or least value of a
    field, ``max:FIELD`` or ``min:FIELD``; of equal ones the first."""

    index: str | None = None
    """A folder in which runs keep what stayed: rows that are copies of an earlier run's go, too."""

    def __post_init__(self) -> None:
        """Check which copy is to stay."""
        if self.keep not in ("first", "longest") and self.keep[:4] not in ("max:", "min:"):
            raise ConfigError(f"keep={self.keep!r} must be first, longest, max:FIELD or min:FIELD.")

    def describe(self) -> dict[str, Any]:
        """Without the place of the index; what is in it belongs to the run's address."""
        return {**super().describe(), "index": self.index is not None}

    def open_index(self, own: str) -> DedupIndex | None:
        """What earlier runs kept.

        Args:
            own: the address of this run.

        Raises:
            ConfigError: the folder is the index of something else.
        """
        if self.index is None:
            return None
        about = {k: v for k, v in self.describe().items() if k not in _NOT_MARKS}
        return DedupIndex(Path(self.index), about, own)

    def keys(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Barrier`."""
        found = dict(self.marks(batch))
        if self.keep != "first":
            found[_RANK] = pa.array(self._ranks(batch), pa.float64())
        return found

    def _ranks(self, batch: Batch) -> npt.NDArray[np.float64]:
        if self.keep == "longest":
            return batch.texts.counts.characters.astype(np.float64)
        values = numbers_of(batch, self.keep[4:])
        return -values if self.keep.startswith("min:") else values

    @abstractmethod
    def marks(self, batch: Batch) -> Mapping[str, pa.Array]:
        """[n] what copies are told by."""

    @abstractmethod
    def copies(self, rows: Corpus, order: Integers) -> Copies:
        """Which rows are copies of which.

        Args:
            rows: all of them.
            order: [n] rows, the one that would rather stay first.
        """

    def pass_on(self, rows: Corpus, name: str) -> Iterator[SourceBatch]:
        """See :class:`Barrier`."""
        index, n = self.open_index(rows.own), len(rows)
        order = np.arange(n)
        if self.keep != "first" and n:
            ranks = np.nan_to_num(rows.column(_RANK), nan=-np.inf)
            order = np.argsort(-ranks, kind="stable")
        earlier = index.read() if index is not None else []
        earlier_ids: list[str] = []
        whole = rows
        if earlier:
            whole = WithEarlier(rows, earlier)
            earlier_ids = whole.earlier_ids
            order = np.concatenate([np.arange(n, len(whole)), order])
        found = self.copies(whole, order)
        of = found.of[:n]
        stay = of == np.arange(n)
        if index is not None and not (entry := rows.parts.folder / _ENTRY).exists():
            write_entry(entry, rows, np.nonzero(stay)[0])
        gone = np.nonzero(~stay)[0]
        kept_ids: dict[int, str] = {}
        for row, other in zip(gone.tolist(), of[gone].tolist(), strict=True):
            kept_ids[row] = earlier_ids[other - n] if other >= n else rows.ids[other].as_py()
        alike: dict[int, float] = {}
        if found.similarity is not None and len(gone):
            values = found.similarity(gone, of[gone])
            alike = dict(zip(gone.tolist(), values.tolist(), strict=True))

        def left(row: int, id: str) -> Left:
            return Left(
                id,
                name,
                statistic="similarity" if alike else None,
                value=alike.get(row),
                threshold=found.threshold,
                kept_id=kept_ids[row],
            )

        yield from _without(rows, stay, left)

    def remember(self, rows: Corpus) -> None:
        """Keep what stayed for later runs; of a run that is whole."""
        index = self.open_index(rows.own)
        if index is not None:
            index.keep(rows.parts.folder / _ENTRY)


@dataclass(frozen=True, kw_only=True)
class Selector(Barrier, ABC):
    """Keeps some rows by a value that each has."""

    kind: ClassVar[str] = "selector"

    def keys(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Barrier`."""
        return {"value": self.values(batch)}

    @abstractmethod
    def values(self, batch: Batch) -> pa.Array:
        """[n] numbers or strings; null where there is none."""

    @abstractmethod
    def choose(self, values: npt.NDArray[Any]) -> tuple[Mask, Callable[[int], Miss]]:
        """[n] which rows are kept, and why a row is not."""

    def pass_on(self, rows: Corpus, name: str) -> Iterator[SourceBatch]:
        """See :class:`Barrier`."""
        keep, why = self.choose(rows.column("value"))

        def left(row: int, id: str) -> Left:
            miss = why(row)
            return Left(id, name, miss.statistic, miss.value, miss.threshold, reason=miss.reason)

        yield from _without(rows, keep, left)


@dataclass(frozen=True, kw_only=True)
class CorpusMapper(Barrier, ABC):
    """Edits each text by what the others hold; a row of which nothing is left goes."""

    kind: ClassVar[str] = "corpus mapper"

    @abstractmethod
    def plan(self, rows: Corpus) -> Callable[[int, Batch], Sequence[str] | pa.Array]:
        """What to do with each batch: a function of the rows before it and its rows."""

    def pass_on(self, rows: Corpus, name: str) -> Iterator[SourceBatch]:
        """See :class:`Barrier`."""
        edit = self.plan(rows)
        for number, start, batch in rows.batches():
            after = batch.with_texts(pa.array(edit(start, batch), pa.large_string()))
            old, new = batch.texts.column, after.texts.column
            edited, left = [], []
            keep = np.ones(len(batch), bool)
            for i in np.nonzero(pc.not_equal(old, new).to_numpy(zero_copy_only=False))[0].tolist():
                id, one, other = batch.ids[i].as_py(), old[i].as_py(), new[i].as_py()
                if other.strip():
                    edited.append(Edited(id, one, other))
                else:
                    keep[i] = False
                    left.append(Left(id, name, reason="nothing was left of it"))
            yield SourceBatch(number, after.select(keep), left, edited)


def numbers_of(batch: Batch, field: str) -> npt.NDArray[np.float64]:
    """[n] numbers of a field; not a number where it is missing or none."""
    found = np.full(len(batch), np.nan)
    for i, value in enumerate(batch.field(field)):
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[i] = value
    return found
