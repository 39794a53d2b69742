"""Pre-train the small model that ships with the package, from the installed standard library.

A Llama-layout model of 3.2 million parameters with a byte-level BPE of 4,096 tokens learns module
sources, and functions with their docstrings as chat turns. Half an hour on two cores:

    python examples/pretrain_tiny.py OUT [--steps 2600] [--modules N]
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from sharpen.core.assets import asset_path
from sharpen.core.model_spec import ModelSpec
from sharpen.data import TokenDataset, write_dataset
from sharpen.data.formats import Document, encode_rows
from sharpen.data.stages import split_rows
from sharpen.data.stdlib import docstring_examples, stdlib_texts
from sharpen.models import DecoderLM, Tokenizer, save_model
from sharpen.train import CheckpointConfig, TrainConfig, Trainer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LENGTH = 512


def train_tokenizer(texts: list[str]) -> Tokenizer:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    roles = {"eos_token": SPECIAL[2], "pad_token": SPECIAL[3], "chat_template": TEMPLATE}
    return Tokenizer(backend, roles)


def first_modules(rows: Iterable[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    """The rows of the first ``count`` modules; of all when it is None."""
    modules = groupby(rows, key=lambda row: row["module"])
    return [row for _, group in islice(modules, count) for row in group]


class Curve:
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_start(self, trainer: Trainer) -> None:
        print(f"step {trainer.step} of {trainer.num_steps}")

    def on_step(self, trainer: Trainer, report) -> None:
        if report.step == 1 or report.step % 20 == 0:
            self.rows.append({"step": report.step, "loss": round(report.loss, 4)})
            print(
                f"{report.step} loss {report.loss:.3f} {report.tokens / report.seconds:.0f} tok/s"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--modules", type=int, help="learn from so many modules; default all")
    args = parser.parse_args()
    root = asset_path("python-stdlib")
    texts = first_modules(stdlib_texts(root), args.modules)
    pairs = first_modules(docstring_examples(root), args.modules)
    tokenizer = train_tokenizer([row["text"] for row in texts])
    documents: dict[str, list[Document]] = {"train": [], "valid": []}
    for rows in (texts, pairs):
        held = split_rows([row["module"] for row in rows], 0.03, seed=0)
        for out, document in zip(
            held, encode_rows(rows, tokenizer, mask_prompt=False), strict=True
        ):
            cuts = range(0, len(document.ids) - 1, LENGTH)
            pieces = [document.ids[c : c + LENGTH + 1] for c in cuts]
            documents["valid" if out else "train"] += [
                Document(p, [True] * len(p)) for p in pieces if len(p) > 1
            ]
    data = args.out.with_name(args.out.name + "-data")
    data.mkdir(parents=True, exist_ok=True)
    write_dataset(
        data,
        documents,
        max_tokens=LENGTH,
        packing=True,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
    )
    spec = ModelSpec(
        family="llama",
        vocab_size=4096,
        hidden_size=192,
        intermediate_size=512,
        num_layers=6,
        num_heads=6,
        num_kv_heads=2,
        head_dim=32,
        max_positions=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        eos_token_ids=(2,),
        pad_token_id=3,
    )
    model = DecoderLM(spec)
    model.init_weights(seed=0)
    config = TrainConfig(
        steps=args.steps,
        micro_batch=8,
        global_batch=8,
        lr=4e-3,
        weight_decay=0.1,
        schedule="wsd",
        decay_frac=0.3,
        min_ratio=0.02,
        warmup=min(50, args.steps // 10),
        dtype="bfloat16",
        checkpoint=CheckpointConfig(every=200, every_s=1e9),
    )
    curve = Curve()
    work = args.out.with_name(args.out.name + "-work")
    done = Trainer(model, TokenDataset(data), config, output=work, callbacks=[curve]).fit()
    save_model(model, args.out, tokenizer=tokenizer, dtype=torch.bfloat16)
    record = {"config": asdict(config), "data": TokenDataset(data).fingerprint, "curve": curve.rows}
    (args.out / "training.json").write_text(json.dumps({**record, "tokens": done.tokens}, indent=1))


if __name__ == "__main__":
    main()
