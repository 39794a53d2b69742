"""``sharpen search bench``: which optimizer for which problem."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, flags

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "bench", example="sharpen search bench study.yaml --optimizers tpe,gp,sobol")
    def bench(
        files: Annotated[
            list[Path] | None,
            typer.Argument(
                help="Study files; default functions with known minima.", show_default=False
            ),
        ] = None,
        optimizers: Annotated[
            str, typer.Option(help="Names separated by commas.")
        ] = "tpe,gp,cmaes,de,sobol",
        trials: Annotated[int, typer.Option(help="Trials of each run.", min=1)] = 50,
        seeds: Annotated[int, typer.Option(help="Runs of each optimizer.", min=1)] = 5,
        jobs: Annotated[int, typer.Option(help="Runs at once.", min=1)] = 1,
        store: Annotated[
            str, typer.Option("--store", help="Where runs are kept: sqlite:///FILE, or the file.")
        ] = "sqlite:///bench.db",
        quick: Annotated[
            bool, typer.Option("--quick", help="A check: 10 trials, 2 runs of each.")
        ] = False,
    ) -> Output:
        """Compare optimizers on your own studies; the same command goes on after an interruption.

        Behind are those whose best values are worse by the Mann-Whitney test at 5 %.
        """
        from sharpen.core.study_file import load_problem
        from sharpen.search.bench import compare_optimizers

        if files:
            problems = [load_problem(file) for file in files]
        else:
            from sharpen.problems.synthetic import synthetic

            shifted = [synthetic(name, dimensions=10, shifted=True) for name in ("ackley", "levy")]
            plain = [synthetic(name) for name in ("branin", "hartmann6", "mixed_ackley")]
            problems = [*plain, *shifted]
        if quick:
            trials, seeds = 10, 2

        def tell(experiment: Any) -> None:
            if not flags.quiet and not flags.as_json:
                label = f"{experiment.problem} {experiment.algorithm} {experiment.seed}"
                sys.stderr.write(f"{label}: {experiment.best}\n")

        names = [name.strip() for name in optimizers.split(",") if name.strip()]
        document = compare_optimizers(
            problems,
            names,
            trials=trials,
            seeds=seeds,
            store=store,
            workers=jobs,
            on_experiment=tell,
        )
        return Output({"format": 1, **document}, lambda console: _render(console, document))


def _render(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    from sharpen.core.report import format_value

    for problem in document["problems"]:
        known = any("regret" in row for row in problem["rows"])
        heads = ["optimizer", problem["objective"]["name"], "quartiles", *["regret"] * known, ""]
        table = Table(*heads, box=None, header_style="bold", title=problem["name"])
        for row in problem["rows"]:
            if "cannot" in row:
                table.add_row(row["optimizer"], *[""] * (len(heads) - 2), "cannot handle it")
                continue
            quartiles = f"{format_value(row['q1'])} to {format_value(row['q3'])}"
            regret = [format_value(row.get("regret"))] * known
            note = {True: "behind", False: "", None: ""}[row["behind"]]
            table.add_row(row["optimizer"], format_value(row["median"]), quartiles, *regret, note)
        console.print(table)
    ranks = "  ".join(f"{name} {rank:.1f}" for name, rank in document["ranks"].items())
    if ranks:
        console.print(f"mean place: {ranks}")
    console.print(f"{document['trials']} trials a run, {document['seeds']} runs of each; medians")
