"""``sharpen plan``: what a recipe will need, before it is run."""

from __future__ import annotations

from typing import Annotated

import typer

from sharpen.cli.common import Output, command
from sharpen.cli.run import Overrides, Recipe
from sharpen.core.errors import ConfigError

__all__ = ["register"]

Devices = Annotated[
    str | None,
    typer.Option(
        help="Plan the training for these: 8xH100, 64xH100:network_gb_s=25, or a YAML file. "
        "Default: the whole recipe on this machine.",
        show_default=False,
    ),
]
Search = Annotated[bool, typer.Option("--search", help="Find the fastest layout that fits.")]
AllAxes = Annotated[
    bool,
    typer.Option(
        "--all-axes",
        help="Search tensor and pipeline parallelism too (planned only: the trainer has neither).",
    ),
]
Causal = Annotated[
    bool, typer.Option("--causal-flops", help="MFU counts only the positions attention sees.")
]
Top = Annotated[int, typer.Option(help="Layouts listed after a search.", min=1)]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "plan", example="sharpen plan recipe.yaml --devices 64xH100 --search")
    def plan(
        recipe: Recipe,
        overrides: Overrides = None,
        devices: Devices = None,
        search: Search = False,
        all_axes: AllAxes = False,
        causal_flops: Causal = False,
        top: Top = 10,
    ) -> Output:
        """Tell whether a recipe fits, what takes the memory, and how long; exit code 1 if not."""
        if devices is None:
            if search or all_axes or causal_flops:
                raise ConfigError(
                    "--search, --all-axes and --causal-flops need --devices, such as "
                    "--devices 8xH100."
                )
            from sharpen.plan.planner import recipe as make_plan

            made = make_plan(recipe, overrides or [])
            return Output(
                made.to_dict(), lambda console: print(made.table()), 0 if made.fits else 1
            )
        from sharpen.plan.cluster_plan import on_devices

        laid = on_devices(
            recipe,
            overrides or [],
            devices=devices,
            search=search or all_axes,
            all_axes=all_axes,
            causal=causal_flops,
        )
        return Output(
            laid.to_dict(top), lambda console: print(laid.table(top)), 0 if laid.fits else 1
        )
