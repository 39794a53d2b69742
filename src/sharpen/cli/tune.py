"""``sharpen tune``: search over a recipe's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command

__all__ = ["register"]

Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="KEY=VALUE pairs held for all trials.", show_default=False),
]
Over = Annotated[
    list[str] | None,
    typer.Option(
        help="What to search: KEY=[log:][int:]LOW:HIGH or KEY=a,b,c; repeat it for more.",
        show_default=False,
    ),
]
Minimize = Annotated[
    list[str] | None,
    typer.Option(
        help="Value of the summary to make small; default that of the last eval stage: "
        "eval.loss_after.",
        show_default=False,
    ),
]
Maximize = Annotated[
    list[str] | None, typer.Option(help="Value of the summary to make large.", show_default=False)
]
Constraint = Annotated[
    list[str] | None,
    typer.Option(help="Such as 'compress.int4.bytes <= 1e8'.", show_default=False),
]
Trials = Annotated[int, typer.Option(help="Trials in all, over every run of this study.")]
Seconds = Annotated[float | None, typer.Option(help="Stop after so many seconds.")]
OptimizerName = Annotated[str, typer.Option(help="Name of the optimizer.")]
PrunerName = Annotated[
    str,
    typer.Option(
        help="Stops trials whose training falls behind: median, asha, patience ... or none."
    ),
]
Workers = Annotated[int, typer.Option(help="Trials at once.")]
OutputFolder = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder; default runs/<name>-tune.")
]
Seed = Annotated[int, typer.Option(help="The optimizer's seed.")]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(
        app,
        "tune",
        example="sharpen tune recipe.yaml --over train.lr=log:1e-5:1e-2 --trials 12",
    )
    def tune(
        recipe: Recipe,
        overrides: Overrides = None,
        over: Over = None,
        minimize: Minimize = None,
        maximize: Maximize = None,
        constraint: Constraint = None,
        trials: Trials = 20,
        seconds: Seconds = None,
        optimizer: OptimizerName = "auto",
        pruner: PrunerName = "median",
        workers: Workers = 1,
        output: OutputFolder = None,
        seed: Seed = 0,
    ) -> Output:
        """Search over a recipe's settings; the same command resumes it."""
        from sharpen.cli.search import announce, study_output
        from sharpen.core.errors import ConfigError
        from sharpen.core.study import Budget
        from sharpen.core.tune import parse_over
        from sharpen.core.tune import tune as search

        if not over:
            raise ConfigError("nothing to search over. Give --over train.lr=log:1e-5:1e-2.")
        parameters: dict[str, Any] = {}
        for text in over:
            key, parameter = parse_over(text)
            if key in parameters:
                raise ConfigError(f"--over gives '{key}' twice.")
            parameters[key] = parameter
        study = search(
            recipe,
            parameters,
            minimize=minimize,
            maximize=maximize,
            constraints=constraint or (),
            budget=Budget(trials=trials, seconds=seconds),
            optimizer=optimizer,
            pruner=pruner,
            overrides=overrides or (),
            output=output,
            workers=None if workers == 1 else workers,
            seed=seed,
            callbacks=(announce,),
        )
        return study_output(study)
