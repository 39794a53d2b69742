"""Two data sets compared, as plain data and as a page: counts, operators, statistics, examples.

How far a statistic moved is the greatest distance of the two shares of rows below a value, the
statistic of Kolmogorov and Smirnov: 0 for equal distributions, 1 for such that do not overlap. It
is exact for up to 10,000 rows a side; beyond, it is looked for at 10,001 quantiles of each side and
off by up to 0.0002.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.core.report import Section, Table, Text, write_html
from sharpen.data.analyze import analyze, common_filters
from sharpen.data.diff.matching import Difference, diff
from sharpen.data.diff.side import Side
from sharpen.data.sketch import Sketch

__all__ = ["compare", "distance", "write_difference"]

_QUANTILES = 10_000


def distance(a: Sketch, b: Sketch) -> float:
    """The statistic of Kolmogorov and Smirnov; NaN where a side has no numbers."""
    if not a.count or not b.count:
        return float("nan")
    grid = np.linspace(0, 1, _QUANTILES + 1)
    found = [one.values() if one.count <= _QUANTILES else one.quantile(grid) for one in (a, b)]
    every = np.unique(np.concatenate(found))
    edges = np.concatenate([every, np.nextafter(every, np.inf)])
    return float(np.abs(a.below(edges) - b.below(edges)).max())


def compare(
    path_a: str,
    path_b: str,
    *,
    key: str | None = None,
    text_key: str = "text",
    examples: int = 5,
    statistics: bool = True,
    workers: int | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Two data sets as one document.

    Args:
        path_a: a folder that ``sharpen data run`` wrote, or a file, folder, pattern or address.
        path_b: the other.
        key: a field by which rows are matched.
        text_key: where a row's text stands.
        examples: of each kind, the first rows.
        statistics: also measure what common filters measure, on all rows of both sides.
        workers: threads for that; default one for each core.
        on_rows: is told of rows that are read.

    Raises:
        MissingFileError: nothing is there.
        DataError: a row without the key.
    """
    sides = Side(path_a, text_key), Side(path_b, text_key)
    found = diff(*sides, key=key, examples=examples, on_rows=on_rows)
    return {
        **_document(found, key),
        "paths": {"a": path_a, "b": path_b},
        "statistics": _moved(*sides, workers or os.cpu_count() or 1) if statistics else [],
    }


def _document(found: Difference, key: str | None) -> dict[str, Any]:
    by = {"field": f"the field '{key}'", "row": "the row of the source", "text": "equal texts"}
    return {
        "matched_by": by[found.by],
        "rows": dict(zip("ab", found.rows, strict=True)),
        "bad": dict(zip("ab", found.bad, strict=True)),
        "same": found.same,
        "other_fields": found.other_fields,
        "edited": found.edited,
        "only": dict(zip("ab", found.only, strict=True)),
        "operators": found.operators,
        "examples": found.examples,
    }


def _moved(a: Side, b: Side, workers: int) -> list[dict[str, Any]]:
    """What common filters measure, those first that moved most."""
    one, other = (
        analyze(side.source, common_filters(), workers=workers, on_error="skip") for side in (a, b)
    )
    rows = []
    for name in one.names or other.names:
        sketches = [side.sketches.get(name, Sketch()) for side in (one, other)]
        rows.append(
            {
                "statistic": name,
                "mean": {side: _plain(s.mean, s) for side, s in zip("ab", sketches, strict=True)},
                "median": {
                    side: _plain(float(s.quantile(0.5)), s)
                    for side, s in zip("ab", sketches, strict=True)
                },
                "distance": _plain(distance(*sketches), *sketches),
            }
        )
    return sorted(rows, key=lambda row: -(row["distance"] or 0.0))


def _plain(value: float, *sketches: Sketch) -> float | None:
    return value if all(one.count for one in sketches) else None


def write_difference(path: Path, document: dict[str, Any]) -> None:
    """Write the page.

    Raises:
        DependencyNotInstalled: plotly is missing.
    """
    rows, only, paths = document["rows"], document["only"], document["paths"]
    counts = Table(
        ("", "rows"),
        [
            ["A", rows["a"]],
            ["B", rows["b"]],
            ["same text", document["same"]],
            ["same text, another field differs", document["other_fields"]],
            ["edited", document["edited"]],
            ["only in A", only["a"]],
            ["only in B", only["b"]],
        ],
    )
    sections = [Section("Rows", [Text(f"Matched by {document['matched_by']}."), counts])]
    if document["operators"]:
        keys = ("what", "side", "operator", "rows")
        told = [[one[name] for name in keys] for one in document["operators"]]
        sections.append(Section("Operators", [Table(("", "by the run of", *keys[2:]), told)]))
    if document["statistics"]:
        columns = ("statistic", "mean A", "mean B", "median A", "median B", "distance")
        told = [
            [
                one["statistic"],
                *(one[kind][side] for kind in ("mean", "median") for side in "ab"),
                one["distance"],
            ]
            for one in document["statistics"]
        ]
        sections.append(Section("Statistics", [Table(columns, told)]))
    titles = {
        "only_a": "Only in A",
        "only_b": "Only in B",
        "edited": "Edited",
        "other_fields": "Other fields",
    }
    for kind, title in titles.items():
        shown = document["examples"][kind]
        if shown:
            names = tuple(shown[0])
            table = Table(names, [[one[name] for name in names] for one in shown])
            sections.append(Section(title, [table]))
    write_html(path, "Difference", sections, subtitle=f"A: {paths['a']}, B: {paths['b']}")
