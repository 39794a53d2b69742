"""``sharpen compress``: quantize or prune a model's weights into a folder.

``sharpen compress MODEL OUT`` is short for ``sharpen compress quantize MODEL OUT``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sharpen.cli.common import Output, command, new_app
from sharpen.cli.locret import app as locret
from sharpen.cli.options import Adapter, CalibrationTexts, Model, Samples
from sharpen.cli.progress import bar, observe
from sharpen.cli.salience import salience

__all__ = ["app"]


class _QuantizeUnlessNamed(TyperGroup):
    """A group whose first word is a command, or else what ``quantize`` takes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not {"--help", "-h"}.intersection(args):
            args = ["quantize", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


app = new_app("Quantize or prune a model's weights.")
app.info.cls = _QuantizeUnlessNamed
app.add_typer(locret, name="locret")
command(app, "salience", example="sharpen compress salience tiny --samples 16")(salience)

Out = Annotated[Path, typer.Argument(help="Folder to write.")]
Bits = Annotated[
    int | None,
    typer.Option(help="4 or 8; default 4, or with --prune none.", show_default=False),
]
Group = Annotated[
    int | None,
    typer.Option(help="Weights a scale: 32, 64, 128 or -1 (a row); default 32, or -1 at 8 bits."),
]
Asymmetric = Annotated[bool, typer.Option("--asymmetric", help="With zero points.")]
Clip = Annotated[str, typer.Option(help="none, or mse: search scales for least squared error.")]
HeadOption = Annotated[str, typer.Option("--head", help="keep, or int8: embedding and head too.")]
Prune = Annotated[
    str | None,
    typer.Option(help="wanda or magnitude: zero unimportant weights first.", show_default=False),
]
Sparsity = Annotated[
    float | None, typer.Option(help="Share of zeros; default 0.5.", show_default=False)
]
Pattern = Annotated[
    str | None,
    typer.Option(help="Keep n of every m weights: 2:4; instead of --sparsity.", show_default=False),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="Texts for wanda: a file or folder of JSONL ('text'), text or Parquet, or a data set.",
        show_default=False,
    ),
]
Dtype = Annotated[str, typer.Option(help="Of what is not quantized: bfloat16 or float32.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]


@command(app, "quantize", example="sharpen compress quantize tiny out/int4 --bits 4 --group 32")
def quantize(
    model: Model,
    out: Out,
    bits: Bits = None,
    group: Group = None,
    asymmetric: Asymmetric = False,
    clip: Clip = "none",
    head: HeadOption = "keep",
    prune: Prune = None,
    sparsity: Sparsity = None,
    pattern: Pattern = None,
    calibration: Calibration = None,
    adapter: Adapter = None,
    dtype: Dtype = "bfloat16",
    force: Force = False,
) -> Output:
    """Quantize or prune a model's weights; the folder then works wherever a model does.

    `sharpen compress MODEL OUT` is short for this.
    """
    from sharpen.core.config import from_dict
    from sharpen.core.errors import ConfigError

    if bits not in (None, 4, 8):
        raise ConfigError(f"--bits is 4 or 8, got {bits}.")
    if clip not in ("none", "mse"):
        raise ConfigError(f"--clip is none or mse, got {clip!r}.")
    if head not in ("keep", "int8"):
        raise ConfigError(f"--head is keep or int8, got {head!r}.")
    if dtype not in ("bfloat16", "float32"):
        raise ConfigError(f"--dtype is bfloat16 or float32, got {dtype!r}.")
    pruning = _pruning(prune, sparsity, pattern, calibration)
    _check_target(out, force)

    import torch

    from sharpen.compress import prune_model, save_quantized, zero_share
    from sharpen.compress.config import VariantConfig
    from sharpen.models import load_model, load_tokenizer, save_model

    fields = {
        "bits": 4 if bits is None and pruning is None else bits,
        "group": group,
        "symmetric": not asymmetric,
        "clip": clip,
        "head": head,
        "prune": pruning,
    }
    variant = from_dict(VariantConfig, fields)
    tokenizer = load_tokenizer(model)
    loaded = load_model(model, adapter=adapter)
    stored = getattr(torch, dtype)
    before = sum(p.numel() for p in loaded.parameters()) * stored.itemsize
    document: dict[str, Any] = {"model": model, "output": str(out)}
    if variant.prune is not None:
        with _calibrating(calibration, tokenizer, variant.prune.calibration) as dataset:
            prune_model(loaded, variant.prune, dataset)
        document |= {"prune": variant.prune.method, "zeros": zero_share(loaded)}
    if variant.grid is not None:
        save_quantized(
            loaded, out, variant.grid, head=variant.head, tokenizer=tokenizer, dtype=stored
        )
        document |= {
            "bits": variant.bits,
            "group": variant.grid.group_size,
            "symmetric": variant.symmetric,
            "head": head,
        }
    else:
        save_model(loaded, out, tokenizer=tokenizer, dtype=stored)
    document |= _sizes(out, before)
    return Output(document, lambda console: _render(console, document, dtype))


@command(app, "mixllm", example="sharpen compress mixllm tiny --bits 4.4 --out out/mixed")
def mixllm(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    bits: Annotated[
        float,
        typer.Option(
            help="Mean of the bits of the blocks' rows, 4 to 8: (bits - 4) / 4 of them have 8. The "
            "head is not counted."
        ),
    ] = 4.4,
    unit: Annotated[
        str, typer.Option(help="rows, or bytes: long rows must matter more to get 8 bits.")
    ] = "rows",
    solver: Annotated[str, typer.Option(help="gptq, awq or rtn (round to nearest).")] = "gptq",
    clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Search ranges below the full one.")
    ] = True,
    calibration: CalibrationTexts = Path("python-stdlib"),
    samples: Samples = 64,
    head: Annotated[
        int,
        typer.Option(
            help="Bits of the head, and of an embedding tied to it: 8, or 16 to keep --dtype."
        ),
    ] = 8,
    adapter: Adapter = None,
    dtype: Dtype = "bfloat16",
    force: Force = False,
) -> Output:
    """Give the output features that matter most 8 bits and all others 4, by calibration.

    Interrupted, the same command goes on where it stopped.
    """
    import dataclasses

    from sharpen.compress.config import MixLLMConfig
    from sharpen.core.config import from_dict
    from sharpen.core.errors import ConfigError, Interrupted

    if dtype not in ("bfloat16", "float32"):
        raise ConfigError(f"--dtype is bfloat16 or float32, got {dtype!r}.")
    fields = {
        "bits": bits,
        "unit": unit,
        "solver": solver,
        "clip": clip,
        "calibration": samples,
        "head": head,
    }
    config = from_dict(MixLLMConfig, fields)
    _check_target(out, force)

    import torch

    from sharpen.compress import save_mixed
    from sharpen.models import load_model, load_tokenizer

    tokenizer = load_tokenizer(model)
    source = calibration if config.needs_texts else None
    with _calibrating(source, tokenizer, samples) as dataset:
        loaded = load_model(model, adapter=adapter)
        stored = getattr(torch, dtype)
        before = sum(p.numel() for p in loaded.parameters()) * stored.itemsize
        try:
            with observe() as observer, bar(observer, "mixllm (%)", 100) as advance:
                found = save_mixed(
                    loaded,
                    out,
                    config,
                    dataset,
                    tokenizer=tokenizer,
                    dtype=stored,
                    on_progress=advance,
                )
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; {out} is not written. The same command goes on where it stopped."
            ) from None
    document = {"model": model, "output": str(out), **fields}
    document |= dataclasses.asdict(found) | _sizes(out, before)
    return Output(document, lambda console: _render(console, document, dtype))


def _check_target(out: Path, force: bool) -> None:
    from sharpen.core.errors import BusyError

    if out.exists() and not force:
        raise BusyError(f"{out} exists. Replace it with --force, or choose another folder.")
    if out.exists() and not (out.is_dir() and (out / "config.json").exists()):
        raise BusyError(f"{out} is not a model folder, so --force does not replace it.")


def _sizes(out: Path, before: int) -> dict[str, Any]:
    weights = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    return {
        "weight_bytes": weights,
        "folder_bytes": sum(file.stat().st_size for file in out.iterdir()),
        "weight_bytes_before": before,
        "ratio": before / weights,
    }


def _pruning(
    prune: str | None, sparsity: float | None, pattern: str | None, calibration: Path | None
) -> dict[str, Any] | None:
    """The flags as the recipe's ``prune``; None when nothing is pruned."""
    from sharpen.core.errors import ConfigError

    if prune is None:
        if sparsity is not None or pattern is not None or calibration is not None:
            raise ConfigError(
                "--sparsity, --pattern and --calibration say how to prune. Add --prune wanda, or "
                "--prune magnitude, which needs no texts."
            )
        return None
    if prune not in ("wanda", "magnitude"):
        raise ConfigError(f"--prune is wanda or magnitude, got {prune!r}.")
    if prune == "wanda" and calibration is None:
        raise ConfigError(
            "--prune wanda looks at what goes into each layer: name texts for it, --calibration "
            "FILE, or use --prune magnitude."
        )
    if prune == "magnitude" and calibration is not None:
        raise ConfigError("--prune magnitude looks at no texts: leave --calibration out.")
    given = {"method": prune, "sparsity": sparsity, "pattern": pattern}
    return {key: value for key, value in given.items() if value is not None}


@contextmanager
def _calibrating(source: Path | None, tokenizer: Any, rows: int) -> Iterator[Any]:
    """Rows of the texts in ``source``, while they are needed; None without a source."""
    from sharpen.compress.calibration import calibration_dataset

    if source is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield calibration_dataset(source, tokenizer, Path(folder), rows=rows)


def _render(console: Any, document: dict[str, Any], dtype: str) -> None:
    before, after = document["weight_bytes_before"], document["weight_bytes"]
    if "zeros" in document:
        console.print(f"{document['zeros']:.1%} of the blocks' weights are zero.")
    if "rows_int8" in document:
        kinds = ", ".join(f"{k} {share:.0%}" for k, share in document["share_int8"].items())
        console.print(
            f"{document['rows_int8']:,} of {document['rows']:,} output features have 8 bits, the "
            f"others 4. By layer: {kinds}."
        )
        bits = document["stored_bits"]
        console.print(
            f"Stored bits a weight, scales included: {bits['blocks']:.2f} in the blocks' linear "
            f"layers, {bits['head']:.2f} in the head, {bits['all']:.2f} over all."
        )
    if "bits" in document:
        console.print(
            f"{document['output']}: {after / 1e6:,.1f} MB of weights, {document['ratio']:.2f} "
            f"times less than the {before / 1e6:,.1f} MB in {dtype}."
        )
    console.print(f"Try it:  sharpen chat {document['output']}")
