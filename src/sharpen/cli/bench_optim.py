"""``sharpen bench optim``: what optimizers cost, and how soon they reach a result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, default_command, error_console, flags, new_app

__all__ = ["app"]

app = new_app("What optimizers cost, and how soon they reach a result.")

_QUICK_S, _FULL_S = 1.0, 6.0  # a method and peer

Quick = Annotated[bool, typer.Option("--quick", help="Step each for a second, not six.")]
Methods = Annotated[
    str | None, typer.Option(help="Names separated by commas; default all.", show_default=False)
]
Html = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Also write charts (HTML).", show_default=False),
]


@default_command(app, example="sharpen bench optim --quick --json")
def cost(quick: Quick = False, methods: Methods = None, output: Html = None) -> Output:
    """Time a step of each optimizer and of its peers that are installed, on one thread.

    A row a method and peer: nanoseconds a parameter (least CPU time), bytes of state a parameter,
    and the peer's time over the method's.
    """
    from sharpen.optim.bench.step_cost import measure_costs
    from sharpen.optim.names import canonical

    names = [canonical(name) for name in methods.split(",")] if methods else None

    def tell(name: str) -> None:
        if not flags.quiet and not flags.as_json:
            error_console().print(f"[dim]first step of {name}[/]")

    found = measure_costs(names, seconds=_QUICK_S if quick else _FULL_S, tell=tell)
    rows = sorted(found["rows"], key=lambda row: row.ns_per_param)
    document = {**found, "rows": [dataclasses.asdict(row) for row in rows]}
    if output is not None:
        _write_chart(output, document)
    return Output({"format": 1, **document}, lambda console: _render(console, document))


Model = Annotated[
    str, typer.Option("--config", help="A shape: llama-60m, -130m, -350m, -1b, -7b or -13b.")
]
Names = Annotated[str, typer.Option("--optimizer", help="Names separated by commas.")]
Dtype = Annotated[str, typer.Option(help="Of weights and gradients: float32 or bfloat16.")]
World = Annotated[int, typer.Option("--ranks", help="Ranks that share everything.", min=1)]
Submissions = Annotated[
    list[str], typer.Option("--submission", help="A name or a .py file; repeat it for more.")
]
Workloads = Annotated[
    str, typer.Option("--workloads", help="Names separated by commas, or: suite, variants.")
]
Rules = Annotated[str, typer.Option("--rules", help="external or self tuning.")]
ClockName = Annotated[str, typer.Option("--clock", help="steps, cpu or wall.")]
Trials = Annotated[int, typer.Option(help="Settings a study.", min=1)]
Studies = Annotated[int, typer.Option(help="Studies.", min=1)]
Processes = Annotated[int, typer.Option("--jobs", help="Trials at a time.", min=1)]
Seed = Annotated[int, typer.Option(help="Of settings, weights and data.")]
JournalFile = Annotated[
    Path, typer.Option("--journal", help="File with a line a trial; a run goes on from it.")
]
TargetFile = Annotated[
    Path | None, typer.Option("--targets", help="Targets other than the package's.")
]
SpaceFile = Annotated[
    Path | None, typer.Option("--space", help="JSON search space for all submissions.")
]
Reference = Annotated[str | None, typer.Option(help="Submission that speed-ups are to.")]
Results = Annotated[
    Path, typer.Argument(help="A journal (.jsonl), or a folder of AlgoPerf's own results.")
]


@command(
    app, "memory", example="sharpen bench optim memory --config llama-7b --optimizer apollo,adamw"
)
def memory(
    config: Model = "llama-1b",
    optimizer: Names = "adamw,adamw_8bit,apollo,apollo_mini,galore,lion",
    dtype: Dtype = "bfloat16",
    ranks: World = 1,
) -> Output:
    """Tell what training keeps a rank: weights, gradients, states, bases. Nothing is allocated."""
    from sharpen.optim.bench.shapes import memory_table

    rows = memory_table(config, optimizer.split(","), dtype=dtype, world_size=ranks)
    document = {"format": 1, "config": config, "dtype": dtype, "ranks": ranks, "rows": rows}

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for number, name in enumerate(("", "weights", "gradients", "states", "bases", "GB in all")):
            table.add_column(name, justify="right" if number else "left")
        for row in rows:
            parts = [row[key] for key in ("params", "grads", "states", "projections", "total")]
            table.add_row(row["optimizer"], *(f"{part / 1e9:.3f}" for part in parts))
        console.print(table)

    return Output(document, render)


@command(
    app, "run", example="sharpen bench optim run --submission adamw --submission lion --jobs 2"
)
def run(
    submission: Submissions,
    workloads: Workloads = "suite",
    rules: Rules = "external",
    clock: ClockName = "steps",
    trials: Trials = 5,
    studies: Studies = 3,
    jobs: Processes = 1,
    seed: Seed = 0,
    journal: JournalFile = Path("trials.jsonl"),
    targets: TargetFile = None,
    space: SpaceFile = None,
    output: Html = None,
) -> Output:
    """Train submissions on workloads until their targets, by AlgoPerf's rules, and score them."""
    from sharpen.core.errors import ConfigError
    from sharpen.optim.bench.study import Journal, plan_jobs, run_jobs
    from sharpen.optim.bench.suite import load_targets

    if rules not in ("external", "self"):
        raise ConfigError(f"--rules={rules!r} must be 'external' or 'self'.")
    names = _workloads(workloads)
    known = load_targets(targets)
    if missing := [name for name in names if name not in known]:
        raise ConfigError(f"there is no target for {', '.join(missing)}; see set-targets.")
    planned = plan_jobs(
        submission,
        names,
        rules=rules,  # type: ignore[arg-type]
        clock=clock,  # type: ignore[arg-type]
        trials=trials,
        studies=studies,
        seed=seed,
        space=space,
    )
    log = Journal(journal)
    run_jobs(planned, log, known, processes=jobs, tell=_tell)
    wanted = {job.key for job in planned}
    keys = ("submission", "workload", "clock", "study", "trial")
    rows = [row for row in log.rows() if tuple(row[key] for key in keys) in wanted]
    return _scored(rows, clock, None, output)


@command(app, "score", example="sharpen bench optim score trials.jsonl --reference adamw")
def score(results: Results, reference: Reference = None, output: Html = None) -> Output:
    """Score a journal of trials, or the result folders of AlgoPerf itself."""
    from sharpen.core.errors import DataError, MissingFileError
    from sharpen.optim.bench.official import read_results
    from sharpen.optim.bench.study import Journal

    if not results.exists():
        raise MissingFileError(f"there is no file or folder {results}.")
    if results.is_dir():
        return _document(read_results(results), "seconds", reference, output)
    rows = Journal(results).rows()
    clocks = {row["clock"] for row in rows}
    if len(clocks) != 1:
        raise DataError(
            f"{results} has trials on the clocks {sorted(clocks)}; score one at a time."
        )
    return _scored(rows, clocks.pop(), reference, output)


@command(app, "set-targets", example="sharpen bench optim set-targets --workloads digits-mlp")
def set_targets(
    workloads: Workloads = "suite",
    trials: Trials = 20,
    seeds: Annotated[int, typer.Option(help="Runs of the best setting.", min=1)] = 10,
    jobs: Processes = 1,
    journal: JournalFile = Path("targets.jsonl"),
    targets: Annotated[Path, typer.Option("--targets", help="File to write.")] = Path(
        "targets.json"
    ),
) -> Output:
    """Set targets: what the best of AdamW, NAdamW, heavy ball and Nesterov reaches."""
    import dataclasses

    from sharpen.optim.bench.targets import set_targets as set_them

    found = set_them(
        _workloads(workloads),
        targets,
        journal,
        trials=trials,
        seeds=seeds,
        processes=jobs,
        tell=_tell,
    )
    document = {name: dataclasses.asdict(target) for name, target in found.items()}

    def render(console: Any) -> None:
        for name, target in document.items():
            console.print(f"{name}: {target}")

    return Output({"format": 1, "targets": document}, render)


def _workloads(text: str) -> list[str]:
    from sharpen.optim.bench.suite import find_workload, left_out, suite

    if text in ("suite", "variants"):
        for name, why in left_out().items():
            if not flags.quiet:
                error_console().print(
                    f"left out {name}: {why}", style="yellow", markup=False, soft_wrap=True
                )
        return [n for n in suite(variants=text == "variants") if ("/" in n) == (text != "suite")]
    names = text.split(",")
    for name in names:
        find_workload(name)
    return names


def _tell(job: Any, result: Any) -> None:
    if not flags.quiet and not flags.as_json:
        error_console().print(
            f"[dim]{job.workload} {job.submission} {job.study + 1}.{job.trial + 1}: "
            f"{result.status} after {result.steps} steps[/]"
        )


def _scored(
    rows: list[dict[str, Any]], clock: str, reference: str | None, output: Path | None
) -> Output:
    from sharpen.optim.bench.study import times_of

    return _document(times_of(rows), clock, reference, output)


def _document(times: Any, clock: str, reference: str | None, output: Path | None) -> Output:
    from sharpen.core.report import write_html
    from sharpen.optim.bench.report import document, markdown, sections

    found = document(times, clock=clock, reference=reference)
    if output is not None:
        write_html(output, "Time to a result", sections(found))
    return Output(found, lambda console: print(markdown(found)))


def _render(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("set", "ns a parameter", "first step", "state bytes", "limit ns", "times peer"):
        table.add_column(name, justify="left" if name == "set" else "right")
    for row in document["rows"]:
        ratio, limit = row["ratio"], row["limit_ns_per_param"]
        table.add_row(
            row["name"],
            row["parameters"],
            f"{row['ns_per_param']:.2f}",
            f"{row['first_ns_per_param']:.1f}",
            f"{row['state_bytes_per_param']:.2f}",
            "" if limit is None else f"{limit:.2f}",
            "" if ratio is None else f"{ratio:.2f} x {row['peer']}",
        )
    console.print(table)
    console.print(
        f"one thread, {document['isa']}, {document['bandwidth_gb_s']:.1f} GB/s; least CPU time"
    )


def _write_chart(output: Path, document: dict[str, Any]) -> None:
    from sharpen.core.report import Chart, Section, Series, write_html

    rows = document["rows"]
    names = [row["name"] for row in rows]
    charts = [
        Chart(
            title=title,
            series=[Series(key, names, [row[key] for row in rows])],
            x_label="",
            y_label=title,
            kind="bar",
            log_y=True,
        )
        for key, title in (
            ("ns_per_param", "ns a parameter"),
            ("state_bytes_per_param", "bytes of state a parameter"),
        )
    ]
    write_html(output, "A step of each optimizer", [Section("One thread", charts)])
