"""A model made ready for training (types, adapters, context), and written when it is done."""

from __future__ import annotations

from pathlib import Path

import torch

from sharpen.core.errors import ConfigError
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import write_folder
from sharpen.models.load import load_model
from sharpen.models.lora import LoraConfig, add_lora, merge_lora, write_adapter
from sharpen.models.nf4 import dequantize_model_nf4, quantize_model_nf4
from sharpen.models.tokenizer import Tokenizer
from sharpen.train.config import TrainConfig

__all__ = ["DTYPES", "lora_config", "prepare_model", "write_trained"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def prepare_model(ref: str | Path, config: TrainConfig, *, seed: int) -> DecoderLM:
    """Load a model ready to be trained by ``config``: adapters added, weights in their types.

    Args:
        ref: an asset's name, a folder in Hugging Face layout, or a ``.gguf`` file.
        config: ``method``, ``dtype``, ``context`` and the LoRA fields decide.
        seed: of the adapters' first values.
    """
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
    return model


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
