"""Small models with random weights and a byte-level tokenizer, for tests of several rooms."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from sharpen.core.model_spec import ModelSpec
from sharpen.data.formats import encode_rows
from sharpen.data.shards import TokenDataset, write_dataset
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import save_model
from sharpen.models.lora import LoraConfig, add_lora, save_adapter
from sharpen.models.tokenizer import Tokenizer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def small_spec(**changes: object) -> ModelSpec:
    fields: dict[str, object] = {
        "family": "llama",
        "vocab_size": 304,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "max_positions": 256,
        "tie_word_embeddings": True,
        "eos_token_ids": (2,),
    }
    return ModelSpec(**{**fields, **changes})  # type: ignore[arg-type]


def small_model(seed: int = 0, *, std: float = 0.15, **changes: object) -> DecoderLM:
    model = DecoderLM(small_spec(**changes))
    model.init_weights(seed, std=std)
    return model.eval()


def byte_tokenizer(*, chat: bool = True) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIALS))
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return Tokenizer(backend, {**config, "chat_template": TEMPLATE} if chat else config)


def save_small_model(folder: Path, seed: int = 0, **changes: object) -> Path:
    save_model(small_model(seed, **changes), folder, tokenizer=byte_tokenizer())
    return folder


def save_small_adapter(folder: Path, seed: int, **settings: object) -> Path:
    config = LoraConfig(rank=4, **settings)  # type: ignore[arg-type]
    model = small_model()
    add_lora(model, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, 0.3, generator=generator)
    save_adapter(model, folder, config)
    return folder


def save_small_dataset(folder: Path, *, rows: int = 12, max_tokens: int = 96) -> TokenDataset:
    """Train and valid splits of prompt/completion rows; as the data stage writes them."""

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer()
    examples = [{"prompt": f"{i} + {i} =", "completion": f"{2 * i}"} for i in range(rows)]
    documents = list(encode_rows(examples, tokenizer))
    write_dataset(
        folder,
        {"train": documents, "valid": documents},
        max_tokens=max_tokens,
        packing=True,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
    )
    lines = "".join(json.dumps(example) + "\n" for example in examples)
    (folder / "valid.jsonl").write_text(lines)
    return TokenDataset(folder, "valid")
