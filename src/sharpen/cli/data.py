"""``sharpen data``: clean a corpus by a recipe, and see why each row went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli import data_looks, data_models
from sharpen.cli.arrow import start_arrow
from sharpen.cli.common import Output, command, new_app
from sharpen.cli.progress import bar, observe

__all__ = ["app"]

app = new_app("Clean a corpus by a recipe, find duplicates, and see why each row went.")
data_models.register(app)

Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="KEY=VALUE pairs by dotted path.", show_default=False),
]
Target = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder of the result.", show_default=False)
]
Workers = Annotated[
    int | None, typer.Option(help="Threads; default one for each core.", show_default=False)
]
Overwrite = Annotated[bool, typer.Option(help="Replace a folder that holds something else.")]
Folder = Annotated[Path, typer.Argument(help="Folder of a result.", show_default=False)]
Stage = Annotated[str, typer.Option(help="The stage's name, if the recipe has several.")]
OnError = Annotated[
    str | None,
    typer.Option(
        help="Rows that cannot be read or make an operator fail: fail, skip or quarantine.",
        show_default=False,
    ),
]


@command(app, "run", example="sharpen data run examples/data/web_text.yaml --workers 2")
def run(
    file: Recipe,
    overrides: Overrides = None,
    output: Target = None,
    stage: Stage = "data",
    workers: Workers = None,
    executor: Annotated[
        str, typer.Option(help="Where batches are computed: threads, or a ray cluster.")
    ] = "threads",
    on_error: OnError = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which what operators came to is kept for other recipes.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> Output:
    """Carry out the data stage of a recipe; the same command goes on after a kill."""
    start_arrow()
    from sharpen.data.process import load_data_recipe

    given = list(overrides or ())
    if on_error is not None:
        given.append(f"{stage}.on_error={on_error}")
    recipe = load_data_recipe(file, given, stage=stage)
    with observe() as observer, bar(observer, "rows", None) as advance:
        result = recipe.run(
            output,
            executor=executor,  # type: ignore[arg-type]  # checked there
            workers=workers,
            cache=cache,
            overwrite=overwrite,
            on_rows=advance,
        )
    return _result(result)


def _result(result: Any) -> Output:
    from sharpen.data.trace import bad_rows

    read = result.operators.get("read")
    traced = (result.output / "trace").is_dir()
    bad = bad_rows(result.output / "trace") if traced and read and read.dropped else []
    document = {
        "rows_in": result.rows_in,
        "rows_made": result.rows_made,
        "rows_out": result.rows_out,
        "rows_dropped": result.rows_dropped,
        "rows_edited": result.rows_edited,
        "rows_traced": result.rows_dropped,
        "output": str(result.output),
        "report": str(result.report),
        "sha256": result.sha256,
        "cached": result.cached,
        "first_bad_rows": bad,
        "operators": {
            name: {
                "rows_in": t.rows_in,
                "rows_out": t.rows_out,
                "edited": t.edited,
                "failed": t.failed,
                "seconds": round(t.seconds, 4),
            }
            for name, t in result.operators.items()
        },
    }

    def render(console: Any) -> None:
        from rich.table import Table

        from sharpen.core.report import format_value
        from sharpen.data.report import COLUMNS, operator_rows

        table = Table(*COLUMNS, box=None, header_style="bold")
        for row in operator_rows(result.operators):
            table.add_row(*map(format_value, row))
        console.print(table)
        share = result.rows_out / max(result.rows_in + result.rows_made, 1)
        found = " (found there already)" if result.cached else ""
        console.print(
            f"{result.rows_out:,} of {result.rows_in + result.rows_made:,} rows are left "
            f"({share:.1%}): {result.output}{found}"
        )
        if bad:
            console.print(f"{read.dropped:,} rows could not be read, the first of them:")
            for told in bad:
                console.print(f"  {told}", markup=False)
        if not result.rows_out:
            worst = max(result.operators, key=lambda n: result.operators[n].dropped, default="read")
            console.print(f"No row is left; most were dropped by '{worst}'.")

    return Output(document, render)


@command(app, "explain", example="sharpen data explain examples/data/web_text.yaml")
def explain(file: Recipe, overrides: Overrides = None, stage: Stage = "data") -> Output:
    """Check a recipe, and show the order of its operators and what each costs and passes."""
    start_arrow()
    from sharpen.data.explain import explain_recipe
    from sharpen.data.process import load_data_recipe

    document = explain_recipe(load_data_recipe(file, overrides or (), stage=stage))

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table(
            "operator", "kind", "ns a byte", "alone", "passes", box=None, header_style="bold"
        )
        for step in document["steps"]:
            table.add_row(
                step["operator"],
                step["kind"],
                "–" if step["ns_per_byte"] is None else f"{step['ns_per_byte']:.3g}",
                "–" if step["ns_alone"] is None else f"{step['ns_alone']:.3g}",
                "–" if step["passed"] is None else f"{step['passed']:.1%}",
            )
        console.print(table)
        console.print(
            f"measured on the first {document['rows']} rows; output: {document['output']}"
        )

    return Output(document, render)


@command(app, "analyze", example="sharpen data analyze corpus.jsonl -o analysis --keep 0.9")
def analyze(
    source: Annotated[
        str, typer.Argument(help="A recipe, or a file, folder or pattern.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the result.")],
    keep: Annotated[
        float | None,
        typer.Option(help="Suggest thresholds that keep this share of rows.", show_default=False),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="A field whose values are compared.", show_default=False)
    ] = None,
    text_key: Annotated[str, typer.Option(help="Where a row's text stands.")] = "text",
    limit: Annotated[
        int | None, typer.Option(help="At most so many rows.", show_default=False)
    ] = None,
    on_error: Annotated[str, typer.Option(help="Rows that cannot be read: fail or skip.")] = "fail",
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> Output:
    """Measure a corpus, nothing dropped: distributions, rows at thresholds, suggestions."""
    start_arrow()
    from sharpen.data.analyze_folder import analyze_to, open_for_analysis

    rows, operators = open_for_analysis(source, text_key=text_key, limit=limit)
    with observe() as observer, bar(observer, "rows", None) as advance:
        document = analyze_to(
            output,
            rows,
            operators,
            keep=keep,
            by=by,
            on_error=on_error,
            workers=workers,
            overwrite=overwrite,
            on_rows=advance,
        )

    def render(console: Any) -> None:
        from rich.table import Table

        from sharpen.core.config import dump_yaml
        from sharpen.core.report import format_value

        quantiles = ("0.05", "0.5", "0.95")
        table = Table(
            "statistic", "mean", *quantiles, "dropped alone", box=None, header_style="bold"
        )
        for name, row in document["statistics"].items():
            alone = document["dropped_alone"].get(name)
            table.add_row(
                name,
                format_value(row["mean"]),
                *(format_value(row["quantiles"][q]) for q in quantiles),
                "–" if alone is None else f"{alone:.1%}",
            )
        console.print(table)
        console.print(
            f"{document['rows']:,} rows; all filters keep {document['kept_by_all']:.1%}. "
            f"Report: {document['report'] or document['output']}"
        )
        for name, process in document["suggested"].items():
            if keep is not None and name.startswith("keep"):
                console.print(f"to {name.replace('_', ' ')}:\n{dump_yaml({'process': process})}")

    return Output(document, render)


@command(app, "hpo", example="sharpen data hpo analysis --quality stopwords --keep 0.5")
def hpo(
    folder: Annotated[Path, typer.Argument(help="Folder of an analysis.", show_default=False)],
    quality: Annotated[
        str, typer.Option(help="The statistic that says how good a row is.", show_default=False)
    ],
    keep: Annotated[float, typer.Option(help="Wanted share of the rows.")] = 0.5,
    weight: Annotated[
        float, typer.Option(help="Of keeping it, against one deviation of quality.")
    ] = 1.0,
    less_is_better: Annotated[
        bool, typer.Option(help="Rows are better with less of it, as with perplexity.")
    ] = False,
    trials: Annotated[int, typer.Option(help="Trials.")] = 200,
    optimizer: Annotated[str, typer.Option(help="See sharpen search algorithms.")] = "tpe",
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
) -> Output:
    """Search thresholds that leave the best rows, on what an analysis measured."""
    from dataclasses import asdict

    from sharpen.core.config import dump_yaml
    from sharpen.data.thresholds import ThresholdProblem, load_measured, search_thresholds

    problem = ThresholdProblem(
        load_measured(folder), quality, keep=keep, weight=weight, less_is_better=less_is_better
    )
    found = search_thresholds(problem, trials=trials, seed=seed, optimizer=optimizer)

    def render(console: Any) -> None:
        console.print(dump_yaml({"process": found.process}), markup=False)
        console.print(
            f"{found.kept:.1%} of the rows are kept, {found.quality:+.2f} deviations of "
            f"{quality} from all rows; {found.trials} trials."
        )

    return Output(asdict(found), render)


@command(app, "ops", example="sharpen data ops minhash_dedup")
def ops(
    name: Annotated[str | None, typer.Argument(help="One of them.", show_default=False)] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only of this kind: filter, mapper …", show_default=False)
    ] = None,
) -> Output:
    """List the operators, or show one's arguments."""
    from sharpen.data.explain import describe_operators

    rows = describe_operators(name, kind)

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("operator", "kind", "what it does", box=None, header_style="bold")
        for row in rows:
            table.add_row(row["name"], row["kind"], row["summary"].replace("``", ""))
        console.print(table)
        if name is not None:
            table = Table("argument", "type", "default", "", box=None, header_style="bold")
            for argument in rows[0]["arguments"]:
                default = "" if argument["required"] else str(argument["default"])
                table.add_row(argument["name"], argument["type"], default, argument["meaning"])
            console.print(table)

    return Output(rows, render)


@command(app, "import-recipe", example="sharpen data import-recipe dj.yaml -o recipe.yaml")
def import_recipe(
    file: Annotated[Path, typer.Argument(help="A recipe of Data-Juicer.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the file.")] = False,
) -> Output:
    """Translate a recipe of Data-Juicer, and say what cannot be translated and what differs."""
    from sharpen.core.config import dump_yaml
    from sharpen.core.errors import ConfigError
    from sharpen.core.files import atomic_write_text
    from sharpen.data.compat import import_recipe as translate

    found = translate(file)
    text = dump_yaml(found.recipe)
    if output is not None:
        if output.exists() and not overwrite:
            raise ConfigError(f"{output} is there already; --overwrite replaces it.")
        atomic_write_text(output, text)
    document = {
        "recipe": found.recipe,
        "output": None if output is None else str(output),
        "left_out": [{"where": one.where, "why": one.why} for one in found.left_out],
        "notes": list(found.notes),
    }

    def render(console: Any) -> None:
        console.print(text if output is None else f"wrote {output}", markup=False)
        for one in found.left_out:
            console.print(f"left out: {one.where}: {one.why}", markup=False)
        for note in found.notes:
            console.print(f"note: {note}", markup=False)

    return Output(document, render)


@command(app, "dedup", example="sharpen data dedup corpus.jsonl -o unique --threshold 0.7")
def dedup(
    path: Annotated[str, typer.Argument(help="A file, folder or pattern.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the result.")],
    threshold: Annotated[
        float, typer.Option(help="Least share of common shingles of copies; 1 for equal texts.")
    ] = 0.7,
    verify: Annotated[
        str, typer.Option(help="What copies must reach: signature, exact or none.")
    ] = "signature",
    keep: Annotated[
        str, typer.Option(help="Which stays: first, longest, max:FIELD or min:FIELD.")
    ] = "first",
    text_key: Annotated[str, typer.Option(help="Where a row's text stands.")] = "text",
    format: Annotated[str, typer.Option(help="jsonl, parquet or webdataset.")] = "jsonl",
    workers: Workers = None,
    on_error: OnError = None,
    overwrite: Overwrite = False,
) -> Output:
    """Keep one of each group of rows whose texts are equal or nearly so."""
    start_arrow()
    from sharpen.data.process import load_data_recipe

    operator: dict[str, Any] = {"exact_dedup": {"keep": keep}}
    if threshold != 1:
        operator = {"minhash_dedup": {"threshold": threshold, "verify": verify, "keep": keep}}
    recipe = load_data_recipe(
        {
            "sharpen": 1,
            "data": {
                "source": {"path": path, "text_key": text_key},
                "process": [operator],
                "on_error": on_error or "fail",
                "output": {"path": str(output), "format": format},
            },
        }
    )
    with observe() as observer, bar(observer, "rows", None) as advance:
        result = recipe.run(workers=workers, overwrite=overwrite, on_rows=advance)
    return _result(result)


data_looks.register(app)
