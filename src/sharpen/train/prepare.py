"""A model made ready for training (types, adapters, context), and written when it is done."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from sharpen.core.errors import ConfigError, OutOfMemoryError
from sharpen.models.decoder import DecoderLM
from sharpen.models.devices import resolve_device
from sharpen.models.hf import write_folder
from sharpen.models.load import load_model
from sharpen.models.lora import LoraConfig, add_lora, merge_lora, write_adapter
from sharpen.models.nf4 import dequantize_model_nf4, quantize_model_nf4
from sharpen.models.tokenizer import Tokenizer
from sharpen.train.config import TrainConfig

__all__ = ["DTYPES", "lora_config", "prepare_model", "training_device", "write_trained"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def prepare_model(ref: str | Path, config: TrainConfig, *, seed: int) -> DecoderLM:
    """Load a model ready to be trained by ``config``: adapters added, weights in their types.

    Args:
        ref: an asset's name, a folder in Hugging Face layout, or a ``.gguf`` file.
        config: ``method``, ``dtype``, ``device``, ``context`` and the LoRA fields decide.
        seed: of the adapters' first values.

    Raises:
        ConfigError: the model is quantized, or there is no such device.
        OutOfMemoryError: it does not fit the device.
    """
    device = training_device(config)
    model = load_model(ref, dtype=DTYPES[config.dtype] if config.adapts else torch.float32)
    if any(p.dtype not in (torch.float32, torch.bfloat16) for p in model.parameters()):
        raise ConfigError(f"the model {ref} is quantized, so it cannot be trained.")
    if config.context is not None:
        model.extend_context(config.context)
    if config.method == "qlora":
        quantize_model_nf4(model)
    if config.adapts:
        add_lora(model, lora_config(config), seed=seed)
    else:
        model.requires_grad_(True)
    try:
        return model.to(device)
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"the model {ref} does not fit {device}. Take method qlora, a smaller model, or "
            "device=cpu."
        ) from None


def training_device(config: TrainConfig) -> torch.device:
    """Where this process trains: on several ranks each has the CUDA device of its local rank.

    Raises:
        ConfigError: there is no such device.
    """
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    kind = config.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.device_count() >= ranks else "cpu"
    return resolve_device(f"cuda:{rank}" if kind == "cuda" else kind)


def lora_config(config: TrainConfig) -> LoraConfig:
    """The adapters that ``config`` asks for."""
    return LoraConfig(
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        targets=config.targets,
        rslora=config.rslora,
        dora=config.method == "dora",
    )


def write_trained(
    model: DecoderLM, config: TrainConfig, output: Path, tokenizer: Tokenizer, base: str
) -> None:
    """Write what was trained into an existing folder: the adapters, or the whole model.

    Args:
        model: trained; adapters are folded in where ``config`` says so.
        config: of the training.
        output: the folder.
        tokenizer: written beside a whole model.
        base: name of the model that adapters are for.
    """
    if config.adapts and not config.merge:
        write_adapter(model, output, lora_config(config), base=base)
        return
    merge_lora(model)
    dequantize_model_nf4(model)
    write_folder(model, output, dtype=DTYPES[config.dtype])
    tokenizer.save(output)
