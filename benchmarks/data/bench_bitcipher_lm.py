r"""Does a language model learn faster from an embedding of bit-cipher vectors?

    BENCH_CORPORA=FOLDER BENCH_PEERS_PYTHON=/path/to/python \
        python -m benchmarks.data.bench_bitcipher_lm

A decoder of four layers and width 128 with a tied embedding learns Brown in tokens of a byte-level
BPE of 4,096; only the embedding's first values differ: random, bit-cipher (64 bits, a word to each
side) or gensim's word2vec (CBOW, width 128), both made of the same tokens, centered and of the same
standard deviation. Told are the steps after which the loss on held-out documents is what random
values reach in the end.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import arguments, save
from benchmarks.data import corpora
from benchmarks.data.beside import ask_peer, has_peers

WIDTH, LAYERS, VOCABULARY = 128, 4, 4096
CONTEXT, BATCH, RATE, WARMUP, EVERY = 128, 8, 1e-3, 20, 20


def _tokens(quick: bool) -> list[Any]:
    """A document's ids each, by a byte-level BPE of the documents."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if quick:
        texts = corpora.own_pages()[:20]
    else:
        texts = [
            "\n".join(" ".join(word for word, _ in line) for line in document)
            for document in corpora.brown()
        ]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    size = 300 if quick else VOCABULARY
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return [np.array(one.ids) for one in backend.encode_batch(texts)]


def _losses(
    start: Any, train: Any, held: Any, *, vocabulary: int, seed: int, steps: int
) -> list[float]:
    """Losses on held-out windows before training and after every few steps."""
    import torch

    from sharpen.core.model_spec import ModelSpec
    from sharpen.models import DecoderLM

    spec = ModelSpec(
        family="llama",
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_layers=LAYERS,
        num_heads=4,
        num_kv_heads=4,
        head_dim=WIDTH // 4,
        max_positions=CONTEXT,
        tie_word_embeddings=True,
    )
    model = DecoderLM(spec)
    model.init_weights(seed)
    if start is not None:
        start.init_embedding(model.model.embed_tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    rng = np.random.default_rng(seed)  # the same windows for every start

    def loss_of(windows: Any) -> Any:
        ids = torch.from_numpy(windows)
        logits = model(ids[:, :-1])
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    def held_out() -> float:
        with torch.no_grad():
            return statistics.mean(float(loss_of(part)) for part in held)

    found = [held_out()]
    for step in range(steps):
        at = rng.integers(0, len(train) - CONTEXT - 1, BATCH)
        loss = loss_of(np.stack([train[i : i + CONTEXT + 1] for i in at]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP)
        optimizer.step()
        if (step + 1) % EVERY == 0:
            found.append(held_out())
    return found


def _reached(losses: list[float], goal: float) -> float:
    """Steps to a loss, between two measurements by a straight line."""
    for k in range(1, len(losses)):
        if losses[k] <= goal:
            part = (losses[k - 1] - goal) / max(losses[k - 1] - losses[k], 1e-12)
            return EVERY * (k - 1 + part)
    return float("nan")


def main() -> int:
    args = arguments(__doc__, "data_bitcipher_lm")
    from sharpen.data.bitcipher import BitCipher, WordVectors

    documents = _tokens(args.quick)
    seeds, steps = (1, 2 * EVERY) if args.quick else (3, 160)
    train = np.concatenate([ids for i, ids in enumerate(documents) if i % 20])
    rest = np.concatenate([ids for i, ids in enumerate(documents) if i % 20 == 0])
    windows = rest[: len(rest) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    held = [windows[i : i + 16] for i in range(0, min(len(windows), 32), 16)]
    vocabulary = int(max(ids.max() for ids in documents)) + 1
    learned = [ids for i, ids in enumerate(documents) if i % 20]
    begin = time.process_time()
    cipher = BitCipher(bits=WIDTH // 2, window=1, mode="concat", min_count=1).fit(learned)
    starts: dict[str, Any] = {"random": None, "bit-cipher": cipher}
    spent = {"bit-cipher": time.process_time() - begin}
    if has_peers() and not args.quick:
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "vectors.npy")
            options = {"vector_size": WIDTH, "min_count": 1, "workers": 1, "epochs": 5}
            words = [[str(i) for i in ids.tolist()] for ids in learned]
            given = {"documents": words, "options": options, "seed": 0, "vectors": file}
            found = ask_peer("word2vec", given)
            vectors = np.load(file)
        names = found["words"]
        counts = np.ones(len(names), np.int64)
        starts["word2vec"] = WordVectors(names, vectors, counts, cipher.made_by)
        spent["word2vec"] = found["cpu_s"]
    curves: dict[str, list[list[float]]] = {name: [] for name in starts}
    for seed in range(seeds):
        for name, start in starts.items():
            settings = {"vocabulary": vocabulary, "seed": seed, "steps": steps}
            curves[name].append(_losses(start, train, held, **settings))
    goals = [curve[-1] for curve in curves["random"]]
    rows = {
        name: {
            "losses": each,
            "final": [curve[-1] for curve in each],
            "steps_to_random": [_reached(c, g) for c, g in zip(each, goals, strict=True)],
        }
        for name, each in curves.items()
    }
    results = {"rows": rows, "steps": steps, "every": EVERY, "cpu_s": spent}

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        styles = {"random": "-", "bit-cipher": "--", "word2vec": ":"}
        colours = {"random": "#888888", "bit-cipher": "#1f5fa8", "word2vec": "#e0a030"}
        for name, each in curves.items():
            mean = np.mean(each, axis=0)
            axes.plot(
                EVERY * np.arange(len(mean)), mean, styles[name], color=colours[name], label=name
            )
        axes.set_xlabel("steps")
        axes.set_ylabel("loss on held-out documents, nats a token")
        axes.legend(frameon=False)

    config = {"width": WIDTH, "layers": LAYERS, "context": CONTEXT, "batch": BATCH, "rate": RATE}
    save(args, results, config={**config, "vocabulary": vocabulary, "seeds": seeds}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
