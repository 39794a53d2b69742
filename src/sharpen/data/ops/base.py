"""Operators: what a step of a data recipe does with a batch of rows.

=============  =======================================================================
filter         measures statistics and keeps the rows whose values are allowed
mapper         edits each text
annotator      adds fields to rows
splitter       makes several rows of one
=============  =======================================================================

Those that must know all rows are in :mod:`sharpen.data.ops.barrier`.

An operator is a frozen dataclass under a name; its fields are its arguments, in Python and in a
recipe. What it does with a batch depends on the batch and its arguments alone, so that batches can
be of any size and go through in any order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.config import from_dict, to_dict
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.data.batch import Batch, Mask

__all__ = [
    "Annotator",
    "Bound",
    "Filter",
    "Mapper",
    "Miss",
    "OneOf",
    "Operator",
    "Range",
    "Splitter",
    "at_least",
    "make_operator",
    "one_of",
    "operator",
    "operator_names",
    "operator_type",
]

Statistics = Mapping[str, npt.NDArray[Any]]
T = TypeVar("T", bound="type[Operator]")
_known: dict[str, type[Operator]] = {}


@dataclass(frozen=True, slots=True)
class Bound:
    """What a statistic must be, ends included."""

    statistic: str
    low: float = -math.inf
    high: float = math.inf

    def broken(self, value: float) -> str:
        """What ``value`` misses, ``min=..`` or ``max=..``; NaN misses the first bound there is."""
        if self.low > -math.inf and not value >= self.low:
            return f"min={self.low:g}"
        return f"max={self.high:g}"


@dataclass(frozen=True, slots=True)
class Miss:
    """Why a filter dropped a row, as it stands in the trace."""

    statistic: str
    """What was measured."""

    value: float | None = None
    """What it came to, if it is a number."""

    threshold: str | None = None
    """What it missed: ``min=10``."""

    reason: str | None = None
    """What a number cannot say."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A step; see the kinds below it."""

    name: ClassVar[str] = ""
    """As in a recipe."""

    kind: ClassVar[str] = ""

    version: ClassVar[int] = 1
    """Raised when the same arguments come to another result, so that nothing old is reused."""

    pays: ClassVar[bool] = False
    """Whether each row costs, as calls of language models do. It keeps its place among filters, is
    not measured ahead, and sees no row that goes anyway."""

    def describe(self) -> dict[str, Any]:
        """What decides its result: name, version and arguments, as plain data."""
        arguments = {
            key: str(value) if value in (math.inf, -math.inf) else value
            for key, value in to_dict(self).items()
        }
        return {"op": self.name, "version": self.version, **arguments}


@dataclass(frozen=True, kw_only=True)
class Filter(Operator, ABC):
    """Keeps rows by what is measured of them; most say it by ``bounds`` alone."""

    kind: ClassVar[str] = "filter"

    @property
    def bounds(self) -> Sequence[Bound]:
        """What must hold; the first that does not is the reason."""
        return ()

    @abstractmethod
    def measure(self, batch: Batch) -> Statistics:
        """[n] values by the name of the statistic."""

    def keep(self, statistics: Statistics) -> Mask:
        """[n] which rows lie within all bounds; not a number lies within none."""
        held = [
            (statistics[b.statistic] >= b.low) & (statistics[b.statistic] <= b.high)
            for b in self.bounds
        ]
        return np.logical_and.reduce(held)  # type: ignore[no-any-return]

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """Why a row that is not kept is not."""
        bound = next(b for b in self.bounds if not b.low <= statistics[b.statistic][row] <= b.high)
        value = float(statistics[bound.statistic][row])
        return Miss(bound.statistic, value, bound.broken(value))


@dataclass(frozen=True, kw_only=True)
class Range(Filter, ABC):
    """A filter of one statistic between two bounds, ends included."""

    min: float = -math.inf
    """Least value to keep."""

    max: float = math.inf
    """Greatest value to keep."""

    def __post_init__(self) -> None:
        """Check the order."""
        if not self.min <= self.max:
            raise ConfigError(f"min={self.min:g} must not be above max={self.max:g}.")

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        return (Bound(self.name, self.min, self.max),)


@dataclass(frozen=True, kw_only=True)
class OneOf(Filter, ABC):
    """A filter of a word that must be one of some; ``measure`` gives one array of objects."""

    @property
    @abstractmethod
    def allowed(self) -> Collection[Any]:
        """The words."""

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        allowed = self.allowed
        return np.array([value in allowed for value in statistics[self.name]], bool)

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`."""
        words = ", ".join(map(str, self.allowed))
        return Miss(self.name, None, f"one of: {words}", f"it is {statistics[self.name][row]}")


@dataclass(frozen=True, kw_only=True)
class Annotator(Operator, ABC):
    """Adds fields to rows, or replaces them."""

    kind: ClassVar[str] = "annotator"

    @abstractmethod
    def annotate(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        """[n] values, such as JSON holds, by the path of the field (``a.b`` inside ``a``)."""


@dataclass(frozen=True, kw_only=True)
class Mapper(Operator, ABC):
    """Edits each text."""

    kind: ClassVar[str] = "mapper"

    @abstractmethod
    def edit(self, batch: Batch) -> pa.Array:
        """[n] strings, in the order of the rows."""


@dataclass(frozen=True, kw_only=True)
class Splitter(Operator, ABC):
    """Makes any number of rows of one."""

    kind: ClassVar[str] = "splitter"

    @abstractmethod
    def split(self, batch: Batch) -> Sequence[Sequence[str]]:
        """[n] the texts of the rows made of each."""


def at_least(one: Operator, least: int, *names: str) -> None:
    """Check arguments of an operator; those that are None are not given.

    Raises:
        ConfigError: one is less.
    """
    for name in names:
        value = getattr(one, name)
        if value is not None and value < least:
            raise ConfigError(f"{name}={value} must be at least {least}.")


def one_of(one: Operator, name: str, known: Collection[str]) -> None:
    """Check an argument of an operator.

    Raises:
        ConfigError: it is none of the known words.
    """
    value = getattr(one, name)
    if value not in known:
        raise ConfigError(f"{name}={value!r} must be one of {', '.join(known)}.")


def operator(name: str) -> Callable[[T], T]:
    """Make a frozen dataclass known under a name."""

    def register(kind: T) -> T:
        if name in _known:
            raise ConfigError(f"there is an operator '{name}' already.")
        kind.name = name
        _known[name] = kind
        return kind

    return register


def operator_names() -> list[str]:
    """Sorted."""
    return sorted(_known)


def operator_type(name: str) -> type[Operator]:
    """The operator of a name.

    Raises:
        ConfigError: none has it; the message names the nearest.
    """
    if name not in _known:
        raise ConfigError(
            f"there is no operator '{name}'.{did_you_mean(name, _known)} `sharpen data ops` "
            "lists them."
        )
    return _known[name]


def make_operator(name: str, arguments: Mapping[str, Any]) -> Operator:
    """An operator from a recipe's words.

    Raises:
        ConfigError: an unknown name or argument, or a value out of range.
    """
    kind = operator_type(name)
    try:
        return from_dict(kind, dict(arguments))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
