"""The ``compress`` stage: one quantized or pruned model folder a variant, each measured."""

from __future__ import annotations

import platform
from typing import Any

from sharpen.compress.config import BASELINE, PYTHON_STDLIB, CompressConfig
from sharpen.core.files import sha256_file
from sharpen.core.report import Section, Table, Text
from sharpen.core.stage import RecipeContext, StageContext, StageResult, StageType
from sharpen.data.readers import find_files

__all__ = ["COMPRESS"]


def run_compress(config: CompressConfig, context: StageContext) -> StageResult:
    """Prune, quantize, write, load back and measure each variant."""
    from sharpen.compress.run import run_compress as run  # loads torch, which plans do not need

    return run(config, context)


def _fingerprint(config: CompressConfig, context: RecipeContext) -> Any:
    """The bytes of calibration texts belong in the address."""
    if config.calibration_texts is None or not config.calibration_rows:
        return None
    if config.calibration_texts == PYTHON_STDLIB:
        return {"python": platform.python_version(), "build": platform.python_implementation()}
    path = context.resolve(config.calibration_texts)
    is_dataset = (path / "manifest.json").is_file()
    files = sorted(path.iterdir()) if is_dataset else find_files(path)
    return [[file.name, sha256_file(file)] for file in files if file.is_file()]


def _report(summary: dict[str, Any]) -> list[Section]:
    rows = []
    base = summary.get(BASELINE, {})
    for label, part in summary.items():
        if not isinstance(part, dict) or "bytes" not in part:
            continue
        change = None
        if part.get("perplexity") and base.get("perplexity"):
            change = f"{part['perplexity'] / base['perplexity'] - 1:+.2%}"
        rows.append(
            [
                label if label != BASELINE else f"{label} ({part.get('dtype')})",
                part["bytes"] / 1e6,
                f"{part['bytes'] / base['bytes']:.1%}" if base.get("bytes") else None,
                part.get("perplexity"),
                change,
                part.get("tokens_per_s"),
                part.get("memory_bytes", 0) / 1e6 or None,
                f"{part['zeros']:.1%}" if "zeros" in part else None,
            ]
        )
    columns = [
        "variant",
        "weights on disk (MB)",
        "of baseline",
        "held-out perplexity",
        "change",
        "decoding (tokens/s)",
        "weights in memory (MB)",
        "zeros in the blocks",
    ]
    note = "Speed is greedy decoding at batch 1; weights in memory stay packed."
    return [Section("Compression", [Table(columns, rows), Text(note)])]


COMPRESS = StageType(
    name="compress",
    version=2,
    config=CompressConfig,
    run=run_compress,
    loads=("sharpen.compress.run",),
    makes="model",
    optional=("dataset", "model", "adapter"),
    needs_model=True,
    fingerprint=_fingerprint,
    report=_report,
)
