"""``sharpen monitor``: references of what a model is asked, and whether a log drifted from one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, new_app
from sharpen.cli.serve import Adapter, Dtype, Model

__all__ = ["app"]

app = new_app("Tell whether what a served model is asked has drifted.")

Prompts = Annotated[
    Path, typer.Argument(help="JSONL of rows with 'messages' or 'prompt'.", show_default=False)
]
ReferenceFile = Annotated[Path, typer.Argument(help="The reference.", show_default=False)]
Out = Annotated[Path, typer.Argument(help="File to write.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]
MinCount = Annotated[int, typer.Option(help="Fewer prompts than this are not compared.")]
Alpha = Annotated[float, typer.Option(help="Share of false alarms that is accepted.")]


@command(app, "reference", example="sharpen monitor reference tiny prompts.jsonl tiny.monitor.json")
def reference(
    model: Model,
    prompts: Prompts,
    out: Out,
    dtype: Dtype = "auto",
    adapter: Adapter = None,
    force: Force = False,
) -> Output:
    """Reduce typical prompts to a reference for `sharpen serve --monitor` and `monitor check`."""
    from sharpen.core.errors import BusyError
    from sharpen.serve.llm import LLM
    from sharpen.serve.reference import make_reference, read_prompts

    if out.exists() and not force:
        raise BusyError(f"{out} exists. Replace it with --force, or choose another file.")
    found = read_prompts(prompts)
    made = make_reference(LLM(model, dtype=dtype, adapter=adapter), found)
    made.save(out)
    tokens = sum(prompt.length for prompt in made.prompts)
    document = {"output": str(out), "prompts": len(made.prompts), "tokens": tokens}

    def render(console: Any) -> None:
        console.print(f"{out}: {len(found):,} prompts, {tokens:,} tokens. No text is kept.")
        console.print(f"Use it:  sharpen serve {model} --monitor {out}")

    return Output(document, render)


@command(app, "check", example="sharpen monitor check tiny tiny.monitor.json log.jsonl")
def check(
    model: Model,
    reference: ReferenceFile,
    prompts: Prompts,
    dtype: Dtype = "auto",
    adapter: Adapter = None,
    min_count: MinCount = 20,
    alpha: Alpha = 0.01,
) -> Output:
    """Compare logged prompts with a reference; exits with 1 when they drifted."""
    from sharpen.serve.llm import LLM
    from sharpen.serve.monitor import MonitorConfig, check_prompts
    from sharpen.serve.reference import Reference, read_prompts

    config = MonitorConfig(min_count=min_count, window=max(200, min_count), alpha=alpha)
    expected, found = Reference.load(reference), read_prompts(prompts)
    llm = LLM(model, dtype=dtype, adapter=adapter)
    report = check_prompts(llm, expected, found, config)
    document = report.document()
    return Output(document, lambda console: _render(console, document), int(report.drifted))


def _render(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    from sharpen.core.report import format_value

    columns = ("signal", "expected", "found", "shift", "limit", "p", "drifted")
    table = Table(*columns, box=None, header_style="bold")
    for row in document["signals"]:
        numbers = (row["reference"], row["live"], row["shift"], row["limit"], row["p_value"])
        shown = ["" if value is None else format_value(value) for value in numbers]
        table.add_row(row["name"], *shown, "yes" if row["drifted"] else "no")
    console.print(table)
