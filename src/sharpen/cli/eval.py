"""``sharpen eval``: measure a model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command
from sharpen.cli.progress import bar, observe

__all__ = ["register"]

Model = Annotated[str, typer.Argument(help="An asset's name, a model folder, or a .gguf file.")]
TextFile = Annotated[
    list[Path] | None, typer.Option("--text", help="Text file for perplexity; may be repeated.")
]
TaskFile = Annotated[
    list[Path] | None, typer.Option("--task", help="Task file (JSONL); may be repeated.")
]
Window = Annotated[int, typer.Option(help="Tokens seen at once.")]
Stride = Annotated[int | None, typer.Option(help="Tokens between windows; default the window.")]
MaxTokens = Annotated[int | None, typer.Option(help="Only so many tokens of each text.")]
Limit = Annotated[int | None, typer.Option(help="Only so many questions of each task.")]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter.")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
MaxNewTokens = Annotated[int, typer.Option(help="Longest generated answer, in tokens.")]
Extract = Annotated[
    str, typer.Option(help="Part of an answer to compare: all, first_line or last_number.")
]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "eval", example="sharpen eval tiny --text README.md --window 256 --stride 128")
    def evaluate(
        model: Model,
        text: TextFile = None,
        task: TaskFile = None,
        window: Window = 512,
        stride: Stride = None,
        max_tokens: MaxTokens = None,
        limit: Limit = None,
        adapter: Adapter = None,
        dtype: Dtype = "float32",
        max_new_tokens: MaxNewTokens = 32,
        extract: Extract = "first_line",
    ) -> Output:
        """Measure a model: perplexity of texts, accuracy on task files."""
        from sharpen.core.config import from_dict
        from sharpen.core.errors import ConfigError, MissingFileError

        if not text and not task:
            raise ConfigError("give at least one --text FILE or --task FILE.")
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"--dtype is float32 or bfloat16, got {dtype!r}.")
        for value, name in ((max_tokens, "--max-tokens"), (limit, "--limit")):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")
        for file in text or ():
            if not file.is_file():
                raise MissingFileError(f"no such text file: {file}")

        import torch

        from sharpen.eval import (
            ExactMatchConfig,
            load_task,
            score_choices,
            score_exact_match,
            windowed_loss,
        )
        from sharpen.eval.run import read_text_ids
        from sharpen.models import load_model, load_tokenizer

        match = from_dict(ExactMatchConfig, {"max_new_tokens": max_new_tokens, "extract": extract})
        tasks = [load_task(file) for file in task or ()]
        tokenizer = load_tokenizer(model)
        texts = {str(f): read_text_ids(f, tokenizer)[:max_tokens] for f in text or ()}
        loaded = load_model(model, dtype=getattr(torch, dtype), adapter=adapter)
        document: dict[str, Any] = {"model": model, "dtype": dtype, "texts": [], "tasks": []}
        with observe() as observer:
            for file_name, ids in texts.items():
                with bar(observer, f"perplexity of {Path(file_name).name}", len(ids)) as advance:
                    loss, count = windowed_loss(
                        loaded, ids, window=window, stride=stride, on_progress=advance
                    )
                document["texts"].append(
                    {
                        "file": file_name,
                        "window": window,
                        "stride": window if stride is None else stride,
                        "tokens": count,
                        "loss": loss,
                        "perplexity": math.exp(loss),
                    }
                )
            for one in tasks:
                with bar(observer, one.name, len(one.questions[:limit])) as advance:
                    result: Any
                    if one.kind == "choice":
                        result = score_choices(
                            loaded, tokenizer, one, limit=limit, on_progress=advance
                        )
                    else:
                        result = score_exact_match(
                            loaded, tokenizer, one, match, limit=limit, on_progress=advance
                        )
                document["tasks"].append({"kind": one.kind, **dataclasses.asdict(result)})
        return Output(document, lambda console: _render(console, document))


def _render(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    from sharpen.core.report import format_value

    table = Table("what", "metric", "value", "of", box=None, header_style="bold")
    for row in document["texts"]:
        for metric in ("loss", "perplexity"):
            of = f"{row['tokens']:,} tokens"
            table.add_row(Path(row["file"]).name, metric, format_value(row[metric]), of)
    for row in document["tasks"]:
        for metric in ("acc", "acc_norm", "exact_match"):
            if metric in row:
                of = f"{row['count']:,} questions"
                table.add_row(row["name"], metric, format_value(row[metric]), of)
    console.print(table)
