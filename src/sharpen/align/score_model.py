"""Reward models on disk: a folder that ``transformers`` loads as sequence classification."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sharpen.align.heads import add_score_head
from sharpen.core.config import read_json
from sharpen.core.errors import FileFormatError
from sharpen.core.files import atomic_write_json
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import fill, open_tensors, write_folder, write_tensors
from sharpen.models.lora import merge_lora
from sharpen.models.nf4 import dequantize_model_nf4
from sharpen.models.tokenizer import Tokenizer

__all__ = ["load_score_model", "write_score_model"]


def write_score_model(
    model: DecoderLM, folder: Path, tokenizer: Tokenizer, *, merged: bool = False
) -> None:
    """Write a model with its head for scores into an existing folder.

    Args:
        model: with ``score``.
        folder: where.
        tokenizer: written beside it.
        merged: fold adapters in first.
    """
    if merged:
        merge_lora(model)
        dequantize_model_nf4(model)
    write_folder(model, folder)
    tensors = {
        name: parameter.detach().to("cpu").contiguous()
        for name, parameter in model.named_parameters()
        if not name.startswith("lm_head.")
    }
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    write_tensors(tensors, folder)
    config = read_json(folder / "config.json", "model config")
    plain = str(config["architectures"][0])
    config["architectures"] = [plain.replace("ForCausalLM", "ForSequenceClassification")]
    config["id2label"], config["label2id"] = {"0": "score"}, {"score": 0}
    if config.get("pad_token_id") is None:
        config["pad_token_id"] = tokenizer.pad_id if tokenizer.pad_id is not None else 0
    atomic_write_json(folder / "config.json", config)
    tokenizer.save(folder)


def load_score_model(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> DecoderLM:
    """A model that :func:`write_score_model` wrote, with ``score``; its language head is 0.

    Raises:
        MissingFileError: there is none.
        FileFormatError: damaged, or it has no head for scores.
    """
    folder = Path(folder)
    spec = ModelSpec.from_ref(folder)
    tensors = open_tensors(folder)
    head = tensors.pop("score.weight", None)
    if head is None or head.shape != (1, spec.hidden_size):
        raise FileFormatError(
            f"{folder} is no reward model: it needs score.weight of shape [1, {spec.hidden_size}]. "
            "Make one with sharpen align rm."
        )
    shapes = {name: one.shape for name, one in tensors.items()}
    if not spec.tie_word_embeddings:
        shapes.setdefault("lm_head.weight", (spec.vocab_size, spec.hidden_size))

    def read(name: str) -> Tensor:
        return tensors[name].read() if name in tensors else torch.zeros(shapes[name])

    model = fill(spec, shapes, read, folder, dtype, "cpu")
    add_score_head(model)
    with torch.no_grad():
        model.score.weight.copy_(head.read())  # type: ignore[union-attr,operator]
    return model.eval()
