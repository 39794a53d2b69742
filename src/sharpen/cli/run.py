"""``sharpen run``: carry out a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command
from sharpen.cli.progress import observe

__all__ = ["carry_out", "register", "result_table"]

Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="KEY=VALUE pairs by dotted path.", show_default=False),
]
OutputFolder = Annotated[
    Path | None, typer.Option("--output", "-o", help="Run folder; default runs/<name>.")
]
Force = Annotated[bool, typer.Option("--force", help="Run even when the plan says no.")]
Until = Annotated[str | None, typer.Option(help="Name of the last stage to run.")]
Processes = Annotated[
    int | None,
    typer.Option("--nproc", help="Processes that train and align, on this machine.", min=1),
]
Seed = Annotated[int | None, typer.Option(help="The recipe's seed.")]
_QUANTITIES = {
    "peak_bytes": ("peak memory of a process, GiB", 2**30),
    "step_s": ("seconds a step", 1),
    "tokens_per_s": ("tokens a second", 1),
    "mfu": ("MFU, %", 0.01),
}


def carry_out(
    recipe: Path,
    overrides: list[str] | None,
    output: Path | None,
    until: str | None,
    force: bool,
    seed: int | None,
    nproc: int | None = None,
) -> Output:
    """Run a recipe with progress and render its summary."""
    from sharpen.core.recipe import load_recipe
    from sharpen.core.report import format_value
    from sharpen.core.run import run

    given = [*(overrides or []), *([f"seed={seed}"] if seed is not None else [])]
    if nproc is not None:
        stages = load_recipe(recipe, given).stages
        given += [f"{s.name}.nproc={nproc}" for s in stages if s.type.name in ("train", "align")]
    with observe() as observer:
        done = run(recipe, given, output=output, until=until, force=force, observer=observer)

    def render(console: Any) -> None:
        from rich.table import Table

        console.print(result_table(done.summary))
        compared = Table("stage", "", "planned", "measured", box=None, header_style="bold")
        for cells in _compared(done.summary):
            compared.add_row(*map(format_value, cells))
        if compared.row_count:
            console.print(compared)
        console.print(f"run folder: {done.folder}")
        if done.report.exists():
            console.print(f"report: {done.report}")

    document = {
        "run": str(done.folder),
        "report": str(done.report) if done.report.exists() else None,
        "reused": done.reused,
        "summary": done.summary,
    }
    return Output(document, render)


def result_table(summary: Any) -> Any:
    """All numbers of a run's summary."""
    from rich.table import Table

    from sharpen.core.report import format_value

    table = Table("result", "value", box=None, header_style="bold")
    for name, value in summary.flat().items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            table.add_row(name, format_value(value))
    return table


def _compared(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float]]:
    """What was planned of a stage beside what was measured."""
    for stage, planned in summary.get("plan", {}).items():
        measured = summary.get(stage)
        if not isinstance(planned, Mapping) or not isinstance(measured, Mapping):
            continue
        for key, (name, unit) in _QUANTITIES.items():
            if planned.get(key) is not None and measured.get(key) is not None:
                yield stage, name, planned[key] / unit, measured[key] / unit


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "run", example="sharpen run examples/quickstart.yaml train.lr=3e-4")
    def run(
        recipe: Recipe,
        overrides: Overrides = None,
        output: OutputFolder = None,
        until: Until = None,
        force: Force = False,
        seed: Seed = None,
        nproc: Processes = None,
    ) -> Output:
        """Carry out a recipe; what is already done is not done again."""
        return carry_out(recipe, overrides, output, until, force, seed, nproc)
