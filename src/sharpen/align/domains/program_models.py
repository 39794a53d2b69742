"""A tokenizer of single characters and a small model with random weights for program tasks."""

from __future__ import annotations

from pathlib import Path

from sharpen.align.domains.programs import FAST
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import save_model
from sharpen.models.tokenizer import Tokenizer

__all__ = ["program_model", "program_tokenizer", "write_program_model"]

_PAD, _END = "<pad>", "<end>"


def program_tokenizer() -> Tokenizer:
    """33 tokens: padding, the end, digits, ``>``, space, ``=`` and the letters of programs."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    space = "\u0120"  # how byte-level tokenizers write it
    tokens = [_PAD, _END, *"0123456789", ">", space, "=", *FAST, *FAST.upper()]
    backend = Backend(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([_PAD, _END])
    return Tokenizer(backend, {"pad_token": _PAD, "eos_token": _END})


def program_model(*, seed: int = 0, hidden_size: int = 64, num_layers: int = 2) -> DecoderLM:
    """A model with random weights that fits :func:`program_tokenizer`.

    Args:
        seed: of the weights.
        hidden_size: a multiple of 16.
        num_layers: blocks.
    """
    tokenizer = program_tokenizer()
    assert tokenizer.eos_id is not None
    spec = ModelSpec(
        family="llama",
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_layers=num_layers,
        num_heads=hidden_size // 16,
        num_kv_heads=hidden_size // 16,
        head_dim=16,
        max_positions=128,
        tie_word_embeddings=True,
        eos_token_ids=(tokenizer.eos_id,),
    )
    model = DecoderLM(spec)
    model.init_weights(seed, std=hidden_size**-0.5)  # with less, so small a model learns late
    return model


def write_program_model(
    folder: str | Path, *, seed: int = 0, hidden_size: int = 64, num_layers: int = 2
) -> Path:
    """Write that model and tokenizer as a folder in Hugging Face layout.

    Raises:
        StorageError: it cannot be written.
    """
    model = program_model(seed=seed, hidden_size=hidden_size, num_layers=num_layers)
    save_model(model, folder, tokenizer=program_tokenizer())
    return Path(folder)
