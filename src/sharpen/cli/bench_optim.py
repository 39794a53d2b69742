"""``sharpen bench optim``: what optimizers cost, and how soon they reach a result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, default_command, error_console, flags, new_app

__all__ = ["app"]

app = new_app("What optimizers cost, and how soon they reach a result.")

_QUICK_S, _FULL_S = 1.0, 6.0  # a method and peer

Quick = Annotated[bool, typer.Option("--quick", help="Step each for a second, not six.")]
Methods = Annotated[
    str | None, typer.Option(help="Names separated by commas; default all.", show_default=False)
]
Html = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Also write charts (HTML).", show_default=False),
]


@default_command(app, example="sharpen bench optim --quick --json")
def cost(quick: Quick = False, methods: Methods = None, output: Html = None) -> Output:
    """Time a step of each optimizer and of its peers that are installed, on one thread.

    A row a method and peer: nanoseconds a parameter (least CPU time), bytes of state a parameter,
    and the peer's time over the method's.
    """
    from sharpen.optim.bench.step_cost import measure_costs
    from sharpen.optim.names import canonical

    names = [canonical(name) for name in methods.split(",")] if methods else None

    def tell(name: str) -> None:
        if not flags.quiet and not flags.as_json:
            error_console().print(f"[dim]first step of {name}[/]")

    found = measure_costs(names, seconds=_QUICK_S if quick else _FULL_S, tell=tell)
    rows = sorted(found["rows"], key=lambda row: row.ns_per_param)
    document = {**found, "rows": [dataclasses.asdict(row) for row in rows]}
    if output is not None:
        _write_chart(output, document)
    return Output({"format": 1, **document}, lambda console: _render(console, document))


def _render(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("set", "ns a parameter", "first step", "state bytes", "limit ns", "times peer"):
        table.add_column(name, justify="left" if name == "set" else "right")
    for row in document["rows"]:
        ratio, limit = row["ratio"], row["limit_ns_per_param"]
        table.add_row(
            row["name"],
            row["parameters"],
            f"{row['ns_per_param']:.2f}",
            f"{row['first_ns_per_param']:.1f}",
            f"{row['state_bytes_per_param']:.2f}",
            "" if limit is None else f"{limit:.2f}",
            "" if ratio is None else f"{ratio:.2f} x {row['peer']}",
        )
    console.print(table)
    console.print(
        f"one thread, {document['isa']}, {document['bandwidth_gb_s']:.1f} GB/s; least CPU time"
    )


def _write_chart(output: Path, document: dict[str, Any]) -> None:
    from sharpen.core.report import Chart, Section, Series, write_html

    rows = document["rows"]
    names = [row["name"] for row in rows]
    charts = [
        Chart(
            title=title,
            series=[Series(key, names, [row[key] for row in rows])],
            x_label="",
            y_label=title,
            kind="bar",
            log_y=True,
        )
        for key, title in (
            ("ns_per_param", "ns a parameter"),
            ("state_bytes_per_param", "bytes of state a parameter"),
        )
    ]
    write_html(output, "A step of each optimizer", [Section("One thread", charts)])
