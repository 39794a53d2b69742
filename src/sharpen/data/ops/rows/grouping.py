"""Groupers: one row of all rows that agree in some fields, with what is to be told of the group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.data.batch import Batch, Left, SourceBatch
from sharpen.data.corpus import Corpus
from sharpen.data.ops.barrier import Barrier
from sharpen.data.ops.base import at_least, operator

__all__ = ["AGGREGATES", "GroupBy"]

_ROWS = 1024  # groups of a batch


def _numbers(values: list[Any]) -> list[float]:
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


AGGREGATES: Mapping[str, Callable[[list[Any]], Any]] = {
    "count": lambda values: sum(v is not None for v in values),
    "sum": lambda values: sum(_numbers(values)),
    "mean": lambda values: float(np.mean(_numbers(values))) if _numbers(values) else None,
    "min": lambda values: min(_numbers(values), default=None),
    "max": lambda values: max(_numbers(values), default=None),
    "first": lambda values: next((v for v in values if v is not None), None),
    "list": list,
    "distinct": lambda values: list({orjson.dumps(v): v for v in values if v is not None}.values()),
    "most_frequent": lambda values: _most_frequent(values),
}
"""What can be told of the values of a group, by name."""


def _most_frequent(values: list[Any]) -> Any:
    counts = Counter(orjson.dumps(v) for v in values if v is not None)
    return orjson.loads(max(counts, key=lambda v: counts[v])) if counts else None


@operator("group_by")
@dataclass(frozen=True, kw_only=True)
class GroupBy(Barrier):
    """Makes one row of all rows with equal values in some fields; their texts are joined.

    The row is the group's first one; the others go, with its id in the trace. Groups stand in the
    order of their first rows.
    """

    kind: ClassVar[str] = "grouper"

    by: tuple[str, ...] = ()
    """Paths of the fields; with none, all rows are one group."""

    separator: str = "\n\n"
    """Between the texts."""

    most: int | None = None
    """Rows of a group at most; what is left over begins another."""

    aggregate: Mapping[str, str] = field(default_factory=dict)
    """New fields, each ``how: path`` of the group's values: count, sum, mean, min, max, first,
    list, distinct or most_frequent, such as ``{words: "sum:meta.words"}``."""

    def __post_init__(self) -> None:
        """Check the arguments."""
        at_least(self, 1, "most")
        for name, told in self.aggregate.items():
            how, colon, path = told.partition(":")
            if how not in AGGREGATES or not colon or not path:
                raise ConfigError(
                    f"aggregate.{name}={told!r} must be 'how:path'.{did_you_mean(how, AGGREGATES)} "
                    f"How: {', '.join(AGGREGATES)}."
                )

    def keys(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Barrier`."""
        columns = [batch.field(path) for path in self.by]
        rows = zip(*columns, strict=True) if columns else iter([()] * len(batch))
        found = [orjson.dumps(row, default=str, option=orjson.OPT_SORT_KEYS) for row in rows]
        return {"group": pa.array(found, pa.large_binary())}

    def pass_on(self, rows: Corpus, name: str) -> Iterator[SourceBatch]:
        """See :class:`Barrier`."""
        groups: list[list[int]] = []
        open_groups: dict[bytes, list[int]] = {}
        number = 0
        for array in rows.arrays("group"):
            for key in array.to_pylist():
                members = open_groups.get(key)
                if members is None or len(members) == self.most:
                    members = open_groups[key] = []
                    groups.append(members)
                members.append(number)
                number += 1
        for part, start in enumerate(range(0, len(groups), _ROWS)):
            yield self._batch(rows, groups[start : start + _ROWS], part, name)

    def _batch(self, rows: Corpus, groups: list[list[int]], part: int, name: str) -> SourceBatch:
        flat = np.array([row for group in groups for row in group], np.int64)
        members = Batch(rows.take(flat))
        ids, texts = members.ids.to_pylist(), members.texts.strings
        told: dict[str, list[Any]] = {new: [] for new in self.aggregate}
        columns = {new: members.field(how.partition(":")[2]) for new, how in self.aggregate.items()}
        joined, first, left = [], [], []
        place = 0
        for group in groups:
            mine = slice(place, place + len(group))
            first.append(place)
            joined.append(self.separator.join(texts[mine]))
            left += [
                Left(id, name, kept_id=ids[place], reason="joined to another row")
                for id in ids[mine][1:]
            ]
            for new, how in self.aggregate.items():
                told[new].append(AGGREGATES[how.partition(":")[0]](columns[new][mine]))
            place += len(group)
        heads = Batch(members.table.take(pa.array(first)))
        made = heads.with_texts(pa.array(joined, pa.large_string()))
        return SourceBatch(part, made.with_fields(told) if told else made, left)
