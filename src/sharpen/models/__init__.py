"""Model definitions and their files; names load on first use, so the tokenizer needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

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

__getattr__ = exports(
    __name__,
    {
        "DecoderLM": "sharpen.models.decoder",
        "Generation": "sharpen.models.generation",
        "InferenceLM": "sharpen.models.decode",
        "KVCache": "sharpen.models.kv_cache",
        "LoraConfig": "sharpen.models.lora",
        "ModelSpec": "sharpen.core.model_spec",
        "NF4Linear": "sharpen.models.nf4",
        "StreamDecoder": "sharpen.models.tokenizer",
        "Tokenizer": "sharpen.models.tokenizer",
        "add_lora": "sharpen.models.lora",
        "dequantize_model_nf4": "sharpen.models.nf4",
        "generate": "sharpen.models.generation",
        "load_adapter": "sharpen.models.lora",
        "load_model": "sharpen.models.load",
        "load_spec": "sharpen.models.load",
        "load_tokenizer": "sharpen.models.tokenizer",
        "merge_lora": "sharpen.models.lora",
        "prepare_for_inference": "sharpen.models.decode",
        "quantize_model_nf4": "sharpen.models.nf4",
        "render": "sharpen.models.chat",
        "save_adapter": "sharpen.models.lora",
        "save_model": "sharpen.models.hf",
    },
)
