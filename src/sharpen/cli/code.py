"""``sharpen code``: programs that nobody trusts, how fast your own are, and sets of problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.code_bench import register as register_bench
from sharpen.cli.code_data import register as register_data
from sharpen.cli.code_eval import register as register_eval
from sharpen.cli.code_pie import register as register_pie
from sharpen.cli.code_training import register as register_training
from sharpen.cli.common import Output, command, new_app
from sharpen.core.errors import FileFormatError, MissingFileError

__all__ = ["app"]

app = new_app("Run programs that nobody trusts, time your own, evaluate those of models.")


register_bench(app)
register_data(app)
register_eval(app)
register_pie(app)
register_training(app)


@app.callback()
def group() -> None:
    """Run programs that nobody trusts, time your own, evaluate those of models."""


@command(app, "run", example="sharpen code run file.py --entry f --inputs in.json --limits cpu=2")
def run(
    file: Annotated[Path, typer.Argument(help="The program.", show_default=False)],
    entry: Annotated[
        str | None, typer.Option(help="The function to call; without one the program is only run.")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="JSON: a list of calls, each the list of its arguments."),
    ] = None,
    expected: Annotated[
        Path | None, typer.Option(help="JSON: the list of what each call should give.")
    ] = None,
    tests: Annotated[
        Path | None, typer.Option(help="Assert-style tests of the function, instead of inputs.")
    ] = None,
    limits: Annotated[
        str, typer.Option(help="What it may use, as in cpu=2,mem=256M,procs=4,wall=10.")
    ] = "",
    packages: Annotated[
        str, typer.Option(help="Installed packages that it may import, as in numpy,scipy.")
    ] = "",
    tier: Annotated[str, typer.Option(help="Protection: auto, 1, 2 or 3.")] = "auto",
    unsafe_no_sandbox: Annotated[
        bool, typer.Option("--unsafe-no-sandbox", help="Run it even without any protection.")
    ] = False,
) -> Output:
    """Run a program that nobody trusts in a sandbox, within limits.

    Exit code 1 unless the status is ok; 3 where this machine has no sandbox.
    """
    from sharpen.core.sandbox import Job, Limits, SandboxPool

    job = Job(
        source=_text(file),
        entry=entry,
        inputs=_list(inputs) if inputs else (() if entry is None or tests else ((),)),
        expected=_list(expected) if expected else None,
        tests=_text(tests) if tests else None,
        mutated=entry is not None and tests is None,
    )
    with SandboxPool(
        1,
        int(tier) if tier.isdigit() else tier,
        Limits.parse(limits),
        [name.strip() for name in packages.split(",") if name.strip()],
        allow_unsafe=unsafe_no_sandbox,
    ) as pool:
        result = pool.run(job)

    def render(console: Any) -> None:
        for text in (result.stdout, result.stderr):
            if text:
                console.print(text.rstrip("\n"), markup=False)
        for index, output in enumerate(result.to_json()["outputs"]):
            console.print(f"{index}: {output!r}", markup=False)
        if result.error is not None and result.error.traceback:
            console.print(result.error.traceback, markup=False)
        console.print(result.summary(), markup=False)

    return Output({"format": 1, **result.to_json()}, render, 0 if result.ok else 1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist.") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise FileFormatError(f"{path} is no text in UTF-8: {error}.") from None


def _list(path: Path) -> list[Any]:
    try:
        value = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise FileFormatError(f"{path}:{error.lineno}: no JSON: {error.msg}.") from None
    if not isinstance(value, list):
        raise FileFormatError(f"{path}: a list is needed, this is {type(value).__name__}.")
    return value
