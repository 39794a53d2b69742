"""Rows of a recipe's source as they lie there: of files, of an asset, drawn, or of several mixed.

A mix with weights w_1 ... w_m gives the j-th row (from 0) of source i the time (j + 1/2) / w_i and
takes rows in the order of their times, at equal ones in the order of the sources (stride
scheduling: Waldspurger and Weihl, MIT, 1995). With p_i = w_i / (w_1 + ... + w_m), of the first n
rows, for every n, n p_i +- (1 + m p_i) / 2 are of source i; nothing is drawn. The mix ends where a
source has no row when its turn comes; what is left of the others is not read. Without weights one
source follows the other.

Rows that cannot be read take no turn: they are passed on as they are met. In memory is one row of
each source.
"""

from __future__ import annotations

import heapq
import logging
import platform
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sharpen.core.assets import asset_path
from sharpen.core.files import sha256_file
from sharpen.core.stage import resolve_path
from sharpen.data.config import SourceConfig
from sharpen.data.finding import File, expanded, is_pattern, matching_files
from sharpen.data.readers import Located, locate_file
from sharpen.data.remote import RemoteFile, is_address
from sharpen.data.stdlib import docstring_examples, stdlib_texts

__all__ = [
    "AssetRows",
    "DrawnRows",
    "FileRows",
    "MixedRows",
    "Rows",
    "open_rows",
    "resolve_source",
    "turns",
]

_log = logging.getLogger(__name__)


class Rows(Protocol):
    """Rows, each with the place it lies at; the same ones in the same order each time."""

    def fingerprint(self) -> Any:
        """Plain data that changes when the rows do."""

    def located(self) -> Iterator[Located]:
        """Every row, those that cannot be read among them."""


@dataclass(frozen=True)
class FileRows:
    """Rows of files, one after the other."""

    files: Sequence[File]

    def fingerprint(self) -> Any:
        """See :class:`Rows`."""
        return [
            file.version() if isinstance(file, RemoteFile) else [file.name, sha256_file(file)]
            for file in self.files
        ]

    def located(self) -> Iterator[Located]:
        """See :class:`Rows`."""
        for file in self.files:
            yield from locate_file(file)


@dataclass(frozen=True)
class AssetRows:
    """Rows of a corpus that is installed.

    Args:
        asset: its name.
        view: ``docstrings`` or ``text``.

    Raises:
        AssetNotInstalled: it is not there.
    """

    asset: str
    view: str

    def __post_init__(self) -> None:
        """Check that it is there."""
        asset_path(self.asset)

    def fingerprint(self) -> Any:
        """See :class:`Rows`."""
        version = [platform.python_version(), platform.python_implementation()]
        return [self.asset, self.view, *version]

    def located(self) -> Iterator[Located]:
        """See :class:`Rows`."""
        view = docstring_examples if self.view == "docstrings" else stdlib_texts
        for row in view(asset_path(self.asset)):
            yield row["module"], row, None, None


@dataclass(frozen=True)
class DrawnRows:
    """At most so many rows of others: the first, or a draw, which reads them twice.

    A draw is of equal chance for all sets of ``count`` rows, which keep their order; 8 bytes each
    are in memory.
    """

    rows: Rows
    count: int
    seed: int | None = None

    def fingerprint(self) -> Any:
        """See :class:`Rows`."""
        return [self.rows.fingerprint(), self.count, self.seed]

    def located(self) -> Iterator[Located]:
        """See :class:`Rows`; rows that cannot be read are passed on and not counted."""
        wanted: Iterator[int] = iter(range(self.count))
        if self.seed is not None:
            size = sum(error is None for _, _, error, _ in self.rows.located())
            chosen = random.Random(self.seed).sample(range(size), min(self.count, size))
            wanted = iter(sorted(chosen))
        number, target = 0, next(wanted, None)
        for one in self.rows.located():
            if target is None:
                return
            if one[2] is not None:
                yield one
                continue
            if number == target:
                yield one
                target = next(wanted, None)
            number += 1


@dataclass(frozen=True, slots=True)
class Part:
    """A source of a mix."""

    name: str
    rows: Rows
    weight: float | None
    text_key: str


@dataclass(frozen=True)
class MixedRows:
    """Rows of several sources: mixed by weights, or one source after the other."""

    parts: Sequence[Part]

    text_key: str
    """Where the texts come out."""

    column: str | None
    """The field that says which source a row is of."""

    def fingerprint(self) -> Any:
        """See :class:`Rows`."""
        parts = [[p.name, p.weight, p.text_key, p.rows.fingerprint()] for p in self.parts]
        return [parts, self.text_key, self.column]

    def located(self) -> Iterator[Located]:
        """See :class:`Rows`."""
        if self.parts[0].weight is None:
            for part in self.parts:
                yield from (self._of(part, one) for one in part.rows.located())
            return
        sources = [part.rows.located() for part in self.parts]
        taken = [0] * len(sources)
        for i in turns([part.weight or 0.0 for part in self.parts]):
            part = self.parts[i]
            for one in sources[i]:
                found = self._of(part, one)
                yield found
                if found[2] is None:
                    break
            else:
                told = ", ".join(
                    f"{n} of '{p.name}'" for n, p in zip(taken, self.parts, strict=True)
                )
                _log.info("the mix ends with the rows of '%s': %s.", part.name, told)
                return
            taken[i] += 1

    def _of(self, part: Part, one: Located) -> Located:
        """A row with its text where the mix has it, and the name of its source."""
        where, row, error, raw = one
        if error is None and part.text_key != self.text_key:
            error = _move(row, part.text_key, self.text_key)
        if error is None and self.column is not None:
            if self.column in row:
                error = (
                    f"there is a field '{self.column}' already; name another with source.column, "
                    "or null."
                )
            row[self.column] = part.name
        return where, row, error, raw


def _move(row: dict[str, Any], key: str, target: str) -> str | None:
    """Move a text of a row; what is wrong is told. ``a.b`` is ``b`` of the object ``a``."""
    inner: Any = row
    *parents, last = [key] if key in row else key.split(".")
    for parent in parents:
        inner = inner.get(parent) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or last not in inner:
        return f"the key '{key}' is missing; found: {', '.join(map(str, row)) or 'none'}."
    if target in row:
        return f"'{key}' is to come out as '{target}', and there is one already."
    row[target] = inner.pop(last)
    return None


def turns(weights: Sequence[float]) -> Iterator[int]:
    """Whose turn it is, without end: see the module.

    Args:
        weights: above 0.
    """
    heap = [(0.5 / weight, i, 0) for i, weight in enumerate(weights)]
    heapq.heapify(heap)
    while True:
        _, i, j = heap[0]
        yield i
        heapq.heapreplace(heap, ((j + 1.5) / weights[i], i, j + 1))


def open_rows(config: SourceConfig, folder: Path | None) -> Rows:
    """The rows of a recipe's source.

    Args:
        config: of the source.
        folder: of the recipe; paths start at the working folder, else there.

    Raises:
        MissingFileError: nothing is there.
        DataError: a file of an unknown kind.
        AssetNotInstalled: the asset is not there.
    """
    if config.mix:
        parts = [
            Part(one.label, open_rows(one, folder), one.weight, one.text_key) for one in config.mix
        ]
        return MixedRows(parts, config.text_key, config.column)
    rows: Rows
    if config.asset is not None:
        rows = AssetRows(config.asset, config.view)
    else:
        assert config.path is not None
        rows = FileRows(matching_files(resolve_source(config.path, folder)))
    return rows if config.max_samples is None else DrawnRows(rows, config.max_samples, config.seed)


def resolve_source(path: str, folder: Path | None) -> str | Path:
    """A path or pattern against the working folder, else against another; addresses as they are.

    Raises:
        MissingFileError: a path without a pattern is in neither.
    """
    if is_address(path):
        return path
    if is_pattern(path):
        here = Path(path)
        if (
            folder is not None
            and not here.is_absolute()
            and not any(any(Path().glob(one)) for one in expanded(path))
        ):
            return folder / here
        return here
    return resolve_path(path, folder)
