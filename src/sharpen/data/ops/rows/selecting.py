"""Selectors: some rows of the whole data set, by a field's rank or frequency, or by a draw.

And ``checkpoint``, which keeps all.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch, Mask
from sharpen.data.ops.barrier import Selector, numbers_of
from sharpen.data.ops.base import Miss, operator

__all__ = [
    "Checkpoint",
    "FrequencySpecifiedField",
    "RandomRows",
    "RangeSpecifiedField",
    "TopkSpecifiedField",
]

_Chosen = tuple[Mask, Callable[[int], Miss]]


@dataclass(frozen=True, kw_only=True)
class _Some(Selector, ABC):
    """A selector of so many: a share, a number, or the lesser of both."""

    ratio: float | None = None
    """Share of what there is to choose from, 0 to 1."""

    count: int | None = None
    """How many at most; with both the lesser."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.ratio is None and self.count is None:
            raise ConfigError("give ratio, count, or both.")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ConfigError(f"ratio={self.ratio:g} must be from 0 to 1.")
        if self.count is not None and self.count < 0:
            raise ConfigError(f"count={self.count} must not be negative.")

    def _size(self, n: int) -> int:
        wanted = n if self.ratio is None else int(self.ratio * n)
        return wanted if self.count is None else min(wanted, self.count)


@operator("topk_specified_field")
@dataclass(frozen=True, kw_only=True)
class TopkSpecifiedField(_Some):
    """Keeps the rows with the greatest numbers in a field, or the least; of equal ones the first.

    Rows without a number go.
    """

    field: str
    """Path of the field: ``a.b``, or ``stats.name`` for what a filter measured."""

    descending: bool = True
    """Whether the greatest are wanted."""

    def values(self, batch: Batch) -> pa.Array:
        """See :class:`Selector`."""
        return pa.array(numbers_of(batch, self.field))

    def choose(self, values: npt.NDArray[Any]) -> _Chosen:
        """See :class:`Selector`."""
        size = min(self._size(len(values)), int((~np.isnan(values)).sum()))
        order = np.argsort(-values if self.descending else values, kind="stable")  # NaN last
        keep = np.zeros(len(values), bool)
        keep[order[:size]] = True
        which = "greatest" if self.descending else "least"

        def why(row: int) -> Miss:
            return Miss(self.field, float(values[row]), f"one of the {size} {which}")

        return keep, why


@operator("range_specified_field")
@dataclass(frozen=True, kw_only=True)
class RangeSpecifiedField(Selector):
    """Keeps the rows whose number in a field stands between two ranks, least first.

    With n rows, those from ``max(ceil(lower_percentile n), lower_rank)`` to before
    ``min(floor(upper_percentile n), upper_rank)``. Rows without a number go.
    """

    field: str
    """Path of the field: ``a.b``, or ``stats.name`` for what a filter measured."""

    lower_percentile: float = 0.0
    """Share of the rows below, 0 to 1."""

    upper_percentile: float = 1.0
    """Share of the rows up to the end, 0 to 1."""

    lower_rank: int = 0
    """Rows below."""

    upper_rank: int | None = None
    """Rows up to the end."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.lower_percentile <= self.upper_percentile <= 1:
            raise ConfigError(
                f"lower_percentile={self.lower_percentile:g} and "
                f"upper_percentile={self.upper_percentile:g} must be in order, from 0 to 1."
            )
        if self.lower_rank < 0 or (self.upper_rank or 0) < 0:
            raise ConfigError("lower_rank and upper_rank must not be negative.")

    def values(self, batch: Batch) -> pa.Array:
        """See :class:`Selector`."""
        return pa.array(numbers_of(batch, self.field))

    def choose(self, values: npt.NDArray[Any]) -> _Chosen:
        """See :class:`Selector`."""
        n = len(values)
        first = max(math.ceil(self.lower_percentile * n), self.lower_rank)
        last = int(self.upper_percentile * n)
        last = last if self.upper_rank is None else min(last, self.upper_rank)
        order = np.argsort(values, kind="stable")
        keep = np.zeros(n, bool)
        keep[order[first:last]] = True
        keep &= ~np.isnan(values)

        def why(row: int) -> Miss:
            return Miss(self.field, float(values[row]), f"ranks {first} to {last}")

        return keep, why


@operator("frequency_specified_field")
@dataclass(frozen=True, kw_only=True)
class FrequencySpecifiedField(_Some):
    """Keeps the rows with the most frequent values of a field, or the rarest.

    ``ratio`` and ``count`` are of the distinct values; of equally frequent ones the first seen.
    """

    field: str
    """Path of the field: ``a.b``."""

    descending: bool = True
    """Whether the most frequent are wanted."""

    def values(self, batch: Batch) -> pa.Array:
        """See :class:`Selector`."""
        return pa.array([_word(value) for value in batch.field(self.field)], pa.large_string())

    def choose(self, values: npt.NDArray[Any]) -> _Chosen:
        """See :class:`Selector`."""
        counts: dict[Any, int] = {}
        for value in values.tolist():
            counts[value] = counts.get(value, 0) + 1
        ranked = sorted(counts, key=lambda v: -counts[v] if self.descending else counts[v])
        wanted = set(ranked[: self._size(len(ranked))])
        keep = np.array([value in wanted for value in values.tolist()], bool)
        which = "most frequent" if self.descending else "rarest"

        def why(row: int) -> Miss:
            count = float(counts[values[row]])
            return Miss(self.field, count, f"one of the {len(wanted)} {which} values")

        return keep, why


def _word(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


@operator("random_rows")
@dataclass(frozen=True, kw_only=True)
class RandomRows(_Some):
    """Keeps rows drawn at random, the same for the same ids and seed."""

    seed: int = 0
    """Of the draw."""

    def values(self, batch: Batch) -> pa.Array:
        """See :class:`Selector`."""
        drawn = [self._draw(id) for id in batch.ids.to_pylist()]
        return pa.array(np.array(drawn, np.uint64))

    def _draw(self, id: str) -> int:
        data = f"{self.seed}:{id}".encode()
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())

    def choose(self, values: npt.NDArray[Any]) -> _Chosen:
        """See :class:`Selector`."""
        size = self._size(len(values))
        keep = np.zeros(len(values), bool)
        keep[np.argsort(values, kind="stable")[:size]] = True
        return keep, lambda row: Miss("draw", None, f"{size} of {len(values)} rows")


@operator("checkpoint")
@dataclass(frozen=True, kw_only=True)
class Checkpoint(Selector):
    """Keeps all rows; with a cache, other recipes that begin alike go on from here."""

    def values(self, batch: Batch) -> pa.Array:
        """See :class:`Selector`: nothing."""
        return pa.nulls(len(batch), pa.int8())

    def choose(self, values: npt.NDArray[Any]) -> _Chosen:
        """See :class:`Selector`: all."""
        return np.ones(len(values), bool), lambda row: Miss(self.name)
