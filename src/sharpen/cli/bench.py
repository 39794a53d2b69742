"""``sharpen bench``: what training and serving cost on this machine, measured."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sharpen.cli import bench_optim, bench_serve
from sharpen.cli.common import Output, command, error_console, flags, new_app
from sharpen.cli.run import Overrides, Recipe

if TYPE_CHECKING:
    from sharpen.core.report import Section
    from sharpen.train.bench.module_times import ModuleBench
    from sharpen.train.bench.options import Cell

__all__ = ["app"]

app = new_app("Measure what training and serving cost on this machine.")
app.add_typer(bench_optim.app, name="optim")
bench_serve.register(app)

Source = Annotated[
    str,
    typer.Argument(help="A recipe (.yaml) or a model: an asset, a folder, a .gguf file."),
]
Batch = Annotated[int | None, typer.Option(help="Sequences a forward pass.", min=1)]
Seq = Annotated[int | None, typer.Option(help="Tokens of a sequence.", min=1)]
Documents = Annotated[
    int | None, typer.Option(help="Tokens of a document; default one a sequence.", min=1)
]
Dtype = Annotated[str | None, typer.Option(help="float32 or bfloat16.")]
Method = Annotated[str | None, typer.Option(help="full, lora, dora or qlora.")]
Repeats = Annotated[int, typer.Option(help="Timed steps.", min=1)]
Html = Annotated[
    Path | None, typer.Option("--output", "-o", help="Also write a report with charts (HTML).")
]
Over = Annotated[
    list[str] | None,
    typer.Option(
        help="An option to compare, KEY=a,b,c; repeat it for more. Default: those that matter.",
        show_default=False,
    ),
]
Grid = Annotated[bool, typer.Option("--grid", help="Combine the --over options.")]
Steps = Annotated[int, typer.Option(help="Steps of a run; the first is not counted.", min=2)]
Rounds = Annotated[int, typer.Option(help="Runs of each option.", min=1)]
Processes = Annotated[int, typer.Option("--nproc", help="Processes.", min=1)]
Sizes = Annotated[str, typer.Option(help="KiB of the whole tensor, separated by commas.")]
Seed = Annotated[int, typer.Option(help="Of the tokens and the adapters.")]


def _warn_of_load() -> None:
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > 0.75 * cores and not flags.quiet:
        error_console().print(
            f"[yellow]warning:[/] the load average is {load:.1f} on {cores} cores: other work "
            "slows what is measured. Compare options with each other only."
        )


def _write(output: Path | None, title: str, sections: list[Section]) -> None:
    if output is not None:
        from sharpen.core.report import write_html

        write_html(output, title, sections)


@command(app, "module", example="sharpen bench module tiny --seq 256 --dtype bfloat16")
def module(
    source: Source,
    overrides: Overrides = None,
    batch: Batch = None,
    seq: Seq = None,
    documents: Documents = None,
    dtype: Dtype = None,
    method: Method = None,
    repeats: Repeats = 5,
    seed: Seed = 0,
    output: Html = None,
) -> Output:
    """Time each module of a training step, forward and backward, beside the machine's roof."""
    import dataclasses

    from sharpen.train.bench.modules import bench_modules

    model, config = _module_job(source, overrides or [], batch, seq, documents, dtype, method)
    _warn_of_load()
    times = bench_modules(model, dataclasses.replace(config, repeats=repeats), seed=seed)
    _write(output, f"Modules of {times.model}", times.sections())
    return Output(times.to_dict(), lambda console: print(times.table()))


def _module_job(
    source: str,
    overrides: list[str],
    batch: int | None,
    seq: int | None,
    documents: int | None,
    dtype: str | None,
    method: str | None,
) -> tuple[str, ModuleBench]:
    """The model, and what to measure: the recipe's settings where the user gave none."""
    from sharpen.core.config import from_dict, to_dict
    from sharpen.core.errors import ConfigError
    from sharpen.train.bench.module_times import ModuleBench
    from sharpen.train.bench.modules import recipe_bench

    if source.endswith((".yaml", ".yml")):
        model, found = recipe_bench(source, overrides)
    elif overrides:
        raise ConfigError(f"{overrides[0]!r}: overrides need a recipe, and {source} is a model.")
    else:
        model, found = source, ModuleBench()
    plain: dict[str, Any] = to_dict(found)
    given = {"batch": batch, "seq_len": seq, "document_tokens": documents}
    plain.update({key: value for key, value in given.items() if value is not None})
    chosen = {"dtype": dtype, "method": method}
    plain["train"].update({key: value for key, value in chosen.items() if value is not None})
    return model, from_dict(ModuleBench, plain)


@command(
    app, "train", example="sharpen bench train recipe.yaml --over train.dtype=float32,bfloat16"
)
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    over: Over = None,
    grid: Grid = False,
    steps: Steps = 4,
    rounds: Rounds = 2,
    nproc: Processes = 1,
    output: Html = None,
) -> Output:
    """Run a recipe's training briefly with one option changed at a time; tell what pays."""
    from sharpen.train.bench.options import OptionBench, bench_options

    _warn_of_load()

    def tell(cell: Cell, number: int) -> None:
        if not flags.quiet:
            error_console().print(f"[dim]round {number + 1}: {cell.name}[/]")

    times = bench_options(
        recipe,
        overrides or [],
        cells=_cells(over, grid) if over else None,
        config=OptionBench(steps=steps, rounds=rounds, nproc=nproc),
        on_cell=tell,
    )
    _write(output, f"Options of {times.recipe}", times.sections())
    return Output(times.to_dict(), lambda console: print(times.table()))


def _cells(over: list[str], grid: bool) -> list[Cell]:
    """One for each value, or for each combination."""
    from sharpen.core.errors import ConfigError
    from sharpen.train.bench.options import Cell

    axes = []
    for text in over:
        key, equals, values = text.partition("=")
        chosen = [value.strip() for value in values.split(",") if value.strip()]
        if not equals or not key.strip() or not chosen:
            raise ConfigError(
                f"--over {text!r} is not of the form KEY=a,b,c, such as "
                "train.dtype=float32,bfloat16."
            )
        axes.append([f"{key.strip()}={value}" for value in chosen])
    together = itertools.product(*axes) if grid else ((one,) for axis in axes for one in axis)
    return [Cell(name=", ".join(one), overrides=tuple(one)) for one in together]


@command(app, "collectives", example="sharpen bench collectives --nproc 2")
def collectives(
    nproc: Processes = 2,
    sizes: Sizes = "4,64,1024,16384",
    repeats: Repeats = 10,
    output: Html = None,
) -> Output:
    """Measure the bandwidth between processes of this machine, by collective and size."""
    from sharpen.core.errors import ConfigError
    from sharpen.train.bench.collectives import bench_collectives

    try:
        chosen = [int(float(text) * 1024) for text in sizes.split(",")]
    except ValueError:
        raise ConfigError(f"--sizes {sizes!r} must be numbers of KiB: 4,64,1024.") from None
    _warn_of_load()
    times = bench_collectives(nproc, sizes=chosen, repeats=repeats)
    _write(output, f"Collectives between {nproc} processes", times.sections())
    return Output(times.to_dict(), lambda console: print(times.table()))
