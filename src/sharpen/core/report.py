"""The one report writer, for runs and studies: one self-contained HTML file, plotly embedded.

A report is a title and a list of sections; a section is a list of blocks: text, tables, charts.
The file embeds its own script, so it opens without a network.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sharpen.core.errors import DependencyNotInstalled
from sharpen.core.files import atomic_write_text

__all__ = [
    "Chart",
    "Picture",
    "Section",
    "Series",
    "Table",
    "Text",
    "format_value",
    "shorten",
    "visible",
    "write_html",
]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, or preformatted text such as code."""

    text: str
    preformatted: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of plain values under column titles."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line, bar group or point cloud of a chart; NaN values leave a gap."""

    name: str
    x: Sequence[Any]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with labelled axes; give units in the labels."""

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    kind: Literal["line", "bar", "scatter"] = "line"
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing: an ``<svg>`` element, which is put into the page as it is."""

    svg: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Text | Table | Chart | Picture]


def format_value(value: Any) -> str:
    """A value as people read it: 4 significant digits, thousands grouped."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        if value == 0 or 1e-3 <= abs(value) < 1e6:
            return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        return f"{value:.3e}"
    return str(value)


_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LONG_CELL = 60
_SMALL = 1e-2  # below it a power of ten says more than "m" or "µ"


def visible(text: str) -> str:
    r"""Text whose control characters, marks of direction and lone surrogates can be seen.

    >>> visible("red \x1b[31m, a null \0")
    'red ␛[31m, a null ␀'
    """

    def shown(found: re.Match[str]) -> str:
        code = ord(found[0])
        if code < 0x20:
            return chr(0x2400 + code)
        return "␡" if code == 0x7F else f"\\u{code:04x}"

    return _HIDDEN.sub(shown, text.replace("\r\n", "\n"))


def shorten(text: str, limit: int) -> str:
    """Text of about ``limit`` characters at most: its beginning, and a third of that its end."""
    if len(text) <= limit:
        return text
    end = limit // 4
    left_out = f"\n[… {len(text) - limit:,} characters …]\n"
    return text[: limit - end] + left_out + text[len(text) - end :]


_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #8884; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #8883; }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 14rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #8881; padding: .8rem; overflow-x: auto; white-space: pre-wrap; font-size: 14px; }
.chart { height: 24rem; } figure { margin: 1rem 0; overflow-x: auto; } .meta { color: #888; }
"""


def write_html(path: Path, title: str, sections: Sequence[Section], *, subtitle: str = "") -> None:
    """Write a report to ``path``, atomically.

    Raises:
        DependencyNotInstalled: a chart is asked for and plotly is missing.
        StorageError: the file cannot be written.
    """
    body: list[str] = []
    charts = 0
    for section in sections:
        body.append(f"<h2>{_escape(section.title)}</h2>")
        for block in section.blocks:
            if isinstance(block, Text):
                tag = "pre" if block.preformatted else "p"
                body.append(f"<{tag}>{_escape(block.text)}</{tag}>")
            elif isinstance(block, Table):
                body.append(_table(block))
            elif isinstance(block, Picture):
                body.append(f"<figure>{block.svg}</figure>")
            else:
                body.append(_chart(block, f"chart{charts}"))
                charts += 1
    script = f"<script>{_plotly_script()}</script>" if charts else ""
    page = (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{_escape(title)}</title><style>{_STYLE}</style>{script}</head>\n<body>"
        f"<h1>{_escape(title)}</h1><p class='meta'>{_escape(subtitle)}</p>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    atomic_write_text(path, page)


def _escape(text: str) -> str:
    return html.escape(visible(text))


def _table(table: Table) -> str:
    def cell(value: Any) -> str:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        text = _escape(format_value(value))
        if number:
            return f"<td class='number'>{text}</td>"
        # Long texts keep their lines; short ones must not wrap to a letter a line.
        long = isinstance(value, str) and (len(value) > _LONG_CELL or "\n" in value)
        return f"<td class='text'>{text}</td>" if long else f"<td>{text}</td>"

    head = "".join(f"<th>{_escape(str(c))}</th>" for c in table.columns)
    rows = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _chart(chart: Chart, name: str) -> str:
    kinds: dict[str, dict[str, str]] = {
        "line": {"type": "scatter", "mode": "lines"},
        "scatter": {"type": "scatter", "mode": "markers"},
        "bar": {"type": "bar"},
    }
    traces = [
        {
            "name": series.name,
            "x": list(series.x),
            "y": [y if math.isfinite(y) else None for y in series.y],
            **kinds[chart.kind],
        }
        for series in chart.series
    ]
    small = all(abs(y) < _SMALL for series in chart.series for y in series.y if math.isfinite(y))
    layout = {
        "title": {"text": chart.title},
        "xaxis": {"title": {"text": chart.x_label}},
        "yaxis": {
            "title": {"text": chart.y_label},
            "type": "log" if chart.log_y else "linear",
            "exponentformat": "power" if small else "SI",
        },
        "margin": {"t": 50, "r": 20},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "#888"},
    }
    # A name with a tag or the beginning of a comment would change where the script element ends.
    data = json.dumps([traces, layout], allow_nan=False).replace("<", "\\u003c")
    return (
        f"<div class='chart' id='{name}'></div><script>Plotly.newPlot('{name}', ...{data}, "
        "{responsive: true, displaylogo: false});</script>"
    )


def _plotly_script() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("a report with charts", "report") from None
    return str(get_plotlyjs())
