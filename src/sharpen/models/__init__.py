"""Model definitions and their files; names load on first use, so the tokenizer needs no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharpen.core.model_spec import ModelSpec
    from sharpen.models.chat import render
    from sharpen.models.decode import InferenceLM, prepare_for_inference
    from sharpen.models.decoder import DecoderLM
    from sharpen.models.generation import Generation, generate
    from sharpen.models.hf import save_model
    from sharpen.models.kv_cache import KVCache
    from sharpen.models.load import load_model, load_spec
    from sharpen.models.lora import LoraConfig, add_lora, load_adapter, merge_lora, save_adapter
    from sharpen.models.nf4 import NF4Linear, dequantize_model_nf4, quantize_model_nf4
    from sharpen.models.tokenizer import StreamDecoder, Tokenizer, load_tokenizer

_EXPORTS = {
    "DecoderLM": "decoder",
    "Generation": "generation",
    "InferenceLM": "decode",
    "KVCache": "kv_cache",
    "LoraConfig": "lora",
    "NF4Linear": "nf4",
    "StreamDecoder": "tokenizer",
    "Tokenizer": "tokenizer",
    "add_lora": "lora",
    "dequantize_model_nf4": "nf4",
    "generate": "generation",
    "load_adapter": "lora",
    "load_model": "load",
    "load_spec": "load",
    "load_tokenizer": "tokenizer",
    "merge_lora": "lora",
    "prepare_for_inference": "decode",
    "quantize_model_nf4": "nf4",
    "render": "chat",
    "save_adapter": "lora",
    "save_model": "hf",
}

__all__ = [
    "DecoderLM",
    "Generation",
    "InferenceLM",
    "KVCache",
    "LoraConfig",
    "ModelSpec",
    "NF4Linear",
    "StreamDecoder",
    "Tokenizer",
    "add_lora",
    "dequantize_model_nf4",
    "generate",
    "load_adapter",
    "load_model",
    "load_spec",
    "load_tokenizer",
    "merge_lora",
    "prepare_for_inference",
    "quantize_model_nf4",
    "render",
    "save_adapter",
    "save_model",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name == "ModelSpec":
        return importlib.import_module("sharpen.core.model_spec").ModelSpec
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"sharpen.models.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'sharpen.models' has no attribute {name!r}")
