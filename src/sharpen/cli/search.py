"""``sharpen search``: run, join and inspect studies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli import search_bench
from sharpen.cli.common import Output, command, flags, new_app

__all__ = ["announce", "app", "study_output"]

app = new_app("Run, join and inspect studies.")
search_bench.register(app)
File = Annotated[Path, typer.Argument(help="The study, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="KEY=VALUE pairs by dotted path.", show_default=False),
]
StoreUrl = Annotated[str, typer.Option("--store", help="The store: sqlite:///FILE, or the file.")]
Name = Annotated[str, typer.Argument(help="The study's name.", show_default=False)]
Target = Annotated[Path, typer.Argument(help="The file to write.", show_default=False)]
_DEFAULT = "sqlite:///study.db"


def announce(study: Any, trial: Any) -> None:
    """One line on standard error when a trial ended."""
    if flags.quiet or flags.as_json:
        return
    from sharpen.core.report import format_value

    values = "  ".join(f"{name} {format_value(value)}" for name, value in trial.values.items())
    note = "" if trial.is_ok else trial.state
    if trial.is_ok and not trial.feasible:
        note = "a constraint is not kept"
    if trial.feedback is not None and trial.feedback.error:
        note += f": {trial.feedback.error.strip().splitlines()[-1]}"
    parts = [part for part in (values, note) if part]
    sys.stderr.write(f"trial {trial.number}: {'  '.join(parts)}\n")


@command(app, "run", example="sharpen search run examples/study.yaml budget.trials=20")
def run(file: File, overrides: Overrides = None) -> Output:
    """Carry a study out; the same command resumes it, and two at once share the work."""
    from sharpen.core.study_file import load_study_file

    study = load_study_file(file, overrides or (), callbacks=(announce,)).run()
    return study_output(study)


@command(app, "work", example="sharpen search work chaos --store postgresql://me@host/db")
def work(
    name: Name,
    store: StoreUrl = _DEFAULT,
    workers: Annotated[
        int | None, typer.Option(help="Trials at once; default the study file's.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where its program runs; default where it ran first.")
    ] = None,
) -> Output:
    """Join a study that a study file began, from its store alone; on another machine too."""
    from sharpen.core.study_file import join_study

    study = join_study(store, name, folder=folder, workers=workers, callbacks=(announce,))
    return study_output(study.run())


@command(app, "resume", example="sharpen search resume chaos --store sqlite:///s.db --trials 200")
def resume(
    name: Name,
    store: StoreUrl = _DEFAULT,
    trials: Annotated[
        int | None, typer.Option(help="Trials in the whole study; default the study file's.")
    ] = None,
) -> Output:
    """Go on with a study that a study file began, from its store alone; with a larger budget."""
    from sharpen.core.study_file import join_study

    return study_output(join_study(store, name, trials=trials, callbacks=(announce,)).run())


@command(app, "compare", example="sharpen search compare tpe random --store sqlite:///s.db")
def compare(
    names: Annotated[list[str], typer.Argument(help="Two studies or more.", show_default=False)],
    store: StoreUrl = _DEFAULT,
) -> Output:
    """Show studies of the same objectives side by side."""
    from sharpen.core.study_compare import compare_studies

    document = compare_studies([_load(store, name) for name in names])
    return Output(document, lambda console: _comparison(console, document))


@command(app, "import-optuna", example="sharpen search import-optuna optuna.db --study mine")
def import_optuna(
    source: Annotated[str, typer.Argument(help="Optuna's storage: a URL, or a SQLite file.")],
    study: Annotated[
        str | None, typer.Option("--study", help="Its name there; default the only one.")
    ] = None,
    store: StoreUrl = _DEFAULT,
    name: Annotated[
        str | None, typer.Option("--name", help="Its name here; default the same.")
    ] = None,
) -> Output:
    """Take a study of Optuna over, with its trials and learning curves."""
    from sharpen.core.optuna_import import import_optuna as take_over

    found = take_over(source, study, store=store, name=name)
    document = {**found.summary(), "space": found.space.to_dict()["parameters"]}
    return Output(document, lambda console: render_study(console, document))


@command(app, "algorithms", example="sharpen search algorithms")
def algorithms() -> Output:
    """List the optimizers that are installed, and what each can handle."""
    from dataclasses import asdict

    from sharpen.core.errors import DependencyNotInstalled
    from sharpen.core.optimizer import find_optimizer, optimizer_names

    rows: list[dict[str, Any]] = []
    for name in optimizer_names():
        try:
            made = find_optimizer(name)
        except DependencyNotInstalled as error:
            rows.append({"name": name, "missing": str(error)})
            continue
        able = getattr(made, "capabilities", None)
        rows.append({"name": name, "can": asdict(able) if able is not None else None})

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("optimizer", "can handle", box=None, header_style="bold")
        for row in rows:
            can = row.get("can")
            text = row.get("missing", "chooses another by the problem")
            if can is not None:
                words = [key.replace("_", " ") for key, value in can.items() if value is True]
                limits = [
                    f"at most {value:,} {key.removeprefix('max_')}"
                    for key, value in can.items()
                    if key.startswith("max_") and value is not None
                ]
                text = ", ".join([*words, *limits])
            table.add_row(row["name"], text)
        console.print(table)

    return Output(rows, render)


@command(app, "problems", example="sharpen search problems")
def problems() -> Output:
    """List the problems that are installed, as study files name them."""
    from sharpen.core.problem_names import describe_problems

    rows = describe_problems()

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("problem", "what it is", "arguments", box=None, header_style="bold")
        for row in rows:
            table.add_row(row["name"], row["about"], ", ".join(row["arguments"]))
        console.print(table)

    return Output(rows, render)


@command(app, "list", example="sharpen search list --store sqlite:///study.db")
def list_all(store: StoreUrl = _DEFAULT) -> Output:
    """List the studies of a store."""
    from sharpen.core.store import open_store

    records = open_store(store, create=False).studies()
    rows: list[dict[str, Any]] = [
        {
            "name": record.name,
            "objectives": {o["name"]: o["direction"] for o in record.objectives},
            "parameters": list(record.space["parameters"]),
            "trials": record.counts,
            "created_s": record.created_s,
        }
        for record in records
    ]

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("study", "objectives", "parameters", "trials", box=None, header_style="bold")
        for row in rows:
            goals = ", ".join(f"{way} {name}" for name, way in row["objectives"].items())
            table.add_row(row["name"], goals, ", ".join(row["parameters"]), _counts(row["trials"]))
        console.print(table)

    return Output(rows, render)


@command(app, "show", example="sharpen search show chaos --store sqlite:///s.db")
def show(name: Name, store: StoreUrl = _DEFAULT) -> Output:
    """Show how far a study is and what it found."""
    document = _load(store, name).summary()
    return Output(document, lambda console: render_study(console, document))


@command(app, "best", example="sharpen search best chaos --store sqlite:///s.db --json")
def best(name: Name, store: StoreUrl = _DEFAULT) -> Output:
    """Print the best trial of a study with one objective."""
    trial = _load(store, name).best.to_dict()
    return Output(trial, lambda console: _trials(console, [trial]))


@command(app, "pareto", example="sharpen search pareto chaos --store sqlite:///s.db --json")
def pareto(name: Name, store: StoreUrl = _DEFAULT) -> Output:
    """Print the trials that no other beats in every objective."""
    found = [trial.to_dict() for trial in _load(store, name).pareto()]
    return Output(found, lambda console: _trials(console, found))


@command(app, "importance", example="sharpen search importance chaos --store sqlite:///s.db")
def importance(
    name: Name,
    store: StoreUrl = _DEFAULT,
    objective: Annotated[
        str | None, typer.Option(help="Which objective; default the first.")
    ] = None,
) -> Output:
    """Show which parameters matter, alone and in pairs, and what changing the default gained."""
    found = _load(store, name).importance(objective)
    document = {
        "study": name,
        "objective": found.objective,
        "trials": found.trials,
        "fit": found.fit,
        "parameters": found.parameters,
        "pairs": [{"of": list(pair), "share": share} for pair, share in found.pairs.items()],
        "ablation": [{"parameter": n, "predicted": value} for n, value in found.ablation],
    }

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("parameter", "share of the variance", box=None, header_style="bold")
        for parameter, share in found.parameters.items():
            table.add_row(parameter, f"{share:.1%}")
        for pair, share in list(found.pairs.items())[:5]:
            if share >= 0.01:
                table.add_row(" x ".join(pair), f"{share:.1%}")
        console.print(table)
        console.print(f"from {found.trials} trials; the forest explains {found.fit:.0%} of others")

    return Output(document, render)


@command(app, "trials", example="sharpen search trials chaos --store sqlite:///s.db")
def trials(
    name: Name,
    store: StoreUrl = _DEFAULT,
    state: Annotated[str | None, typer.Option(help="Only those in this state: failed.")] = None,
) -> Output:
    """Print every trial of a study; failed ones with their error under --json."""
    found = [t.to_dict() for t in _load(store, name).trials() if state in (None, t.state)]
    return Output(found, lambda console: _trials(console, found))


@command(app, "export", example="sharpen search export --store sqlite:///s.db chaos out.jsonl")
def export(name: Name, target: Target, store: StoreUrl = _DEFAULT) -> Output:
    """Write every trial to a .jsonl, .csv or .parquet file."""
    study = _load(store, name)
    path = study.export(target)
    document = {"study": name, "trials": len(study.trials()), "output": str(path)}
    return Output(document, lambda console: print(f"{document['trials']} trials: {path}"))


@command(app, "report", example="sharpen search report --store sqlite:///s.db chaos study.html")
def report(name: Name, target: Target = Path("study.html"), store: StoreUrl = _DEFAULT) -> Output:
    """Write a study's report, one self-contained HTML file."""
    path = _load(store, name).report(target)
    return Output({"study": name, "report": str(path)}, lambda console: print(path))


@command(app, "doctor", example="sharpen search doctor --store sqlite:///s.db")
def doctor(store: StoreUrl = _DEFAULT) -> Output:
    """Check a store: its files, and trials whose workers are gone; exit code 1 if damaged."""
    from sharpen.core.errors import SharpenError
    from sharpen.core.store import open_store

    opened = open_store(store, create=False)
    whole = opened.is_whole()
    studies: list[dict[str, Any]] = []
    try:
        for record in opened.studies():
            lost = opened.lost(record.id)
            studies.append({"name": record.name, "trials": record.counts, "lost": lost})
    except SharpenError:
        if whole:
            raise
    document = {"store": opened.url, "whole": whole, "studies": studies}

    def render(console: Any) -> None:
        console.print(f"{document['store']}: {'whole' if whole else '[red]damaged[/]'}")
        for row in studies:
            lost = len(row["lost"])
            note = f"; {lost} of lost workers, begun again by the next" if lost else ""
            console.print(f"  {row['name']}: {_counts(row['trials'])}{note}")
        if not whole:
            console.print("Export what can be read (sharpen search export) and begin a new store.")

    return Output(document, render, 0 if whole else 1)


@command(app, "delete", example="sharpen search delete --store sqlite:///s.db chaos --force")
def delete(
    name: Name,
    store: StoreUrl = _DEFAULT,
    force: Annotated[
        bool, typer.Option("--force", help="Do it; trials cannot be restored.")
    ] = False,
) -> Output:
    """Delete a study and its trials."""
    from sharpen.core.errors import ConfigError
    from sharpen.core.store import open_store

    opened = open_store(store, create=False)
    count = sum(opened.study(name).counts.values())
    if not force:
        raise ConfigError(f"this deletes the study '{name}' and its {count} trials. Add --force.")
    opened.delete_study(name)
    return Output({"deleted": name, "trials": count}, lambda console: print(f"deleted {name}"))


def _comparison(console: Any, document: dict[str, Any]) -> None:
    """A row a study: the best value after so many trials, or whose Pareto set covers whose."""
    from rich.table import Table

    from sharpen.core.report import format_value

    rows = document["studies"]
    several = "pareto" in rows[0]
    marks = sorted({mark for row in rows for mark in row.get("best_after", {})})
    heads = [f"covers {row['name']}" for row in rows] if several else [f"@{m}" for m in marks]
    table = Table("study", "trials", "ok", *heads, box=None, header_style="bold")
    for row in rows:
        cells = [format_value(row.get("best_after", {}).get(mark)) for mark in marks]
        if several:
            cells = [format_value(row["covers"].get(other["name"])) for other in rows]
        table.add_row(row["name"], str(row["trials"]), str(row["ok"]), *cells)
    console.print(table)


def _load(store: str, name: str) -> Any:
    from sharpen.core.study_view import load_study

    return load_study(store, name)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def study_output(study: Any) -> Output:
    """What a command that ran ``study`` returns: exit code 1 when no trial ended well."""
    document = study.summary()
    code = 0 if document.get("best") or document.get("pareto") else 1
    return Output(document, lambda console: render_study(console, document), code)


def render_study(console: Any, document: dict[str, Any]) -> None:
    """Print a study's summary for people."""
    console.print(f"[bold]{document['name']}[/]  {document['store']}")
    console.print(f"trials: {_counts(document['trials'])}")
    found = document.get("pareto") or [document.get("best")]
    found = [trial for trial in found if trial is not None]
    if not found:
        console.print("no trial ended well and feasible")
        return
    console.print("best:" if "best" in document else "Pareto set:")
    _trials(console, found)


def _trials(console: Any, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from sharpen.core.report import format_value

    def union(key: str) -> list[str]:
        return list(dict.fromkeys(name for row in rows for name in row.get(key, {})))

    values, parameters = union("values"), union("config")
    table = Table("trial", "state", *values, *parameters, box=None, header_style="bold")
    for row in rows:
        table.add_row(
            str(row["number"]),
            row["state"],
            *(format_value(row.get("values", {}).get(name)) for name in values),
            *(format_value(row["config"].get(name)) for name in parameters),
        )
    console.print(table)
