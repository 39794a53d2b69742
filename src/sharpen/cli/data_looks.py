"""``sharpen data lint``, ``why``, ``trace`` and ``diff``: what there is, and what became of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.arrow import start_arrow
from sharpen.cli.common import Output, command
from sharpen.cli.progress import bar, observe

__all__ = ["register"]

Workers = Annotated[
    int | None, typer.Option(help="Threads; default one for each core.", show_default=False)
]
Folder = Annotated[Path, typer.Argument(help="Folder of a result.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    command(app, "lint", example="sharpen data lint examples/data/web_text.yaml")(_lint)
    command(app, "why", example="sharpen data why clean/web-text 12")(_why)
    command(app, "trace", example="sharpen data trace clean/web-text --operator text_length")(
        _trace
    )
    command(app, "diff", example="sharpen data diff clean/first clean/second --html diff.html")(
        _diff
    )


def _lint(
    source: Annotated[
        str, typer.Argument(help="A recipe, or a file, folder or pattern.", show_default=False)
    ],
    text_key: Annotated[str, typer.Option(help="Where a row's text stands, in files.")] = "text",
    limit: Annotated[
        int | None, typer.Option(help="At most so many rows of each source.", show_default=False)
    ] = None,
) -> Output:
    """Read all sources: fields, types, and the first bad rows; exit code 1 if there are any."""
    start_arrow()
    from dataclasses import asdict

    from sharpen.data.lint import lint, sources_of

    sources, folder = sources_of(source, text_key=text_key)
    with observe() as observer, bar(observer, "rows", None) as advance:
        reports = lint(sources, folder, limit=limit, on_rows=advance)

    def render(console: Any) -> None:
        from rich.table import Table

        for one in reports:
            console.print(
                f"{one.name}: {one.rows:,} rows, {one.characters:,} characters; "
                f"{one.bad:,} rows cannot be read",
                markup=False,
            )
            for told in one.first_bad:
                console.print(f"  {told}", markup=False)
            table = Table("field", "types", box=None, header_style="bold")
            for name, types in one.fields.items():
                table.add_row(name, ", ".join(f"{k} {n:,}" for k, n in types.items() if n))
            console.print(table)

    bad = any(one.bad for one in reports)
    return Output({"sources": [asdict(one) for one in reports]}, render, exit_code=int(bad))


def _why(
    folder: Folder, id: Annotated[str, typer.Argument(help="Of the row, as in the trace.")]
) -> Output:
    """Tell what happened to a row: its edits, and why it was dropped."""
    from sharpen.data.trace import why

    events = why(folder / "trace", id)
    document = {"id": id, "events": events}

    def render(console: Any) -> None:
        for event in events:
            fields = {k: v for k, v in event.items() if k not in ("what", "id", "operator")}
            parts = ", ".join(f"{k} {v}" for k, v in fields.items())
            console.print(f"{event['what']} by {event['operator']}: {parts}", markup=False)
        if not events:
            console.print("nothing was done to it, or there is no such row.")

    return Output(document, render)


def _trace(
    folder: Folder,
    operator: Annotated[
        str | None, typer.Option(help="Only rows that this one dropped.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows to show.")] = 20,
) -> Output:
    """Show how many rows each operator dropped, and the first of them."""
    from sharpen.data.trace import dropped_rows

    counts: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for row in dropped_rows(folder / "trace"):
        counts[row["operator"]] += 1
        if len(rows) < limit and operator in (None, row["operator"]):
            rows.append(row)
    document = {"dropped": dict(counts.most_common()), "rows": rows}

    def render(console: Any) -> None:
        from rich.table import Table

        from sharpen.core.report import format_value

        for name, count in counts.most_common():
            console.print(f"{count:>8,}  {name}")
        columns = ("id", "operator", "statistic", "value", "threshold", "kept_id", "reason")
        table = Table(*columns, box=None, header_style="bold")
        for row in rows:
            table.add_row(*(format_value(row[name]) for name in columns))
        console.print(table)

    return Output(document, render)


def _diff(
    a: Annotated[
        str, typer.Argument(help="A result, or a file, folder or pattern.", show_default=False)
    ],
    b: Annotated[str, typer.Argument(help="The other.", show_default=False)],
    key: Annotated[
        str | None, typer.Option(help="The field by which rows are matched.", show_default=False)
    ] = None,
    text_key: Annotated[str, typer.Option(help="Where a row's text stands.")] = "text",
    examples: Annotated[int, typer.Option(help="Rows to show of each kind.")] = 5,
    statistics: Annotated[bool, typer.Option(help="Measure what common filters measure.")] = True,
    html: Annotated[Path | None, typer.Option(help="A page to write.", show_default=False)] = None,
    workers: Workers = None,
) -> Output:
    """Tell what two data sets differ by: rows, the operators that did it, statistics, examples."""
    start_arrow()
    from sharpen.data.diff import compare, write_difference

    with observe() as observer, bar(observer, "rows", None) as advance:
        document = compare(
            a,
            b,
            key=key,
            text_key=text_key,
            examples=examples,
            statistics=statistics,
            workers=workers,
            on_rows=advance,
        )
    if html is not None:
        write_difference(html, document)
    return Output(document, lambda console: _render_diff(console, document))


def _render_diff(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    from sharpen.core.report import format_value

    rows, only = document["rows"], document["only"]
    console.print(
        f"A {rows['a']:,} rows, B {rows['b']:,}, matched by {document['matched_by']}: "
        f"{document['same']:,} with the same text ({document['other_fields']:,} of them with "
        f"another field), {document['edited']:,} edited, {only['a']:,} only in A, "
        f"{only['b']:,} only in B",
        markup=False,
    )
    for one in document["operators"]:
        side = one["side"].upper()
        console.print(f"{one['rows']:>8,}  {one['what']} in {side} by {one['operator']}")
    if document["statistics"]:
        columns = ("statistic", "mean A", "mean B", "median A", "median B", "distance")
        table = Table(*columns, box=None, header_style="bold")
        for row in document["statistics"]:
            values = [row[kind][side] for kind in ("mean", "median") for side in "ab"]
            table.add_row(row["statistic"], *map(format_value, (*values, row["distance"])))
        console.print(table)
    for kind, shown in document["examples"].items():
        for one in shown:
            told = ", ".join(f"{k} {v!r}" for k, v in one.items() if v is not None)
            console.print(f"{kind.replace('_', ' ')}: {told}", markup=False)
