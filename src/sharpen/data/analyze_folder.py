"""An analysis in a folder: ``analysis.json``, ``report.html`` and ``statistics.parquet``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, DependencyNotInstalled, storage_errors
from sharpen.core.files import atomic_dir, atomic_write_json
from sharpen.data.analysis_report import as_document, write_analysis
from sharpen.data.analyze import analyze, common_filters
from sharpen.data.ops.barrier import Barrier
from sharpen.data.ops.base import Operator
from sharpen.data.process import load_data_recipe
from sharpen.data.sources import FileSource, Source

__all__ = ["analyze_to", "open_for_analysis"]


def open_for_analysis(
    source: str, *, text_key: str = "text", limit: int | None = None
) -> tuple[Source, list[Operator]]:
    """The rows of a recipe with its operators, or of files with common filters.

    Operators that must know all rows are left out: nothing is dropped in an analysis.

    Args:
        source: a recipe (.yaml), or a file, folder or pattern.
        text_key: where a row's text stands, in files.
        limit: at most so many rows.

    Raises:
        ConfigError: the recipe is wrong.
        MissingFileError: nothing is there.
    """
    if not source.endswith((".yaml", ".yml")):
        return FileSource(source, text_key=text_key, limit=limit), common_filters()
    recipe = load_data_recipe(source, {} if limit is None else {"data.limit": limit})
    operators = [one for one in recipe.dataset.operators if not isinstance(one, Barrier)]
    return recipe.dataset.source, operators


def analyze_to(
    output: Path,
    source: Source,
    operators: Sequence[Operator],
    *,
    keep: float | None = None,
    by: str | None = None,
    on_error: str = "fail",
    workers: int | None = None,
    overwrite: bool = False,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Measure rows and write what was found; see :func:`~sharpen.data.analyze.analyze`.

    The page is left out if plotly is missing.

    Args:
        output: a folder, which must not exist or be empty.
        source: the rows.
        operators: filters to measure, and mappers between them.
        keep: share of the rows for which thresholds are suggested.
        by: a field whose values are compared.
        on_error: ``fail`` or ``skip``.
        workers: threads; default one for each core.
        overwrite: replace what is in the folder.
        on_rows: is told of rows that are done.

    Returns:
        The document of ``analysis.json``.

    Raises:
        ConfigError: the folder holds something, or an argument is out of range.
    """
    if output.exists() and not overwrite and (output.is_file() or any(output.iterdir())):
        raise ConfigError(f"{output} is there already. Choose another folder, or overwrite it.")
    if keep is not None and not 0 < keep <= 1:
        raise ConfigError(f"keep={keep:g} must be above 0 and at most 1.")
    if on_error not in ("fail", "skip"):
        raise ConfigError(f"on_error={on_error!r} must be fail or skip.")
    with storage_errors(output, doing="write"), atomic_dir(output) as folder:
        found = analyze(
            source,
            operators,
            by=by,
            table=folder / "statistics.parquet",
            workers=workers or os.cpu_count() or 1,
            on_error=on_error,
            on_rows=on_rows,
        )
        document = as_document(found, keep)
        document["output"] = str(output)
        try:
            write_analysis(folder / "report.html", document)
            document["report"] = str(output / "report.html")
        except DependencyNotInstalled:
            document["report"] = None
        atomic_write_json(folder / "analysis.json", document)
    return document
