"""What the sources of a recipe hold, before anything is done: fields, their types, and bad rows.

Every row is read, as ``sharpen data run`` would read it, and nothing is written. Of rows that
cannot be read the first five are told with the place they lie at and the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from sharpen.data.batch import FIELDS, ID, TEXT, Batch
from sharpen.data.config import SourceConfig
from sharpen.data.process import load_data_recipe, open_source
from sharpen.data.sources import Source

__all__ = ["SourceReport", "lint", "sources_of"]

_BAD = 5  # rows that cannot be read, of which the place and the reason are told
_FIELDS = 1000  # names of fields that are counted
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (str, "text"),
    (int, "integer"),
    (float, "number"),
    (list, "list"),
    (dict, "object"),
)


@dataclass(slots=True)
class SourceReport:
    """What a source holds."""

    name: str
    weight: float | None = None

    rows: int = 0
    """That can be read."""

    bad: int = 0
    """That cannot."""

    characters: int = 0
    """Of the texts."""

    first_bad: list[str] = field(default_factory=list)
    """The places of the first of them, and the reasons."""

    fields: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows in which a field holds a type, by the field's name and the type's."""

    def read(self, source: Source, on_rows: Callable[[int], None] = lambda rows: None) -> None:
        """Read all rows."""
        counts: dict[str, Counter[str]] = {}
        for one in source:
            self.bad += len(one.left)
            told = [left.reason or "" for left in one.left]
            self.first_bad += told[: _BAD - len(self.first_bad)]
            self.rows += len(one.rows)
            lengths = pa.compute.utf8_length(one.rows.table.column(TEXT))
            self.characters += pa.compute.sum(lengths).as_py() or 0
            _count_fields(one.rows, source.text_key, counts)
            on_rows(len(one.rows) + len(one.left))
        self.fields = {name: dict(found.most_common()) for name, found in counts.items()}


def _count_fields(batch: Batch, text_key: str, counts: dict[str, Counter[str]]) -> None:
    """Count the types of the fields of some rows."""
    if FIELDS not in batch.table.schema.names:
        for kind, column in zip(batch.table.schema, batch.table.columns, strict=True):
            if kind.name != ID:
                name = text_key if kind.name == TEXT else kind.name
                found = counts.setdefault(name, Counter())
                found[str(kind.type)] += len(column) - column.null_count
                found["null"] += column.null_count
        return
    for row in batch.fields:
        for name, value in row.items():
            if name not in counts and len(counts) >= _FIELDS:
                continue
            kind = "text" if name == text_key else _type(value)
            counts.setdefault(name, Counter())[kind] += 1


def _type(value: Any) -> str:
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "null")


def sources_of(source: str, *, text_key: str = "text") -> tuple[list[SourceConfig], Path | None]:
    """The sources of a recipe (.yaml), which is checked, or of a file, a folder or a pattern.

    Returns:
        Them, and the folder at which their paths start, too.

    Raises:
        ConfigError: the recipe is wrong.
        MissingFileError: nothing is there.
    """
    if not source.endswith((".yaml", ".yml")):
        return [SourceConfig(path=source, text_key=text_key)], None
    config = load_data_recipe(source).config.source
    return list(config.mix) or [config], Path(source).absolute().parent


def lint(
    sources: Iterable[SourceConfig],
    folder: Path | None = None,
    *,
    limit: int | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[SourceReport]:
    """Read all sources.

    Args:
        sources: none of them a mix.
        folder: at which paths start that are not in the working folder.
        limit: at most so many rows of each.
        on_rows: is told of rows that are read.

    Raises:
        MissingFileError: nothing is there.
    """
    found = []
    for config in sources:
        report = SourceReport(config.label, config.weight)
        report.read(open_source(config, folder, limit=limit), on_rows)
        found.append(report)
    return found
