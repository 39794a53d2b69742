"""Retrieval and perplexity when an eighth of the KV cache is kept: Locret and untrained policies.

Two models:

- *recall*, four layers, made for this (``recall.py``): 16 pairs of a key and a value in a Markov
  text, 8 of them asked for at the end. Trained on up to 2,048 tokens, measured at 512 to 2,048.
- *SmolLM2-135M-Instruct*, bfloat16: the digits of each of four codes in the text, and the
  perplexity of the 64 tokens that follow it, at 1,024 to 8,192 tokens (``long_texts.py``).

What is kept when the prompt has been read, its last tokens included, is an eighth of it. Questions
come after that, so no policy sees them before it drops anything. All policies share borders,
budget and stabilizers. A question is answered right when every token of the answer is the likeliest
one after what comes before it.

Heads and the recall model are trained here, on a GPU where there is one, which takes minutes and
not hours, and kept in ``$XDG_CACHE_HOME/sharpen/bench``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from benchmarks.common import OURS, PEER, arguments, save
from benchmarks.compress.long_texts import (
    coded_text,
    measured_ids,
    training_texts,
)
from benchmarks.compress.recall import ASKED, recall_texts, train_recall

from sharpen.compress.kv import (
    AnsweredText,
    EvictionConfig,
    H2OPolicy,
    KeptText,
    KnormPolicy,
    KVPolicy,
    LocretConfig,
    LocretPolicy,
    SinksPolicy,
    SnapKVPolicy,
    WindowPolicy,
    load_heads,
    make_heads,
)
from sharpen.compress.kv.locret import norms_fingerprint
from sharpen.compress.kv.named import UNTRAINED
from sharpen.core.files import cache_home
from sharpen.models import load_model, load_tokenizer
from sharpen.models.decode import InferenceLM, prepare_for_inference
from sharpen.models.hf import save_model

CACHE = cache_home() / "bench"
SHARE = 8
RECALL_HEADS = LocretConfig(hidden=256, steps=16_000, learning_rate=2e-3, warmup=0.1)
RECALL_LESSONS = 12_000
SMOLLM2_HEADS = LocretConfig(
    hidden=256, steps=3600, learning_rate=1e-3, warmup=0.1, max_tokens=4096
)
SMOLLM2_TEXTS = (640, 1024, 1536, 2304, 3072)
SMOLLM2_LESSONS = 6000
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def settings(tokens: int) -> EvictionConfig:
    """An eighth of a prompt is kept, its last tokens included."""
    kept = tokens // SHARE
    local = kept // 8
    return EvictionConfig(budget=kept - local, chunk=kept, local=local)


def policies(tokens: int, heads: Any) -> dict[str, KVPolicy | None]:
    config = settings(tokens)
    window = min(64, config.budget // 4)
    return {
        "full": None,
        "locret": LocretPolicy(heads, config),
        "locret + 4 sinks": LocretPolicy(heads, config, sinks=4),
        "window": WindowPolicy(config),
        "sinks": SinksPolicy(config),
        "h2o": H2OPolicy(config),
        "snapkv": SnapKVPolicy(config, window=window),
        "knorm": KnormPolicy(config),
    }


def ready(model: Any) -> tuple[InferenceLM, str]:
    fingerprint = norms_fingerprint(model)
    return prepare_for_inference(model), fingerprint


def trained(
    name: str, model: InferenceLM, fingerprint: str, texts: Any, config: LocretConfig
) -> tuple[Any, dict[str, Any]]:
    """Heads from the cache, or made now."""
    folder = CACHE / name
    log = folder.with_suffix(".json")  # of the training, for runs that find the heads
    if not folder.exists():
        steps: list[Any] = []

        def on_step(step: Any) -> None:
            steps.append(step)
            if step.step % 25 == 0:
                print(f"{name} {step.step} loss {step.loss:.3f} top {step.overlap:.2f}", flush=True)

        begin = time.perf_counter()
        make_heads(model, texts(), folder, config, fingerprint=fingerprint, on_step=on_step)
        last = steps[-50:]
        made = {
            "seconds": time.perf_counter() - begin,
            "loss": sum(s.loss for s in last) / len(last),
            "overlap": sum(s.overlap for s in last) / len(last),
            "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU",
        }
        log.write_text(json.dumps(made))
    told = json.loads(log.read_text()) if log.exists() else {"cached": True}
    heads = load_heads(folder, model.spec, device=DEVICE)
    assert heads.fingerprint == fingerprint
    return heads, told


def recall_answered(ids: torch.Tensor) -> AnsweredText:
    row = ids.tolist()
    return AnsweredText(row[: -3 * ASKED], row[-3 * ASKED :])


def recall_lessons(count: int) -> list[AnsweredText]:
    generator = torch.Generator().manual_seed(10)
    made = []
    for _ in range(count):
        length = int(torch.randint(400, 1025, (1,), generator=generator))
        made.append(recall_answered(recall_texts(1, length, 16, generator).ids[0]))
    return made


def smollm2_lessons(tokenizer: Any, count: int) -> list[AnsweredText]:
    each = count // len(SMOLLM2_TEXTS)
    made = [training_texts(tokenizer, each, tokens, seed=tokens) for tokens in SMOLLM2_TEXTS]
    return [text for texts in made for text in texts]


def read(
    model: InferenceLM,
    policy: KVPolicy | None,
    prompt: Sequence[int],
    answers: Sequence[Sequence[int]],
) -> tuple[list[torch.Tensor], KeptText]:
    """Log-probabilities [A, V] of each answer's tokens, after the prompt was read once."""
    reader = KeptText(model, policy, len(prompt), new_tokens=max(map(len, answers)))
    first = reader.read(prompt)
    found = []
    for answer in answers:
        reader.rewind()
        logits = torch.cat((first, reader.read(answer[:-1], wanted=len(answer) - 1)))
        found.append(torch.log_softmax(logits.float(), -1).cpu())
    return found, reader


def right(chances: torch.Tensor, answer: Sequence[int], places: Sequence[int]) -> list[bool]:
    return [int(chances[i].argmax()) == answer[i] for i in places]


def measure_recall(steps: int, lengths: Sequence[int], texts: int, config: LocretConfig) -> Any:
    folder = CACHE / f"recall-{steps}"
    if not folder.exists():
        save_model(train_recall(steps), folder, dtype=torch.float32)
    model, fingerprint = ready(load_model(folder, dtype=torch.float32, device=DEVICE))
    name = f"recall-{steps}-heads-{config.steps}"
    heads, told = trained(
        name, model, fingerprint, lambda: recall_lessons(min(config.steps, RECALL_LESSONS)), config
    )
    found: dict[str, Any] = {}
    for length in lengths:
        batch = recall_texts(texts, length, 16, torch.Generator().manual_seed(length)).ids
        rows: dict[str, Any] = {}
        for label, policy in policies(length, heads).items():
            hits: list[bool] = []
            for ids in batch:
                text = recall_answered(ids)
                (chances,), reader = read(model, policy, text.prompt, [text.answer])
                hits += right(chances, text.answer, range(2, 3 * ASKED, 3))
            rows[label] = {"retrieved": sum(hits) / len(hits), "peak_bytes": reader.num_bytes}
            print(f"recall {length} {label:8} {rows[label]['retrieved']:.3f}", flush=True)
        found[str(length)] = rows
    return {"lengths": found, "heads": told, "texts": texts, "questions": texts * ASKED}


def measure_smollm2(lengths: Sequence[int], counts: dict[int, int], config: LocretConfig) -> Any:
    name = "smollm2-135m-instruct"
    tokenizer = load_tokenizer(name)
    model, fingerprint = ready(load_model(name, dtype=torch.bfloat16, device=DEVICE))
    heads, told = trained(
        f"smollm2-heads-{config.steps}",
        model,
        fingerprint,
        lambda: smollm2_lessons(tokenizer, SMOLLM2_LESSONS),
        config,
    )
    sources = measured_ids(tokenizer)
    found: dict[str, Any] = {}
    for length in lengths:
        chance = random.Random(length)
        texts = []
        for number in range(counts[length]):
            ids = list(sources.values())[number % len(sources)]
            start = chance.randrange(len(ids) - length)
            texts.append(coded_text(tokenizer, ids[start : start + length], chance))
        rows: dict[str, Any] = {}
        for label, policy in policies(length, heads).items():
            nats, tokens, digits = 0.0, 0, []
            for text in texts:
                answers = [text.continuation, *text.questions]
                (follows, *asked), reader = read(model, policy, text.prompt, answers)
                wanted = torch.tensor(text.continuation)[:, None]
                nats -= float(follows.gather(1, wanted).double().sum())
                tokens += len(wanted)
                for chances, answer in zip(asked, text.questions, strict=True):
                    places = range(len(answer) - 5, len(answer))
                    digits.append(right(chances, answer, places))
            rows[label] = {
                "perplexity": math.exp(nats / tokens),
                "retrieved": sum(map(all, digits)) / len(digits),
                "digits": sum(map(sum, digits)) / 5 / len(digits),
                "peak_bytes": reader.num_bytes,
            }
            print(
                f"smollm2 {length} {label:8} perplexity {rows[label]['perplexity']:.2f} codes "
                f"{rows[label]['retrieved']:.2f} digits {rows[label]['digits']:.2f}",
                flush=True,
            )
        found[str(length)] = rows
    return {"lengths": found, "heads": told, "texts": {str(k): v for k, v in counts.items()}}


def main() -> int:
    options = arguments(__doc__, "compress_locret")
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    if options.quick:
        config = dataclasses.replace(RECALL_HEADS, hidden=32, steps=10)
        results["recall"] = measure_recall(10, [128], 2, config)
        save(options, results, config={"share": SHARE})
        rows = results["recall"]["lengths"]["128"]
        return 0 if rows["locret"]["peak_bytes"] < 0.6 * rows["full"]["peak_bytes"] else 1
    results["recall"] = measure_recall(2200, (512, 1024, 2048), 16, RECALL_HEADS)
    counts = {1024: 20, 2048: 12, 4096: 6, 8192: 4}
    results["smollm2"] = measure_smollm2(tuple(counts), counts, SMOLLM2_HEADS)
    config = {
        "share": SHARE,
        "recall_heads": dataclasses.asdict(RECALL_HEADS),
        "smollm2_heads": dataclasses.asdict(SMOLLM2_HEADS),
        "smollm2_texts": [SMOLLM2_TEXTS[0], SMOLLM2_TEXTS[-1]],
    }
    save(options, results, config=config, plot=lambda figure: draw(figure, results))
    row = results["recall"]["lengths"]["1024"]
    ours, full = row["locret"]["retrieved"], row["full"]["retrieved"]
    others = max(v["retrieved"] for k, v in row.items() if k in UNTRAINED)
    print(f"1,024 tokens: {ours:.3f} of {full:.3f}; best untrained {others:.3f}")
    return 0 if ours >= 0.9 * full and ours > others else 1


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Retrieval of both models and the perplexity of SmolLM2, over the length."""
    panels = figure.subplots(1, 3)
    shown = (
        ("recall", "retrieved", "answers right, recall model"),
        ("smollm2", "digits", "digits right, SmolLM2"),
        ("smollm2", "perplexity", "perplexity, SmolLM2"),
    )
    styles = {
        "full": ("black", "--", ""),
        "locret": (OURS, "-", "o"),
        "locret + 4 sinks": (OURS, "--", "P"),
    }
    markers = iter("sv^Dx")
    for axes, (model, key, title) in zip(panels, shown, strict=True):
        lengths = results[model]["lengths"]
        for label in next(iter(lengths.values())):
            if label not in styles:
                styles[label] = (PEER, ":", next(markers))
            colour, line, marker = styles[label]
            axes.plot(
                [int(n) for n in lengths],
                [row[label][key] for row in lengths.values()],
                line,
                color=colour,
                marker=marker or None,
                markersize=4,
                label=label,
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks([int(n) for n in lengths], list(lengths))
        axes.set_xlabel("tokens")
        axes.set_title(title, fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[2].set_yscale("log")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=8, frameon=False, fontsize=7)
    figure.suptitle("An eighth of the KV cache kept", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
