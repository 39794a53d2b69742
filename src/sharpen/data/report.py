"""A page of what a run did to its rows: by operator, and examples of why rows went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.core.report import Chart, Section, Table, Text, write_html
from sharpen.data.trace import Tally, dropped_rows

__all__ = ["COLUMNS", "operator_rows", "write_report"]

_EXAMPLES = 5  # dropped rows of an operator
COLUMNS = ("operator", "rows in", "rows out", "dropped", "edited", "failed", "seconds")


def operator_rows(operators: Mapping[str, Tally]) -> list[list[Any]]:
    """A table's rows: what each operator did, in the order in which they ran."""
    return [
        [name, t.rows_in, t.rows_out, t.dropped, t.edited, t.failed, round(t.seconds, 3)]
        for name, t in operators.items()
    ]


def write_report(folder: Path, counted: Mapping[str, int], operators: Mapping[str, Tally]) -> None:
    """Write ``report.html`` into a folder of results.

    Args:
        folder: with ``trace/`` if one was written.
        counted: ``rows_in``, ``rows_made``, ``rows_out``, ``dropped`` and ``edited``.
        operators: what each did.
    """
    made = f" and {counted['rows_made']:,} made by splitting" if counted["rows_made"] else ""
    share = counted["rows_out"] / max(counted["rows_in"] + counted["rows_made"], 1)
    whole = (
        f"{counted['rows_in']:,} rows were read{made}; {counted['rows_out']:,} are left "
        f"({share:.1%}), {counted['dropped']:,} were dropped. {counted['edited']:,} edits."
    )
    blocks: list[Text | Table | Chart] = [Text(whole), Table(COLUMNS, operator_rows(operators))]
    if not counted["rows_out"]:
        worst = max(operators, key=lambda name: operators[name].dropped, default="read")
        blocks.append(Text(f"No row is left. Most were dropped by '{worst}'."))
    sections = [Section("Rows", blocks)]
    if (folder / "trace").is_dir():
        sections.append(Section("Why rows went", [_examples(folder / "trace")]))
    write_html(folder / "report.html", "Data", sections, subtitle="seconds are those of threads")


def _examples(folder: Path) -> Table:
    """The first dropped rows of each operator."""
    seen: dict[str, int] = {}
    rows = []
    for row in dropped_rows(folder):
        seen[row["operator"]] = seen.get(row["operator"], 0) + 1
        if seen[row["operator"]] <= _EXAMPLES:
            rows.append(row)
    columns = ("operator", "id", "statistic", "value", "threshold", "kept_id", "reason")
    rows.sort(key=lambda row: list(seen).index(row["operator"]))
    return Table(columns, [[row[name] for name in columns] for row in rows])
