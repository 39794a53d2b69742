"""``sharpen compress locret``: train and judge heads that say what to keep of a KV cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, new_app
from sharpen.cli.options import Device
from sharpen.cli.progress import bar, observe

__all__ = ["app"]

app = new_app("Train heads that say what to keep of a KV cache (Locret).")

Model = Annotated[str, typer.Option(help="An asset's name, a model folder, or a .gguf file.")]
Data = Annotated[
    Path,
    typer.Option(
        help="JSONL or Parquet, a file or folder: rows with messages, prompt and completion, or "
        "instruction and output. Prompts as long as those to be served."
    ),
]
Dtype = Annotated[str, typer.Option(help="Of the model: auto, float32 or bfloat16.")]


@command(
    app,
    "train",
    example="sharpen compress locret train --model tiny --data chats.jsonl --out heads",
)
def train(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    steps: Annotated[int, typer.Option(help="Texts to learn from, one a step.")] = 3000,
    hidden: Annotated[int, typer.Option(help="Width of a head.")] = 1024,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 5e-4,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which it rises.")] = 2 / 3,
    max_tokens: Annotated[int, typer.Option(help="Of a text; a prompt loses its middle.")] = 10240,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 42,
    dtype: Dtype = "float32",
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> Output:
    """Train retaining heads for a model, which stays as it is.

    Interrupted, the same command goes on where it stopped.
    """
    from sharpen.compress.kv import LocretConfig
    from sharpen.core.errors import BusyError

    config = LocretConfig(
        hidden=hidden,
        steps=steps,
        learning_rate=lr,
        warmup=warmup,
        max_tokens=max_tokens,
        seed=seed,
    )
    if out.exists() and not force:
        raise BusyError(f"{out} exists. Replace it with --force, or choose another folder.")
    if out.exists() and not (out / "locret_heads.json").is_file():
        raise BusyError(f"{out} holds no retaining heads, so --force does not replace it.")

    from sharpen.compress.kv import make_heads
    from sharpen.compress.kv.answered import answered_texts
    from sharpen.models import load_tokenizer
    from sharpen.models.tokenizer import check_compatible

    tokenizer = load_tokenizer(model)
    texts = answered_texts(data, tokenizer)
    ready, fingerprint = _prepared(model, dtype, device)
    check_compatible(tokenizer, ready.spec, model)
    told: list[Any] = []
    with observe() as observer, bar(observer, "locret (steps)", steps) as advance:

        def on_step(step: Any) -> None:
            advance(step.step - (told[-1].step if told else 0))
            told.append(step)

        heads = make_heads(ready, texts, out, config, fingerprint=fingerprint, on_step=on_step)
    last = told[-50:]
    document = {
        "model": model,
        "output": str(out),
        "texts": len(texts),
        "steps": steps,
        "parameters": sum(p.numel() for p in heads.parameters()),
        "loss": sum(step.loss for step in last) / max(1, len(last)),
        "overlap": sum(step.overlap for step in last) / max(1, len(last)),
    }
    return Output(document, lambda console: _render_training(console, document))


@command(
    app,
    "eval",
    example="sharpen compress locret eval --model tiny --heads heads --data chats.jsonl",
)
def evaluate(
    model: Model,
    data: Data,
    heads: Annotated[Path, typer.Option(help="Folder of trained heads.")],
    budget: Annotated[
        int | None,
        typer.Option(help="Tokens each head keeps; default an eighth of the longest prompt."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Texts to look at, at most.")] = 32,
    dtype: Dtype = "float32",
    device: Device = "auto",
) -> Output:
    """Compare what answers cost when prompts were read under each policy."""
    from sharpen.compress.kv import EvictionConfig, load_heads
    from sharpen.compress.kv.answered import answered_texts, compare_policies, heads_quality
    from sharpen.compress.kv.named import UNTRAINED, locret_policy
    from sharpen.core.errors import ConfigError
    from sharpen.models import load_tokenizer
    from sharpen.models.tokenizer import check_compatible

    if limit < 1:
        raise ConfigError(f"--limit is at least 1, got {limit}.")
    tokenizer = load_tokenizer(model)
    texts = answered_texts(data, tokenizer, limit=limit)
    longest = max(len(text.prompt) for text in texts)
    units = max(1, longest // 8) if budget is None else budget
    config = EvictionConfig(budget=units, local=min(100, max(1, units // 4)))
    ready, fingerprint = _prepared(model, dtype, device)
    check_compatible(tokenizer, ready.spec, model)
    trained = load_heads(heads, ready.spec, device=ready.device)
    if trained.fingerprint and trained.fingerprint != fingerprint:
        raise ConfigError(
            f"{heads} were trained for another model of the same shape. Train heads for this one: "
            "sharpen compress locret train."
        )
    loss, overlap = heads_quality(ready, trained, texts)
    policies: dict[str, Any] = {"full": None, "locret": locret_policy(trained, config)}
    policies |= _untrained(UNTRAINED, config)
    total = len(policies) * len(texts)
    with observe() as observer, bar(observer, "policies (texts)", total) as advance:
        scores = compare_policies(ready, policies, texts, on_progress=advance)
    document = {
        "model": model,
        "heads": str(heads),
        "texts": len(texts),
        "budget": units,
        "loss": loss,
        "overlap": overlap,
        "policies": {
            name: {"nats": one.nats, "perplexity": one.perplexity, "kept": one.kept}
            for name, one in scores.items()
        },
    }
    return Output(document, lambda console: _render_scores(console, document))


def _untrained(policies: Any, config: Any) -> dict[str, Any]:
    """Those that fit the budget, with their defaults otherwise."""
    from sharpen.compress.kv import SnapKVPolicy

    found = {}
    for name, policy in policies.items():
        if policy is SnapKVPolicy:
            window = min(64, config.chunk_tokens, max(1, config.budget // 4))
            found[name] = policy(config, window=window)
        else:
            found[name] = policy(config)
    return found


def _prepared(model: str, dtype: str, device: str) -> tuple[Any, str]:
    """A model ready for inference, and whose it is."""
    from sharpen.compress.kv.locret import norms_fingerprint
    from sharpen.models import load_model
    from sharpen.models.decode import prepare_for_inference
    from sharpen.models.devices import resolve_device
    from sharpen.serve.llm import resolve_dtype

    where = resolve_device(device)
    loaded = load_model(model, dtype=resolve_dtype(dtype, where), device=where)
    fingerprint = norms_fingerprint(loaded)
    return prepare_for_inference(loaded), fingerprint


def _render_training(console: Any, document: dict[str, Any]) -> None:
    console.print(
        f"{document['output']}: {document['parameters'] / 1e6:.2f} M weights from "
        f"{document['steps']} steps over {document['texts']} texts; loss {document['loss']:.3f}, "
        f"top tenth found {document['overlap']:.0%}."
    )
    console.print(
        f"Serve with them:  sharpen serve {document['model']} --kv-policy locret "
        f"--locret-heads {document['output']} --kv-budget 512"
    )


def _render_scores(console: Any, document: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("policy", "kept", "perplexity of answers")
    for name, one in document["policies"].items():
        table.add_row(name, f"{one['kept']:.0%}", f"{one['perplexity']:.3f}")
    console.print(table)
    console.print(f"The heads find {document['overlap']:.0%} of the top tenth.")
