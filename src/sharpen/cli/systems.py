"""``sharpen systems``: the catalog."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "systems", example="sharpen systems --status partial")
    def systems(
        status: Annotated[
            str | None, typer.Option(help="Only rows with this status: planned, partial, working.")
        ] = None,
        room: Annotated[str | None, typer.Option(help="Only rows of this room.")] = None,
    ) -> Output:
        """Print the catalog of systems: paper, room, and how far each is."""
        from sharpen.core.catalog import list_systems
        from sharpen.core.config import to_dict
        from sharpen.core.errors import ConfigError, did_you_mean

        known = ("planned", "partial", "working")
        if status is not None and status not in known:
            raise ConfigError(
                f"--status is one of {', '.join(known)}, got {status!r}."
                f"{did_you_mean(status, known)}"
            )
        rooms = sorted({row.room for row in list_systems()})
        if room is not None and room not in rooms:
            raise ConfigError(
                f"--room is one of {', '.join(rooms)}, got {room!r}.{did_you_mean(room, rooms)}"
            )
        rows = [
            row
            for row in list_systems()
            if (status is None or row.status == status) and (room is None or row.room == room)
        ]

        def render(console: Any) -> None:
            from rich.table import Table

            table = Table("#", "system", "room", "status", "gives", box=None, header_style="bold")
            for row in rows:
                table.add_row(str(row.number), row.system, row.room, row.status, row.gives)
            console.print(table)

        return Output([to_dict(row) for row in rows], render)
