"""``sharpen assets``: models and corpora that ship in packages."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, new_app

__all__ = ["app"]

app = new_app("List, locate and verify models and corpora that ship in packages.")
Names = Annotated[list[str] | None, typer.Argument(help="Names; default all.", show_default=False)]


@command(app, "list", example="sharpen assets list --kind model")
def list_all(
    kind: Annotated[
        str | None, typer.Option(help="Only this kind: model, corpus or embedding.")
    ] = None,
) -> Output:
    """List the known assets and whether each is installed."""
    from sharpen.core.assets import check_asset, list_assets
    from sharpen.core.errors import ConfigError

    if kind not in (None, "model", "corpus", "embedding"):
        raise ConfigError(f"--kind is model, corpus or embedding, got {kind!r}.")
    rows = []
    for asset in list_assets(kind):
        status = check_asset(asset.name, verify=False)
        rows.append(
            {
                "name": asset.name,
                "kind": asset.kind,
                "installed": status.installed,
                "licence": asset.licence,
                "source": asset.source,
                "install": asset.install,
            }
        )
    return Output(rows, lambda console: _table(console, rows))


@command(app, "path", example="sharpen assets path smollm2-135m-instruct")
def path(name: Annotated[str, typer.Argument(help="The asset's name.")]) -> Output:
    """Print where an asset lies; exit code 3 when it is not installed."""
    from sharpen.core.assets import asset_path

    found = asset_path(name)
    return Output({"name": name, "path": str(found)}, lambda console: print(found))


@command(app, "check", example="sharpen assets check smollm2-135m-instruct")
def check(names: Names = None) -> Output:
    """Verify the bytes of assets: exit code 3 when a named one is missing, 1 when one is wrong."""
    from sharpen.core.assets import ASSETS, check_asset

    statuses = [check_asset(name) for name in names or list(ASSETS)]
    rows = [dataclasses.asdict(status) for status in statuses]
    code = 0
    if any(not status.installed for status in statuses) and names:
        code = 3
    if any(status.sha256_ok is False for status in statuses):
        code = 1

    def render(console: Any) -> None:
        _table(console, rows)
        for status in statuses:
            if not status.installed:
                console.print(f"{status.name} is not installed. Install it: {status.install}")

    return Output(rows, render, code)


def _table(console: Any, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from sharpen.core.report import format_value

    columns = [key for key in rows[0] if key not in ("path", "install", "source")] if rows else []
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(format_value(row[key]) for key in columns))
    console.print(table)
