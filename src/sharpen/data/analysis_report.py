"""An analysis as plain data and as a page: distributions, correlations, rows at the thresholds."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.core.config import dump_yaml
from sharpen.core.report import Chart, Section, Series, Table, Text, write_html
from sharpen.data.analyze import Analysis
from sharpen.data.suggest import as_process, by_deviation, by_share

__all__ = ["as_document", "write_analysis"]

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_GROUPS = 12  # values of a field that the page shows


def as_document(analysis: Analysis, keep: float | None = None) -> dict[str, Any]:
    """Plain data, without gaps that JSON cannot hold.

    Args:
        analysis: what was measured.
        keep: share of rows for which thresholds are suggested.
    """
    rows = max(analysis.rows, 1)
    statistics = {}
    for name in analysis.names:
        sketch, bound = analysis.sketches[name], analysis.bounds.get(name)
        edges, shares = sketch.histogram() if sketch.count else (np.zeros(0), np.zeros(0))
        quantiles = sketch.quantile(np.array(_QUANTILES))
        statistics[name] = {
            "count": sketch.count,
            "missing": sketch.missing,
            "mean": _number(sketch.mean),
            "deviation": _number(sketch.deviation),
            "min": _number(sketch.least),
            "max": _number(sketch.greatest),
            "quantiles": {f"{q:g}": _number(v) for q, v in zip(_QUANTILES, quantiles, strict=True)},
            "exact": sketch.is_exact,
            "histogram": {"edges": edges.tolist(), "shares": shares.tolist()},
            "bound": None
            if bound is None
            else {"min": _number(bound.low), "max": _number(bound.high)},
        }
    document: dict[str, Any] = {
        "rows": analysis.rows,
        "rows_left_out": analysis.left,
        "bytes": analysis.bytes,
        "kept_by_all": analysis.kept / rows,
        "dropped_alone": {name: count / rows for name, count in analysis.dropped.items()},
        "statistics": statistics,
        "pearson": _matrix(analysis.pearson()),
        "spearman": _matrix(analysis.spearman()),
        "names": analysis.names,
        "near": {name: near.rows() for name, near in analysis.near.items()},
        "by": {
            word: {
                name: {"count": s.count, "mean": _number(s.mean), "median": _number(_median(s))}
                for name, s in group.items()
            }
            for word, group in analysis.by.items()
        },
        "suggested": {"three_deviations": as_process(by_deviation(analysis))},
    }
    if keep is not None:
        document["suggested"][f"keep_{keep:g}"] = as_process(by_share(analysis, keep))
    return document


def _median(sketch: Any) -> float:
    return float(sketch.quantile(0.5))


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _matrix(values: Any) -> list[list[float | None]]:
    return [[_number(v) for v in row] for row in values.tolist()]


def write_analysis(path: Path, document: dict[str, Any]) -> None:
    """Write the page.

    Raises:
        DependencyNotInstalled: plotly is missing.
    """
    names = document["names"]
    quantiles = [f"{q:g}" for q in _QUANTILES]
    table = Table(
        ["statistic", "mean", "deviation", "min", *quantiles, "max", "dropped alone"],
        [
            [
                name,
                row["mean"],
                row["deviation"],
                row["min"],
                *(row["quantiles"][q] for q in quantiles),
                row["max"],
                document["dropped_alone"].get(name),
            ]
            for name, row in document["statistics"].items()
        ],
    )
    told = (
        f"{document['rows']:,} rows, {document['bytes'] / 1e6:,.1f} MB of text; "
        f"{document['kept_by_all']:.1%} would be kept by all filters."
    )
    sections = [Section("Rows", [Text(told), table])]
    for name, row in document["statistics"].items():
        blocks: list[Text | Table | Chart] = []
        edges, shares = row["histogram"]["edges"], row["histogram"]["shares"]
        if shares:
            middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
            series = [Series("share of rows", middles, shares)]
            blocks.append(Chart(name, series, name, "share of rows", kind="bar"))
        near = document["near"].get(name)
        if near and (near["kept"] or near["dropped"]):
            blocks.append(Text(f"Rows at the threshold ({_bound(row['bound'])}):"))
            blocks.append(
                Table(
                    ["", "id", "value", "text"],
                    [
                        [side, one["id"], one["value"], one["text"]]
                        for side in ("kept", "dropped")
                        for one in near[side]
                    ],
                )
            )
        sections.append(Section(name, blocks))
    if document["by"]:
        sections.append(_groups(document))
    sections.append(
        Section(
            "Correlations of ranks",
            [
                Table(
                    ["", *names],
                    [[n, *row] for n, row in zip(names, document["spearman"], strict=True)],
                )
            ],
        )
    )
    suggested: list[Text | Table | Chart] = []
    for name, process in document["suggested"].items():
        suggested += [Text(name.replace("_", " ")), Text(dump_yaml({"process": process}), True)]
    sections.append(Section("Suggested thresholds", suggested))
    write_html(path, "Analysis of a corpus", sections)


def _bound(bound: dict[str, float | None] | None) -> str:
    ends = [f"{k}={v:g}" for k, v in (bound or {}).items() if v is not None]
    return ", ".join(ends) or "none"


def _groups(document: dict[str, Any]) -> Section:
    """Medians by the value of a field, the largest groups first."""
    names = document["names"]
    groups = sorted(document["by"].items(), key=lambda g: -g[1][names[0]]["count"])[:_GROUPS]
    rows = [
        [word, group[names[0]]["count"], *(group[name]["median"] for name in names)]
        for word, group in groups
    ]
    return Section("By source: medians", [Table(["", "rows", *names], rows)])
