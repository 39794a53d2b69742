"""What operators of images and sounds share: files of a row, and bounds that any or all must hold.

A field of a row names its files: a path, or a list of paths, relative to a folder; or the file
itself as a ``data:`` address (RFC 2397). A row whose file is missing or damaged fails with the
reason; ``on_error`` says what becomes of it. A row without files is kept.
"""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.batch import Batch, Mask
from sharpen.data.ops.base import Filter, Miss, Range, Statistics, one_of

__all__ = ["FileSize", "MediaFilter", "MediaRange", "files_of", "read_file"]

Measured = Mapping[str, float]
"""What is measured of a file, by statistic."""


def files_of(batch: Batch, field: str) -> list[list[str]]:
    """[n] the files that each row names.

    Raises:
        DataError: the field holds something else.
    """
    found = []
    for value in batch.field(field):
        names = [value] if isinstance(value, str) else (value or [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"the field '{field}' must hold paths, not {value!r:.80}.")
        found.append(names)
    return found


def read_file(name: str, folder: str) -> bytes:
    """The bytes of a file that a row names.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    if name.startswith("data:"):
        head, comma, body = name.partition(",")
        try:
            if not comma:
                raise ValueError("it has no comma")
            if head.endswith(";base64"):
                return base64.b64decode(body, validate=True)
            return urllib.parse.unquote_to_bytes(body)
        except (ValueError, binascii.Error) as error:
            raise DataError(f"a data: address is damaged: {error}.") from None
    try:
        return (Path(folder) / name).read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from None


@dataclass(frozen=True, kw_only=True)
class MediaFilter(Filter, ABC):
    """Keeps rows by what is measured of their files."""

    field: str
    """Where the row's files are named."""

    folder: str = "."
    """What relative paths begin at."""

    strategy: Literal["any", "all"] = "any"
    """Whether ``any`` file must lie within the bounds, or ``all``."""

    def __post_init__(self) -> None:
        """Check the strategy and the bounds."""
        for bound in self.bounds:
            if not bound.low <= bound.high:
                raise ConfigError(
                    f"{bound.statistic}: min={bound.low:g} must not be above max={bound.high:g}."
                )
        one_of(self, "strategy", ("any", "all"))

    @abstractmethod
    def measure_file(self, data: bytes, name: str) -> Measured:
        """Statistics of a file.

        Raises:
            DataError: it is damaged.
        """

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`; [n] lists, a number for each file."""
        names = [bound.statistic for bound in self.bounds]
        found = {name: np.empty(len(batch), object) for name in names}
        for i, files in enumerate(files_of(batch, self.field)):
            each = [self.measure_file(read_file(file, self.folder), file) for file in files]
            for name in names:
                found[name][i] = [float(one[name]) for one in each]
        return found

    def _wrong(self, statistics: Statistics, row: int) -> list[Miss | None]:
        """What each file of a row misses."""
        found = []
        number = len(statistics[self.bounds[0].statistic][row])
        for k in range(number):
            values = [(bound, statistics[bound.statistic][row][k]) for bound in self.bounds]
            missed = next(((b, v) for b, v in values if not b.low <= v <= b.high), None)
            found.append(
                Miss(missed[0].statistic, missed[1], missed[0].broken(missed[1]))
                if missed
                else None
            )
        return found

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        held: Callable[[Sequence[bool]], bool] = any if self.strategy == "any" else all
        rows = range(len(statistics[self.bounds[0].statistic]))
        wrong = (self._wrong(statistics, row) for row in rows)
        return np.array([not each or held([one is None for one in each]) for each in wrong], bool)

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`; of the first file that lies outside."""
        return next(one for one in self._wrong(statistics, row) if one is not None)


@dataclass(frozen=True, kw_only=True)
class MediaRange(MediaFilter, Range, ABC):
    """A filter of one statistic of files."""


@dataclass(frozen=True, kw_only=True)
class FileSize(MediaRange, ABC):
    """A filter by the bytes of files."""

    min: float = 0
    """Least bytes."""

    max: float = 1 << 40
    """Most bytes."""

    def measure_file(self, data: bytes, name: str) -> Measured:
        """See :class:`MediaFilter`."""
        return {self.name: len(data)}
