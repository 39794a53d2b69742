"""``sharpen code pie``: edits of programs, as PIE judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "pie", example="sharpen code pie generations.jsonl test.jsonl --tests cases/")
    def pie(
        generations: Annotated[
            Path, typer.Argument(help="JSONL with the model's programs.", show_default=False)
        ],
        reference: Annotated[
            Path,
            typer.Argument(help="JSONL of PIE with slow and fast programs.", show_default=False),
        ],
        tests: Annotated[
            Path | None, typer.Option(help="Folder of PROBLEM/input.N.txt and output.N.txt.")
        ] = None,
        language: Annotated[str, typer.Option(help="python or cpp.")] = "python",
        column: Annotated[
            str, typer.Option(help="Of the generations: a program or a list of them.")
        ] = "generated_answers",
        k: Annotated[str, typer.Option(help="Of best@k, as in 1,8.")] = "1",
        trials: Annotated[int, typer.Option(help="Runs of a program on each test.")] = 25,
        ignore_first: Annotated[int, typer.Option(help="Of them, that do not count.")] = 1,
        limit: Annotated[float, typer.Option(help="Processor time of a run, seconds.")] = 10.0,
        clock: Annotated[str, typer.Option(help="cpu, or for Python opcodes.")] = "cpu",
        jobs: Annotated[int, typer.Option(help="Rows at a time.", min=1)] = 1,
        out: Annotated[Path | None, typer.Option(help="Where the report goes.")] = None,
    ) -> Output:
        """Time slow programs, their references and a model's edits, in sandboxes."""
        from sharpen.cli.code_eval import numbers
        from sharpen.cli.progress import bar, observe
        from sharpen.code.evaluate import PieConfig, pie_eval
        from sharpen.core.errors import ConfigError

        if tests is None:
            raise ConfigError("name the folder of tests: --tests DIR.")
        config = PieConfig(
            language=language,  # type: ignore[arg-type]
            num_trials=trials,
            ignore_first_k=ignore_first,
            max_time_per_run=limit,
            model_generated_potentially_faster_code_col=column,
            k=numbers(k),
            clock=clock,  # type: ignore[arg-type]
            jobs=jobs,
        )
        with observe() as observer, bar(observer, "programs", None) as advance:
            report = pie_eval(
                generations,
                reference,
                tests,
                config,
                out=out,
                on_program=lambda name: advance(1),
            )
        return Output(report, lambda console: _render(console, report))


def _render(console: Any, report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("", "%Correct", "%Opt", "geometric mean", "median", "mean")
    metrics = report["metrics"]
    for name in [*(name for name in metrics if name.startswith("best@")), "reference"]:
        one = metrics[name]
        shares = (f"{100 * one[key]:.1f}" for key in ("correct", "optimized"))
        speedups = (f"{one[key]:.2f}" for key in ("geometric_mean", "median", "mean"))
        table.add_row(name, *shares, *speedups)
    console.print(table)
    console.print(
        f"rows: {len(report['rows'])}; slow programs that were stopped: {metrics['stopped']};"
        f" left out since the slow program fails: {metrics['left_out']}"
    )
