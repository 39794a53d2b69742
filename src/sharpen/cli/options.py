"""Options that several commands share, each with one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Adapter", "CalibrationTexts", "Device", "Model", "Samples"]

Model = Annotated[str, typer.Argument(help="An asset's name, a model folder, or a .gguf file.")]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to fold in first.")]
CalibrationTexts = Annotated[
    Path,
    typer.Option(
        help="Texts like those the model will see: a file or folder of JSONL ('text'), text or "
        "Parquet, or a data set; or python-stdlib, the source of Python's library."
    ),
]
Samples = Annotated[int, typer.Option(help="Rows of 256 tokens of it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or such as cuda:1.")]
