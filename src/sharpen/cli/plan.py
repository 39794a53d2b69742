"""``sharpen plan``: what a recipe will need, before it is run; and what a stream of requests will.

``plan cluster`` and ``plan trace`` are commands of their own; any other first word is a recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sharpen.cli.common import Output, command, new_app
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


_RECIPE = "of a recipe:"


class _Group(TyperGroup):
    """Takes what is no command's name for a recipe."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command of recipes in front of what is for it."""
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else [_RECIPE, *args])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command; that of recipes has no name in usage lines."""
        name, found, rest = super().resolve_command(ctx, args)
        return ("" if name == _RECIPE else name), found, rest


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    group = new_app("Tell whether a recipe fits, what takes the memory, and how long it takes.")
    group.info.cls = _Group
    _add_recipe(group)
    _add_trace(group)
    _add_cluster(group)
    app.add_typer(group, name="plan")


def _add_trace(group: typer.Typer) -> None:
    @command(group, "trace", example="sharpen plan trace --kind conv --rate 20 -o trace.csv")
    def trace(
        kind: Annotated[str, typer.Option(help="Lengths of prompts and answers: code or conv.")],
        rate: Annotated[float, typer.Option(help="Requests a second.")],
        minutes: Annotated[float, typer.Option(help="How long they arrive.")] = 10.0,
        cv: Annotated[
            float, typer.Option(help="Variation of the gaps: 1 is Poisson, above come bursts.")
        ] = 1.0,
        seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="CSV file; default KIND_RATE.csv.")
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    ) -> Output:
        """Draw a stream of requests to published statistics, for cluster and other simulators."""
        from sharpen.plan.serving.traces import synthetic_trace

        path = output if output is not None else Path(f"{kind}_{rate:g}.csv")
        made = synthetic_trace(kind, rate=rate, seconds=60 * minutes, seed=seed, cv=cv)
        if path.exists() and not force:
            raise ConfigError(f"{path} exists. Choose another with --output, or add --force.")
        made.write(path)
        document = {
            "path": str(path),
            "requests": len(made),
            "rate": made.rate,
            "mean_prompt_tokens": made.mean_prompt,
            "mean_output_tokens": made.mean_output,
        }
        line = (
            f"{path}: {len(made)} requests, {made.rate:.3g} a second, {made.mean_prompt:.0f} "
            f"prompt and {made.mean_output:.0f} output tokens on average"
        )
        return Output(document, lambda console: print(line))


def _add_cluster(group: typer.Typer) -> None:
    @command(
        group,
        "cluster",
        example="sharpen plan cluster --trace conv --designs AA,HA --objective iso-power "
        "--budget 116kW",
    )
    def cluster(
        trace: Annotated[str, typer.Option(help="A CSV file (see plan trace), or code or conv.")],
        objective: Annotated[
            str,
            typer.Option(help="iso-power, iso-cost, min-cost, min-power or min-machines."),
        ],
        budget: Annotated[
            str,
            typer.Option(help="116kW or 760 dollars/h for iso-*; requests a second for min-*."),
        ],
        model: Annotated[
            str,
            typer.Option(
                help="llama2-70b or bloom-176b, whose runs are known; or a folder with "
                "config.json, by a roofline."
            ),
        ] = "llama2-70b",
        designs: Annotated[
            str, typer.Option(help="Of Baseline-A100, Baseline-H100, AA, HH, HA and HHcap.")
        ] = "Baseline-A100,Baseline-H100,AA,HH,HA,HHcap",
        slo: Annotated[
            str, typer.Option(help="default, or such as ttft=2/3/6,tbt=1.25/1.5/5.")
        ] = "default",
        batching: Annotated[
            str,
            typer.Option(help="scheduled: the engine's; whole: prompts undivided and first."),
        ] = "scheduled",
        overlap: Annotated[
            str, typer.Option(help="Of sending and computing: auto, layers, none or x10.")
        ] = "auto",
        seconds: Annotated[float, typer.Option(help="How long requests arrive.")] = 60.0,
        seed: Annotated[int, typer.Option(help="Of drawn requests.")] = 0,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="JSON file for the report.")
        ] = None,
        plot: Annotated[Path | None, typer.Option(help="Picture of rates and costs.")] = None,
    ) -> Output:
        """Find the cluster that serves a stream of requests best within limits of latency."""
        from sharpen.cli.plan_cluster import ClusterQuestion, answer

        question = ClusterQuestion(
            trace=trace,
            objective=objective,
            budget=budget,
            model=model,
            designs=designs,
            slo=slo,
            batching=batching,
            overlap=overlap,
            seconds=seconds,
            seed=seed,
        )
        return answer(question, output, plot)


def _add_recipe(group: typer.Typer) -> None:
    @command(group, _RECIPE, example="sharpen plan recipe.yaml --devices 64xH100 --search")
    def plan(
        recipe: Recipe,
        overrides: Overrides = None,
        devices: Devices = None,
        search: Search = False,
        all_axes: AllAxes = False,
        causal_flops: Causal = False,
        top: Top = 10,
    ) -> Output:
        """Tell whether a recipe fits, what takes the memory, and how long; exit code 1 if not.

        Clusters that serve requests: sharpen plan cluster --help, sharpen plan trace --help.
        """
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
