"""A model that recalls: pairs of a key and its value lie in a long text, questions at its end.

::

    filler <pair> key value filler ... <pair> key value filler   <ask> key value <ask> key value

Filler is a Markov chain of its own tokens. Nothing in the text tells which pairs will be asked for,
so whoever drops keys and values before the questions must know what is worth keeping.

    python -m benchmarks.compress.recall OUT [--steps 2200]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM
from sharpen.models.hf import save_model

__all__ = ["ASKED", "SPEC", "Text", "recall_texts", "train_recall"]

PAIR, ASK = 0, 1
KEYS = range(2, 66)
VALUES = range(66, 130)
FILLER = range(130, 258)
ASKED = 8
SUCCESSORS = 4
STAGES = (
    (64, 0),
    (40, 3),
    (64, 8),
    (96, 12),
    (192, 16),
    (384, 16),
    (768, 16),
    (1024, 16),
    (2048, 16),
)
"""Tokens and pairs; none for echoes."""
SPEC = ModelSpec(
    family="llama",
    vocab_size=258,
    hidden_size=128,
    intermediate_size=256,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    max_positions=4096,
    rope_theta=10_000.0,
    tie_word_embeddings=False,
)


@dataclass(frozen=True)
class Text:
    """A batch of texts."""

    ids: Tensor
    """[B, T] int64, the questions and their answers at the end."""
    answers: Tensor
    """[A] int64: places of the answers, the same in every row."""


def recall_texts(
    batch: int, length: int, pairs: int, generator: torch.Generator, *, asked: int = ASKED
) -> Text:
    """Random texts of ``length`` tokens with so many pairs, of which ``asked`` are asked for."""
    tail = 3 * asked
    head = length - tail
    chain = torch.randint(0, SUCCESSORS, (batch, head), generator=generator)
    table = torch.randint(
        0, len(FILLER), (len(FILLER), SUCCESSORS), generator=torch.Generator().manual_seed(1)
    )
    ids = torch.empty((batch, length), dtype=torch.int64)
    state = torch.randint(0, len(FILLER), (batch,), generator=generator)
    for place in range(head):
        state = table[state, chain[:, place]]
        ids[:, place] = state + FILLER[0]
    for row in range(batch):
        keys = KEYS[0] + torch.randperm(len(KEYS), generator=generator)[:pairs]
        values = torch.randint(VALUES[0], VALUES[-1] + 1, (pairs,), generator=generator)
        places = 3 * torch.randperm(head // 3, generator=generator)[:pairs]
        ids[row, places], ids[row, places + 1], ids[row, places + 2] = PAIR, keys, values
        chosen = torch.randperm(max(pairs, asked), generator=generator)[:asked] % pairs
        ids[row, head::3], ids[row, head + 1 :: 3] = ASK, keys[chosen]
        ids[row, head + 2 :: 3] = values[chosen]
    return Text(ids, torch.arange(head + 2, length, 3))


def echo_texts(batch: int, length: int, generator: torch.Generator) -> Text:
    """Random tokens said over and over: what teaches soonest to look for what came after.

    Every row has a period of its own, or else looking back so far would do.
    """
    half = length // 2
    said = torch.randint(2, SPEC.vocab_size, (batch, half), generator=generator)
    periods = torch.randint(half // 4, half + 1, (batch, 1), generator=generator)
    ids = said.gather(1, torch.arange(length).expand(batch, -1) % periods)
    return Text(ids, torch.arange(half + 1, length))


def train_recall(steps: int, *, seed: int = 0) -> DecoderLM:
    """A model of four layers; texts grow whenever it answers those of a length."""
    torch.manual_seed(seed)
    model = DecoderLM(SPEC)
    model.init_weights(seed, std=0.08)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    begin, stage, share = time.perf_counter(), 0, 0.0
    for step in range(steps):
        length, pairs = STAGES[stage]
        batch = max(2, 2048 // length)
        if pairs:
            text = recall_texts(batch, length, pairs, generator)
        else:
            text = echo_texts(batch, length, generator)
        logits = model(text.ids[:, :-1])
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), text.ids[:, 1:].flatten(), reduction="none"
        ).view(text.ids.shape[0], -1)
        answers = losses[:, text.answers - 1].mean()
        loss = answers
        if pairs:
            loss = loss + 0.1 * losses[:, : length - 3 * ASKED - 1].mean()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * min(1, 5 * (1 - step / steps) + 0.02)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        right = (logits[:, text.answers - 1].argmax(-1) == text.ids[:, text.answers]).float()
        share += 0.1 * (float(right.mean()) - share)
        if share > 0.9 and stage < len(STAGES) - 1:
            stage, share = stage + 1, 0.0
        if step % 50 == 0:
            print(
                f"{step} length {length} answers {answers.item():.3f} right {share:.3f} "
                f"{time.perf_counter() - begin:.0f} s",
                flush=True,
            )
    return model.eval()


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("out", type=Path)
    options.add_argument("--steps", type=int, default=2200)
    args = options.parse_args()
    torch.set_num_threads(1)
    save_model(train_recall(args.steps), args.out, dtype=torch.float32)


if __name__ == "__main__":
    main()
