"""Filters by the other fields of a row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.data.batch import STATISTICS, TEXT, Batch, Mask
from sharpen.data.ops.base import Filter, Miss, OneOf, Range, Statistics, operator
from sharpen.data.ops.filters.expressions import parse_condition

__all__ = [
    "FieldsEqual",
    "GeneralField",
    "RequiredFields",
    "SpecifiedField",
    "SpecifiedNumericField",
    "Suffix",
]


def _objects(values: Collection[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    found = np.empty(len(values), object)
    for i, value in enumerate(values):
        found[i] = value
    return found


@operator("suffix")
@dataclass(frozen=True, kw_only=True)
class Suffix(OneOf):
    """Keeps rows that came from files with one of some suffixes."""

    suffixes: tuple[str, ...]
    """Such as ``.txt`` or ``txt``, in lower case."""

    field: str = "path"
    """Where the row's file name, or its suffix alone, stands."""

    @property
    def allowed(self) -> Collection[Any]:
        """See :class:`OneOf`."""
        return [f".{suffix.lstrip('.').lower()}" for suffix in self.suffixes]

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: _objects([_suffix(value) for value in batch.field(self.field)])}


def _suffix(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    found = PurePosixPath(value).suffix or f".{value.lstrip('.')}"
    return found.lower()


@operator("specified_field")
@dataclass(frozen=True, kw_only=True)
class SpecifiedField(Filter):
    """Keeps rows whose field is one of some values; of a list, every one must be."""

    field: str
    """Path of the field; ``a.b`` is ``b`` of the object ``a``."""

    values: tuple[str | float | bool, ...]
    """What it may be."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`; what is not allowed, as a text."""
        return {self.name: _objects([self._wrong(value) for value in batch.field(self.field)])}

    def _wrong(self, value: Any) -> str | None:
        every = value if isinstance(value, list) else [value]
        return next((str(one) for one in every if one not in self.values), None)

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        return np.array([value is None for value in statistics[self.name]], bool)

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`."""
        values = ", ".join(map(str, self.values))
        reason = f"{self.field} is {statistics[self.name][row]}"
        return Miss(self.name, None, f"one of: {values}", reason)


@operator("specified_numeric_field")
@dataclass(frozen=True, kw_only=True)
class SpecifiedNumericField(Range):
    """Keeps rows whose field is a number, or a text of one, between two bounds."""

    field: str
    """Path of the field; ``a.b`` is ``b`` of the object ``a``."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: np.array([_number(v) for v in batch.field(self.field)], np.float64)}


def _number(value: Any) -> float:
    try:
        return math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


@operator("required_fields")
@dataclass(frozen=True, kw_only=True)
class RequiredFields(Filter):
    """Keeps rows that have all of some fields, of the right types."""

    fields: tuple[str, ...]
    """Paths of fields that must be there and not null."""

    types: Mapping[str, str] | None = None
    """Types of fields: ``string``, ``number``, ``boolean``, ``list`` or ``object``."""

    def __post_init__(self) -> None:
        """Check the names of types."""
        for field, kind in (self.types or {}).items():
            if kind not in _TYPES:
                raise ConfigError(f"types.{field}={kind!r} must be one of {', '.join(_TYPES)}.")

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        wrong: list[str | None] = [None] * len(batch)
        types = self.types or {}
        for field in dict.fromkeys((*self.fields, *types)):
            for i, value in enumerate(batch.field(field)):
                if wrong[i] is not None:
                    continue
                if value is None and field in self.fields:
                    wrong[i] = f"{field} is missing"
                elif value is not None and field in types and not _is(value, types[field]):
                    wrong[i] = f"{field} is no {types[field]}"
        return {self.name: _objects(wrong)}

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        return np.array([value is None for value in statistics[self.name]], bool)

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`."""
        return Miss(self.name, reason=statistics[self.name][row])


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
}


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")


@operator("fields_equal")
@dataclass(frozen=True, kw_only=True)
class FieldsEqual(Filter):
    """Drops rows in which two fields say the same, such as a question and its answer."""

    first: str
    """Path of a field."""

    second: str = "text"
    """Path of another; ``text`` is the text."""

    keep_equal: bool = False
    """Keep those rows, and drop the others."""

    ignore_case: bool = False
    """Take upper and lower case for equal."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        pairs = zip(self._values(batch, self.first), self._values(batch, self.second), strict=True)
        return {self.name: np.array([float(a == b) for a, b in pairs], np.float64)}

    def _values(self, batch: Batch, field: str) -> list[Any]:
        found = batch.texts.strings if field == "text" else batch.field(field)
        plain = [value.strip() if isinstance(value, str) else value for value in found]
        if not self.ignore_case:
            return plain
        return [value.lower() if isinstance(value, str) else value for value in plain]

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        return np.equal(statistics[self.name], float(self.keep_equal))

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`."""
        word = "not equal" if self.keep_equal else "equal"
        reason = f"{self.first} and {self.second} are {word}"
        return Miss(self.name, float(statistics[self.name][row]), reason=reason)


@operator("general_field")
@dataclass(frozen=True, kw_only=True)
class GeneralField(Filter):
    """Keeps rows for which a condition over fields holds.

    ``text`` and ``id`` are the row's own; ``stats.NAME`` is what a filter before this one measured,
    if statistics are kept.
    """

    condition: str
    """Such as ``10 < num <= 30 and meta.language == 'en'``;
    :mod:`~sharpen.data.ops.filters.expressions` says what may stand there."""

    def __post_init__(self) -> None:
        """Check the condition."""
        parse_condition(self.condition)

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        condition = parse_condition(self.condition)
        columns: dict[str, list[Any]] = {}

        def column(path: str) -> list[Any]:
            if path not in columns:
                own = {"text": TEXT, "id": "_id"}.get(path, path.replace("stats.", STATISTICS, 1))
                known = own in batch.table.schema.names
                columns[path] = batch.table.column(own).to_pylist() if known else batch.field(path)
            return columns[path]

        held = [bool(condition(lambda path, i=i: column(path)[i])) for i in range(len(batch))]  # type: ignore[misc]
        return {self.name: np.array(held, np.float64)}

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        return np.equal(statistics[self.name], 1.0)

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`."""
        return Miss(self.name, reason=f"not: {self.condition}")
