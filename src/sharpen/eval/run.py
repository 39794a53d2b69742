"""The work of the ``eval`` stage: a model before and after training, measured on the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.core.files import atomic_write_json, atomic_write_text
from sharpen.core.stage import Artifact, StageContext, StageResult
from sharpen.data.shards import TokenDataset
from sharpen.eval.choices import score_choices
from sharpen.eval.config import EvalConfig
from sharpen.eval.exact_match import score_exact_match
from sharpen.eval.loss import dataset_loss, windowed_loss
from sharpen.eval.tasks import Task, load_task
from sharpen.models.chat import render_chat
from sharpen.models.decoder import DecoderLM
from sharpen.models.generation import generate
from sharpen.models.load import load_model
from sharpen.models.lora import load_adapter, merge_lora
from sharpen.models.tokenizer import Tokenizer, load_tokenizer

__all__ = ["model_folder", "read_text_ids", "run_eval"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_TEXT_PROMPT_TOKENS = 32


def model_folder(artifact: Artifact, variant: str | None = None) -> Path:
    """The model folder of a model artifact, which may hold one model or several variants.

    Raises:
        ConfigError: it holds several and none is named, or none of that name.
    """
    variants = sorted(p.parent.name for p in artifact.path.glob("*/config.json"))
    if variant is None:
        if (artifact.path / "config.json").exists() or not variants:
            return artifact.path
        raise ConfigError(
            f"the stage '{artifact.stage}' made several models; name one with 'variant': "
            f"{', '.join(variants)}."
        )
    if variant not in variants:
        raise ConfigError(
            f"variant={variant!r} is none of the models of the stage '{artifact.stage}': "
            f"{', '.join(variants) or 'it made one model without variants'}."
        )
    return artifact.path / variant


@dataclass(frozen=True, slots=True)
class _Work:
    """What is measured, read once and used for the model before and after."""

    dataset: TokenDataset | None
    text_ids: list[int]
    tasks: list[Task]
    prompts: list[list[int]]
    rows: list[dict[str, str]]
    """Prompt and reference of each sample, as text."""
    stop: set[int]


def run_eval(config: EvalConfig, context: StageContext) -> StageResult:
    """Measure the recipe's model and, when one was trained, what came of it."""
    assert context.model is not None
    tokenizer = load_tokenizer(context.model)
    dtype = _DTYPES[config.dtype]
    model = load_model(context.model, dtype=dtype)
    work = _prepare(config, context, tokenizer, model)
    made, adapter = context.inputs.get("model"), context.inputs.get("adapter")
    trained = made is not None or adapter is not None
    results, outputs = _measure(config, context, work, tokenizer, model, "before" * trained)
    samples = [{**row, "output": text} for row, text in zip(work.rows, outputs, strict=True)]
    if trained:
        if made is not None:
            del model
            model = load_model(model_folder(made, config.variant), dtype=dtype)
        if adapter is not None:
            load_adapter(model, adapter.path)
            merge_lora(model)
        after, texts = _measure(config, context, work, tokenizer, model, "after")
        results |= after
        samples = [
            {**row, "before": before, "after": text}
            for row, before, text in zip(work.rows, outputs, texts, strict=True)
        ]
    if samples:
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        atomic_write_text(context.output / "samples.jsonl", lines)
    atomic_write_json(context.output / "results.json", results)
    return StageResult(results={**results, "samples": samples} if samples else results)


def _prepare(
    config: EvalConfig, context: StageContext, tokenizer: Tokenizer, model: DecoderLM
) -> _Work:
    artifact = context.inputs.get("dataset")
    dataset = None
    examples: list[dict[str, Any]] = []
    if artifact is not None and (config.metrics or config.samples):
        dataset = TokenDataset(artifact.path, "valid", tokenizer_fingerprint=tokenizer.fingerprint)
        examples = dataset.examples(config.samples)
    text_ids: list[int] = []
    if config.text is not None:
        text_ids = read_text_ids(context.resolve(config.text), tokenizer)[: config.max_text_tokens]
    tasks = [load_task(context.resolve(task)) for task in config.tasks]
    if dataset is None and not text_ids and not tasks:
        raise ConfigError(
            f"{context.stage}: nothing to measure on. Put a 'data' stage before it, or give "
            "'text' or 'tasks'."
        )
    room = model.spec.max_positions - config.max_new_tokens
    prompts: list[list[int]] = []
    rows: list[dict[str, str]] = []
    for example in examples:
        prompt, shown, reference = _prompt(example, tokenizer, config.template == "auto")
        if prompt and len(prompt) <= room:
            prompts.append(prompt)
            rows.append({"prompt": shown, "reference": reference})
    stop = {i for i in (*model.spec.eos_token_ids, tokenizer.eos_id) if i is not None}
    return _Work(dataset, text_ids, tasks, prompts, rows, stop)


def read_text_ids(path: Path, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a text file in UTF-8.

    Raises:
        ConfigError: its bytes are no text.
        MissingFileError: it is a folder.
    """
    try:
        return tokenizer.encode(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; give a text file.") from None
    except IsADirectoryError:
        raise MissingFileError(f"{path} is a folder; give a text file.") from None


def _prompt(
    row: Mapping[str, Any], tokenizer: Tokenizer, use_template: bool
) -> tuple[list[int], str, str]:
    """Prompt ids, the prompt for reading, and what the data set has after it."""
    messages: Sequence[Mapping[str, Any]] = ()
    if "messages" in row:
        last = max(i for i, m in enumerate(row["messages"]) if m["role"] == "assistant")
        messages, reference = row["messages"][:last], str(row["messages"][last].get("content"))
        shown = "\n".join(f"{m['role']}: {m.get('content')}" for m in messages)
    elif "text" in row:
        ids = tokenizer.encode(row["text"])
        cut = min(_TEXT_PROMPT_TOKENS, len(ids) // 2)
        prompt = ids[:cut]
        return prompt, tokenizer.decode(prompt), tokenizer.decode(ids[cut : cut + cut])
    else:
        shown, reference = row["prompt"], row["completion"]
        if not use_template or tokenizer.chat_template is None:
            return tokenizer.encode(shown), shown, reference
        messages = [{"role": "user", "content": shown}]
    text = render_chat(tokenizer, messages, add_generation_prompt=True)
    return tokenizer.encode(text), shown, reference


def _measure(
    config: EvalConfig,
    context: StageContext,
    work: _Work,
    tokenizer: Tokenizer,
    model: DecoderLM,
    when: str,
) -> tuple[dict[str, Any], list[str]]:
    """Numbers under names that end in ``_when``, and the continuations of the samples."""
    results: dict[str, Any] = {}
    suffix = f"_{when}" if when else ""
    doing = f"evaluate {when}".rstrip()
    if work.dataset is not None and config.metrics:
        examples = min(config.limit or work.dataset.num_examples, work.dataset.num_examples)
        with context.progress(doing, examples) as bar:
            loss, labels = dataset_loss(
                model,
                work.dataset,
                limit=config.limit,
                batch_size=config.batch_size,
                on_progress=bar.advance,
            )
        results["labels"] = labels
        if "loss" in config.metrics:
            results[f"loss{suffix}"] = loss
        if "perplexity" in config.metrics:
            results[f"perplexity{suffix}"] = math.exp(loss)
    if work.text_ids:
        with context.progress(f"{doing}: text", len(work.text_ids)) as bar:
            loss, _ = windowed_loss(
                model,
                work.text_ids,
                window=config.window,
                stride=config.stride,
                on_progress=bar.advance,
            )
        results[f"text_perplexity{suffix}"] = math.exp(loss)
    for task in work.tasks:
        count = len(task.questions[: config.limit])
        with context.progress(f"{doing}: {task.name}", count) as bar:
            if task.kind == "choice":
                choice = score_choices(
                    model, tokenizer, task, limit=config.limit, on_progress=bar.advance
                )
                found = {"acc": choice.acc, "acc_norm": choice.acc_norm}
            else:
                match = score_exact_match(
                    model,
                    tokenizer,
                    task,
                    config.exact_match,
                    limit=config.limit,
                    on_progress=bar.advance,
                )
                found = {"exact_match": match.exact_match}
        results[task.name] = {f"{name}{suffix}": value for name, value in found.items()}
    texts: list[str] = []
    if work.prompts:
        with context.progress(f"{doing}: samples"):
            generations = generate(
                model, work.prompts, max_new_tokens=config.max_new_tokens, stop_ids=work.stop
            )
        texts = [tokenizer.decode(generation.ids) for generation in generations]
    return results, texts
