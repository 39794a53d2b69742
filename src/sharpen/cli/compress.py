"""``sharpen compress``: quantize a model's weights into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command

__all__ = ["register"]

Model = Annotated[str, typer.Argument(help="An asset's name, a model folder, or a .gguf file.")]
Out = Annotated[Path, typer.Argument(help="Folder to write.")]
Bits = Annotated[int, typer.Option(help="4 or 8.")]
Group = Annotated[
    int | None,
    typer.Option(help="Weights a scale: 32, 64, 128 or -1 (a row); default 32, or -1 at 8 bits."),
]
Asymmetric = Annotated[bool, typer.Option("--asymmetric", help="With zero points.")]
Clip = Annotated[str, typer.Option(help="none, or mse: search scales for least squared error.")]
HeadOption = Annotated[str, typer.Option("--head", help="keep, or int8: embedding and head too.")]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to fold in first.")]
Dtype = Annotated[str, typer.Option(help="Of what is not quantized: bfloat16 or float32.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""

    @command(app, "compress", example="sharpen compress tiny out/int4 --bits 4 --group 32")
    def compress(
        model: Model,
        out: Out,
        bits: Bits = 4,
        group: Group = None,
        asymmetric: Asymmetric = False,
        clip: Clip = "none",
        head: HeadOption = "keep",
        adapter: Adapter = None,
        dtype: Dtype = "bfloat16",
        force: Force = False,
    ) -> Output:
        """Quantize a model's weights; the folder then works wherever a model does."""
        from sharpen.core.config import from_dict
        from sharpen.core.errors import BusyError, ConfigError

        if bits not in (4, 8):
            raise ConfigError(f"--bits is 4 or 8, got {bits}.")
        if clip not in ("none", "mse"):
            raise ConfigError(f"--clip is none or mse, got {clip!r}.")
        if head not in ("keep", "int8"):
            raise ConfigError(f"--head is keep or int8, got {head!r}.")
        if dtype not in ("bfloat16", "float32"):
            raise ConfigError(f"--dtype is bfloat16 or float32, got {dtype!r}.")
        if out.exists() and not force:
            raise BusyError(f"{out} exists. Replace it with --force, or choose another folder.")
        if out.exists() and not (out.is_dir() and (out / "config.json").exists()):
            raise BusyError(f"{out} is not a model folder, so --force does not replace it.")

        import torch

        from sharpen.compress import Grid, save_quantized
        from sharpen.models import load_model, load_tokenizer

        fields = {"bits": bits, "group": group, "symmetric": not asymmetric, "clip": clip}
        grid = from_dict(Grid, fields)
        tokenizer = load_tokenizer(model)
        loaded = load_model(model, adapter=adapter)
        stored = getattr(torch, dtype)
        before = sum(p.numel() for p in loaded.parameters()) * stored.itemsize
        num_bytes = save_quantized(
            loaded,
            out,
            grid,
            head="int8" if head == "int8" else "keep",
            tokenizer=tokenizer,
            dtype=stored,
        )
        weights = sum(file.stat().st_size for file in out.glob("*.safetensors"))
        document: dict[str, Any] = {
            "model": model,
            "output": str(out),
            "bits": bits,
            "group": grid.group_size,
            "symmetric": grid.symmetric,
            "head": head,
            "weight_bytes": weights,
            "folder_bytes": num_bytes,
            "weight_bytes_before": before,
            "ratio": before / weights,
        }
        return Output(document, lambda console: _render(console, document, dtype))


def _render(console: Any, document: dict[str, Any], dtype: str) -> None:
    before, after = document["weight_bytes_before"], document["weight_bytes"]
    console.print(
        f"{document['output']}: {after / 1e6:,.1f} MB of weights, {document['ratio']:.2f} times "
        f"less than the {before / 1e6:,.1f} MB in {dtype}."
    )
    console.print(f"Try it:  sharpen chat {document['output']}")
