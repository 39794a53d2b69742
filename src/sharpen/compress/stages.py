"""The ``compress`` stage: one quantized or pruned model folder a variant, each measured."""

from __future__ import annotations

import copy
import gc
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sharpen.compress.files import Head, write_quantized
from sharpen.compress.linear import weight_bytes
from sharpen.compress.prune import PruneConfig, prune_model, zero_share
from sharpen.compress.quantize import Grid
from sharpen.core.errors import ConfigError
from sharpen.core.files import atomic_write_json
from sharpen.core.report import Section, Table, Text
from sharpen.core.stage import StageContext, StageResult, StageType
from sharpen.data.shards import TokenDataset
from sharpen.eval.perplexity import dataset_loss
from sharpen.eval.stages import model_folder
from sharpen.models.decode import prepare_for_inference
from sharpen.models.decoder import DecoderLM
from sharpen.models.generation import CausalModel, generate
from sharpen.models.hf import write_folder
from sharpen.models.load import load_model
from sharpen.models.lora import load_adapter, merge_lora
from sharpen.models.tokenizer import load_tokenizer

__all__ = ["COMPRESS", "CompressConfig", "VariantConfig", "decode_speed", "folder_bytes"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_BASELINE = "baseline"


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantConfig:
    """One smaller copy of the model: quantized, pruned, or pruned and then quantized."""

    bits: Literal[4, 8] | None = None
    """Of each weight; null does not quantize."""

    prune: PruneConfig | None = None
    """Which weights become zero; null keeps them all."""

    group: int | None = None
    """Weights that share a scale: 32, 64, 128, or -1 for a whole row; default 32 for 4 bits and the
    row for 8 bits."""

    symmetric: bool = True
    """No zero points; asymmetric folders are read by Sharpen only."""

    clip: Literal["none", "mse"] = "none"
    """``mse`` searches scales for the least squared error of the weights."""

    head: Head = "keep"
    """``int8`` also stores embedding and head as 8-bit rows; read by Sharpen only."""

    name: str | None = None
    """Of the sub-folder and the results; default such as ``int4``, ``wanda50``,
    ``wanda2of4-int4``."""

    def __post_init__(self) -> None:
        """Check the grid and the name."""
        if self.bits is None and self.prune is None:
            raise ConfigError("a variant changes nothing; give it 'bits', 'prune' or both.")
        quantized = (self.group, self.symmetric, self.clip, self.head)
        if self.bits is None and quantized != (None, True, "none", "keep"):
            raise ConfigError(
                "group, symmetric, clip and head belong to quantization; give the variant 'bits'."
            )
        _ = self.grid
        if not self.label.replace("-", "").replace("_", "").isalnum() or self.label == _BASELINE:
            raise ConfigError(
                f"name={self.name!r} must be letters, digits, '-' and '_', and not '{_BASELINE}'."
            )

    @property
    def grid(self) -> Grid | None:
        """How weights are rounded, if they are."""
        if self.bits is None:
            return None
        return Grid(bits=self.bits, group=self.group, symmetric=self.symmetric, clip=self.clip)

    @property
    def label(self) -> str:
        """``name`` with its default filled in."""
        parts = [
            *([self.prune.label] if self.prune is not None else []),
            *([f"int{self.bits}"] if self.bits is not None else []),
        ]
        return self.name if self.name is not None else "-".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressConfig:
    """Which smaller copies are made, and how they are measured."""

    variants: tuple[VariantConfig, ...] = (VariantConfig(bits=8), VariantConfig(bits=4))
    """One model folder each; names must differ."""

    limit: int | None = 64
    """Held-out examples for the perplexity; null is all."""

    new_tokens: int = 32
    """Tokens decoded to measure the speed, at batch 1; 0 skips that."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of what is not quantized, stored and run; also of the baseline."""

    def __post_init__(self) -> None:
        """Check the ranges and names."""
        if not self.variants:
            raise ConfigError("variants is empty; give at least one, such as {bits: 4}.")
        labels = [variant.label for variant in self.variants]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigError(f"two variants are called {label!r}; give one a 'name'.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit} must be at least 1.")
        if self.new_tokens < 0:
            raise ConfigError(f"new_tokens={self.new_tokens} must be at least 0.")


def folder_bytes(folder: Path) -> int:
    """Bytes of the weight files of a model folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def decode_speed(
    model: CausalModel, prompt: Sequence[int], *, new_tokens: int = 32, repeats: int = 3
) -> float:
    """Greedy decoding at batch 1, in tokens a second of wall time: the best of ``repeats``.

    Args:
        model: any decoder, quantized or not, prepared for inference or not.
        prompt: token ids; its one pass is part of the time.
        new_tokens: tokens decoded each time.
        repeats: after one that is not counted.
    """
    generate(model, [prompt], max_new_tokens=min(4, new_tokens))
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        generate(model, [prompt], max_new_tokens=new_tokens)
        best = min(best, time.perf_counter() - start)
    return new_tokens / best


def run_compress(config: CompressConfig, context: StageContext) -> StageResult:
    """Prune, quantize, write, load back and measure each variant."""
    assert context.model is not None
    tokenizer = load_tokenizer(context.model)
    dataset = _split(context, "valid", tokenizer.fingerprint)
    prompt = tokenizer.encode("The quick brown fox jumps over the lazy dog.")
    dtype = _DTYPES[config.dtype]
    model = _load(context)
    results: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    shares: dict[str, float] = {}
    prunes = any(variant.prune is not None for variant in config.variants)
    calibration = _split(context, "train", tokenizer.fingerprint) if prunes else None
    with context.progress("compress", len(config.variants)) as bar:
        for variant in config.variants:
            target = context.output / variant.label
            target.mkdir()
            changed = model
            if variant.prune is not None:
                changed = copy.deepcopy(model)
                prune_model(changed, variant.prune, calibration)
                shares[variant.label] = zero_share(changed)
            if variant.grid is not None:
                write_quantized(changed, target, variant.grid, head=variant.head, dtype=dtype)
            else:
                write_folder(changed, target, dtype=dtype)
            tokenizer.save(target)
            bar.advance()
    stored = 2 if dtype == torch.bfloat16 else 4
    total = sum(p.numel() for p in model.parameters())
    results[_BASELINE] = {"bytes": stored * total, "dtype": config.dtype}
    _measure(config, context, model.to(dtype), dataset, prompt, _BASELINE, results, measured)
    del model
    gc.collect()
    for variant in config.variants:
        folder = context.output / variant.label
        found = results[variant.label] = {"bytes": folder_bytes(folder)}
        if variant.grid is not None:
            found |= {"bits": variant.bits, "group": variant.grid.group_size}
        if variant.label in shares:
            found["zeros"] = shares[variant.label]
        loaded = load_model(folder, dtype=dtype)
        _measure(config, context, loaded, dataset, prompt, variant.label, results, measured)
    atomic_write_json(context.output / "results.json", results)
    return StageResult(results=results, measured=measured)


def _split(context: StageContext, split: str, fingerprint: str) -> TokenDataset | None:
    """A split of the data set before this stage, if it has that split."""
    if "dataset" not in context.inputs:
        return None
    folder = context.inputs["dataset"].path
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if split not in manifest.get("splits", {}):
        return None
    return TokenDataset(folder, split, tokenizer_fingerprint=fingerprint)


def _load(context: StageContext) -> DecoderLM:
    """The full-precision model to compress, an adapter folded in."""
    made, adapter = context.inputs.get("model"), context.inputs.get("adapter")
    assert context.model is not None
    model = load_model(context.model if made is None else model_folder(made))
    if adapter is not None:
        load_adapter(model, adapter.path)
        merge_lora(model)
    return model


def _measure(
    config: CompressConfig,
    context: StageContext,
    model: DecoderLM,
    dataset: TokenDataset | None,
    prompt: Sequence[int],
    label: str,
    results: dict[str, Any],
    measured: dict[str, Any],
) -> None:
    """Perplexity into ``results``, speed and memory into ``measured``; uses the model up."""
    if dataset is not None:
        examples = min(config.limit or dataset.num_examples, dataset.num_examples)
        with context.progress(f"perplexity: {label}", examples) as bar:
            loss, _ = dataset_loss(model, dataset, limit=config.limit, on_progress=bar.advance)
        results[label]["perplexity"] = math.exp(loss)
    measured[label] = {"memory_bytes": weight_bytes(model)}
    if config.new_tokens:
        with context.progress(f"speed: {label}"):
            ready = prepare_for_inference(model)
            speed = decode_speed(ready, prompt, new_tokens=config.new_tokens)
        measured[label]["tokens_per_s"] = speed


def _report(summary: dict[str, Any]) -> list[Section]:
    rows = []
    base = summary.get(_BASELINE, {})
    for label, part in summary.items():
        if not isinstance(part, dict) or "bytes" not in part:
            continue
        change = None
        if part.get("perplexity") and base.get("perplexity"):
            change = f"{part['perplexity'] / base['perplexity'] - 1:+.2%}"
        rows.append(
            [
                label if label != _BASELINE else f"{label} ({part.get('dtype')})",
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
    version=1,
    config=CompressConfig,
    run=run_compress,
    makes="model",
    optional=("dataset", "model", "adapter"),
    needs_model=True,
    report=_report,
)
