"""``sharpen train``: carry out a recipe up to its last training stage."""

from __future__ import annotations

import typer

from sharpen.cli.common import Output, command
from sharpen.cli.run import (
    Force,
    OutputFolder,
    Overrides,
    Processes,
    Recipe,
    Seed,
    carry_out,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "train", example="sharpen train examples/quickstart.yaml train.steps=10")
    def train(
        recipe: Recipe,
        overrides: Overrides = None,
        output: OutputFolder = None,
        force: Force = False,
        seed: Seed = None,
        nproc: Processes = None,
    ) -> Output:
        """Carry out a recipe up to its last training stage; a killed training resumes."""
        from sharpen.core.errors import ConfigError
        from sharpen.core.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or [])
        stages = [spec.name for spec in loaded.stages if spec.type.name == "train"]
        if not stages:
            raise ConfigError(f"{recipe}: the recipe has no stage of type 'train'. Add 'train:'.")
        return carry_out(recipe, overrides, output, stages[-1], force, seed, nproc)
