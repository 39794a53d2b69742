"""``sharpen code pie``: how much faster programs that read standard input became."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "pie", example="sharpen code pie made.jsonl --reference test.jsonl --tests cases")
    def pie(
        generations: Annotated[
            Path, typer.Argument(help="JSONL: slow programs and a model's.", show_default=False)
        ],
        tests: Annotated[
            Path, typer.Option(help="A folder a problem: input.N.txt, output.N.txt.")
        ] = Path("tests"),
        reference: Annotated[
            Path | None, typer.Option(help="JSONL of PIE's rows; without it the same file.")
        ] = None,
        version: Annotated[str, typer.Option(help="Columns: v1, or v2 (C++).")] = "v1",
        clock: Annotated[str, typer.Option(help="cpu (processor time) or wall.")] = "cpu",
        column: Annotated[
            str, typer.Option(help="The column of the model's programs.")
        ] = "generated_answers",
        trials: Annotated[int, typer.Option(help="Runs of each program.", min=1)] = 5,
        ignore_first: Annotated[int, typer.Option(help="Runs that are not counted.", min=0)] = 1,
        max_time: Annotated[float, typer.Option(help="Seconds of a test, at most.")] = 10.0,
        limit: Annotated[int | None, typer.Option(help="The first rows only.", min=1)] = None,
        out: Annotated[
            Path | None, typer.Option(help="Where the report goes; a killed run then resumes.")
        ] = None,
    ) -> Output:
        """Time a model's faster programs beside the slow ones, in sandboxes, as PIE does.

        C++ is compiled with g++ -O3; what is stored of times is not used.
        """
        from sharpen.cli.progress import bar, observe
        from sharpen.code.pie import PieConfig, pie_eval

        config = PieConfig(
            version=version,  # type: ignore[arg-type]
            clock=clock,  # type: ignore[arg-type]
            num_trials=trials,
            ignore_first_k=ignore_first,
            max_time_per_run=max_time,
            model_generated_potentially_faster_code_col=column,
        )
        with observe() as observer, bar(observer, "rows", None) as advance:
            report = pie_eval(
                generations,
                reference,
                tests,
                config,
                out=out,
                limit=limit,
                on_row=lambda _: advance(1),
            )

        def render(console: Any) -> None:
            for name, value in report["metrics"].items():
                text = f"{value:.4f}" if isinstance(value, float) else str(value)
                console.print(f"{name}: {text}", markup=False, highlight=False)

        return Output(report, render)
