"""``sharpen compress salience``: which output features of a model would cost most at 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output
from sharpen.cli.figure import new_figure
from sharpen.cli.options import Adapter, CalibrationTexts, Model, Samples
from sharpen.cli.progress import bar, observe

__all__ = ["salience"]


def salience(
    model: Model,
    bits: Annotated[
        float, typer.Option(help="Tell of the (bits - 4) / 4 of rows that matter most, 4 to 8.")
    ] = 4.4,
    calibration: CalibrationTexts = Path("python-stdlib"),
    samples: Samples = 64,
    adapter: Adapter = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of where salience is.")] = None,
) -> Output:
    """Say which output features MixLLM would give 8 bits, and how much salience they hold."""
    import dataclasses
    import tempfile

    from sharpen.compress.calibration import calibration_dataset
    from sharpen.compress.calibration import samples as rows_of
    from sharpen.compress.config import MixLLMConfig
    from sharpen.compress.mixllm import concentration
    from sharpen.compress.salience import block_linears, row_salience
    from sharpen.models import load_model, load_tokenizer

    config = MixLLMConfig(bits=bits, calibration=samples)
    figure = new_figure(plot, (9, 4)) if plot is not None else None
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = load_tokenizer(model)
        dataset = calibration_dataset(calibration, tokenizer, Path(folder), rows=samples)
        loaded = load_model(model, adapter=adapter)
        count = min(samples, len(dataset))
        with observe() as observer, bar(observer, "salience (samples)", count) as advance:
            rows = rows_of(dataset, samples, loaded)
            scores = row_salience(loaded, rows, on_progress=advance)
    columns = {name: layer.in_features for name, layer in block_linears(loaded).items()}
    found = concentration(scores, columns, config.share)
    if plot is not None and figure is not None:
        _draw(figure, scores, found, f"{model}: the {config.share:.0%} of rows that matter most")
        figure.savefig(plot, dpi=150)
    document = {"model": model, "samples": count, "share": config.share}
    document |= dataclasses.asdict(found)
    return Output(document, lambda console: _render(console, document))


def _draw(figure: Any, scores: Any, found: Any, title: str) -> None:
    """Salience over rows, largest first; and what share of each layer is chosen."""
    import torch

    left, right = figure.subplots(1, 2)
    values = torch.cat([score.double().cpu() for score in scores.values()])
    held = values.sort(descending=True).values.cumsum(0)
    held = held / held[-1].clamp(min=1e-300)
    places = torch.linspace(0, len(held) - 1, min(len(held), 1000)).long()
    left.plot(((places + 1) / len(held)).tolist(), held[places].tolist(), color="0.2")
    left.set_xlabel("share of output features, largest salience first")
    left.set_ylabel("share of all salience")
    left.set_ylim(0, 1.02)
    kinds = list(found.share_of_kind)
    numbers = sorted({int(name.split(".")[2]) for name in found.share_of_layer})
    shares = torch.full((len(numbers), len(kinds)), torch.nan)
    for name, share in found.share_of_layer.items():
        shares[numbers.index(int(name.split(".")[2])), kinds.index(name.rpartition(".")[2])] = share
    image = right.imshow(shares.tolist(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    right.set_xticks(range(len(kinds)), kinds, rotation=45, ha="right")
    right.set_ylabel("block")
    figure.colorbar(image, ax=right, label="share of the layer's features chosen")
    figure.suptitle(title)


def _render(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("layers", "features", "chosen", "of all salience")
    for kind, share in document["share_of_kind"].items():
        held = document["salience_of_kind"][kind]
        table.add_row(kind, f"{document['rows_of_kind'][kind]:,}", f"{share:.1%}", f"{held:.1%}")
    console.print(table)
    console.print(
        f"The {document['share']:.0%} of output features that matter most hold "
        f"{document['held']:.0%} of the salience ({document['samples']} samples)."
    )
