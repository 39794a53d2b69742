"""``sharpen code data``: sets of problems, and where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, new_app

__all__ = ["register"]

Name = Annotated[str, typer.Argument(help="The set, or a file or folder.", show_default=False)]
Data = Annotated[Path | None, typer.Option(help="The file of the set, such as enamel.csv.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    data = new_app("Sets of problems; nothing is downloaded.")
    app.add_typer(data, name="data")

    @command(data, "list", example="sharpen code data list")
    def list_() -> Output:
        """The sets that have names, and whether they are on this machine."""
        from sharpen.code.problems import SETS

        rows = [
            {
                "name": name,
                "about": one.about,
                "source": one.source,
                "license": one.license,
                "path": _text(one.find()),
            }
            for name, one in SETS.items()
        ]

        def render(console: Any) -> None:
            from rich.table import Table

            table = Table("set", "is", "comes with", "licence", "here")
            for row in rows:
                here = "yes" if row["path"] else "no"
                table.add_row(row["name"], row["about"], row["source"], row["license"], here)
            console.print(table)

        return Output({"format": 1, "sets": rows}, render)

    @command(data, "info", example="sharpen code data info own")
    def info(name: Name, data: Data = None) -> Output:
        """What a set holds."""
        from sharpen.code.problems import load_problems

        problems = load_problems(name, data=data)
        document = {
            "format": 1,
            "name": name,
            "problems": len(problems),
            "with_levels": sum(bool(p.levels) for p in problems),
            "with_tests": sum(p.tests is not None for p in problems),
            "with_slow": sum(p.slow is not None for p in problems),
            "names": [p.name for p in problems],
        }

        def render(console: Any) -> None:
            console.print(
                f"problems: {document['problems']}; with inputs in several sizes:"
                f" {document['with_levels']}, with tests: {document['with_tests']}, with a slow"
                f" solution: {document['with_slow']}"
            )
            console.print(", ".join(p.name for p in problems), markup=False)

        return Output(document, render)

    @command(data, "path", example="sharpen code data path humaneval")
    def path(name: Name) -> Output:
        """Where a set is; exit code 3 where it is not on this machine."""
        from sharpen.code.problems import SETS
        from sharpen.core.errors import AssetNotInstalled, ConfigError, did_you_mean

        if name not in SETS:
            near = did_you_mean(name, list(SETS))
            raise ConfigError(f"there is no set '{name}'.{near} Sets: {', '.join(SETS)}.")
        found = SETS[name].find()
        if found is None:
            raise AssetNotInstalled(f"{name} is not on this machine: {SETS[name].source} gives it.")
        document = {"format": 1, "name": name, "path": str(found)}
        return Output(document, lambda console: console.print(str(found), markup=False))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
