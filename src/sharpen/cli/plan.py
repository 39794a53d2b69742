"""``sharpen plan``: what a recipe will need, before it is run."""

from __future__ import annotations

import typer

from sharpen.cli.common import Output, command
from sharpen.cli.run import Overrides, Recipe

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "plan", example="sharpen plan examples/quickstart.yaml train.micro_batch=2")
    def plan(recipe: Recipe, overrides: Overrides = None) -> Output:
        """Tell whether a recipe fits, what takes the memory, and how long; exit code 1 if not."""
        from sharpen.plan.planner import recipe as make_plan

        made = make_plan(recipe, overrides or [])
        return Output(made.to_dict(), lambda console: print(made.table()), 0 if made.fits else 1)
