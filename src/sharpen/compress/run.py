"""The work of the ``compress`` stage: a smaller model folder for each variant, measured."""

from __future__ import annotations

import copy
import gc
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sharpen.compress.calibration import calibration_dataset
from sharpen.compress.config import BASELINE, PYTHON_STDLIB, CompressConfig
from sharpen.compress.files import write_quantized
from sharpen.compress.linear import weight_bytes
from sharpen.compress.mixed_files import MixedSummary, write_mixed
from sharpen.compress.prune import prune_model, zero_share
from sharpen.core.files import atomic_write_json
from sharpen.core.stage import StageContext, StageResult, resolve_path
from sharpen.data.shards import TokenDataset
from sharpen.eval.loss import dataset_loss
from sharpen.eval.run import model_folder
from sharpen.models.decode import prepare_for_inference
from sharpen.models.decoder import DecoderLM
from sharpen.models.generation import CausalModel, generate
from sharpen.models.hf import write_folder
from sharpen.models.load import load_model
from sharpen.models.lora import load_adapter, merge_lora
from sharpen.models.tokenizer import Tokenizer, load_tokenizer

__all__ = ["decode_speed", "folder_bytes", "run_compress"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
    mixed: dict[str, MixedSummary] = {}
    with (
        _calibrating(config, context, tokenizer) as calibration,
        context.progress("compress", len(config.variants)) as bar,
    ):
        for variant in config.variants:
            target = context.output / variant.label
            target.mkdir()
            changed = model
            if variant.prune is not None:
                changed = copy.deepcopy(model)
                prune_model(changed, variant.prune, calibration)
                shares[variant.label] = zero_share(changed)
            if variant.mixllm is not None:
                with context.progress(f"{variant.label} (%)", 100) as percent:
                    mixed[variant.label] = write_mixed(
                        changed,
                        target,
                        variant.mixllm,
                        calibration,
                        work=context.work / f"{variant.label}.partial",
                        dtype=dtype,
                        on_progress=percent.advance,
                    )
            elif variant.grid is not None:
                write_quantized(changed, target, variant.grid, head=variant.head, dtype=dtype)
            else:
                write_folder(changed, target, dtype=dtype)
            tokenizer.save(target)
            bar.advance()
    stored = 2 if dtype == torch.bfloat16 else 4
    total = sum(p.numel() for p in model.parameters())
    results[BASELINE] = {"bytes": stored * total, "dtype": config.dtype}
    _measure(config, context, model.to(dtype), dataset, prompt, BASELINE, results, measured)
    del model
    gc.collect()
    for variant in config.variants:
        folder = context.output / variant.label
        found = results[variant.label] = {"bytes": folder_bytes(folder)}
        if variant.grid is not None:
            found |= {"bits": variant.bits, "group": variant.grid.group_size}
        if variant.mixllm is not None:
            rows = mixed[variant.label]
            found |= {"bits": variant.mixllm.bits, "rows": rows.rows, "rows_int8": rows.rows_int8}
            found |= {"head": variant.mixllm.head, "stored_bits": rows.stored_bits}
        if variant.label in shares:
            found["zeros"] = shares[variant.label]
        loaded = load_model(folder, dtype=dtype)
        _measure(config, context, loaded, dataset, prompt, variant.label, results, measured)
    atomic_write_json(context.output / "results.json", results)
    return StageResult(results=results, measured=measured)


@contextmanager
def _calibrating(
    config: CompressConfig, context: StageContext, tokenizer: Tokenizer
) -> Iterator[TokenDataset | None]:
    """The rows that methods look at, while they are needed; None without need or texts."""
    texts = config.calibration_texts
    if not config.calibration_rows:
        yield None
    elif texts is None:
        yield _split(context, "train", tokenizer.fingerprint)
    else:
        source = texts if texts == PYTHON_STDLIB else resolve_path(texts, context.folder)
        with TemporaryDirectory() as folder:
            yield calibration_dataset(source, tokenizer, Path(folder), rows=config.calibration_rows)


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
