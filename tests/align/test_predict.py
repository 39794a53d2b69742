"""What is planned against what a step computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.align import scoring
from sharpen.align.config import AlignConfig
from sharpen.align.engines import PlainEngine
from sharpen.align.loop.rollouts import Rollouts, RolloutWork
from sharpen.align.loop.rows import RowWork
from sharpen.align.methods import find_method
from sharpen.align.predict import predict_align
from sharpen.align.rewards import RewardPool
from sharpen.align.rows import read_feedback, tokenize_rows
from sharpen.core.config import from_dict
from sharpen.core.stage import RecipeContext
from sharpen.serve.sampling import SamplingParams
from sharpen.train import Trainer
from small_models import byte_tokenizer, save_small_model, small_model

NEW, PROMPT = 5, 12
WORDS = ("lemon", "apple", "grape", "olive", "peach", "mango", "melon", "berry")


def written(folder: Path, kind: str) -> Path:
    """Rows whose prompts have 12 tokens and whose completions have 6, with their end."""
    more = {"preference": {"chosen": "right", "rejected": "wrong"}, "prompt": {}}[kind]
    path = folder / "rows.jsonl"
    prompts = [f"word: {word} " for word in WORDS]
    path.write_text("".join(json.dumps({"prompt": p, **more}) + "\n" for p in prompts))
    return path


@pytest.mark.parametrize(
    ("method", "changes", "each"),
    [
        ("dpo", {"batch": 8, "micro_batch": 4}, 4 * (PROMPT + 2 * 6)),
        ("grpo", {"batch": 4, "generations": 4, "micro_batch": 8}, 2 * PROMPT + 8 * NEW),
        ("grpo", {"batch": 4, "generations": 4, "micro_batch": 2}, PROMPT + 2 * NEW),
        ("remax", {"batch": 4, "micro_batch": 4}, 4 * (PROMPT + NEW)),
    ],
)
def test_a_shared_prompt_is_planned_once(
    method: str, changes: dict[str, Any], each: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(scoring, "prefers_onednn", lambda: False)  # it fills passes up
    found = find_method(method)
    data = written(tmp_path, found.kind)
    own = {"method": method, "data": str(data), "steps": 1, **changes}
    if found.online:
        own |= {"reward": {"uses": "json"}, "sampling": {"max_tokens": NEW}}
        own |= {"options": {"beta": 0.0}}
    config = from_dict(AlignConfig, own)
    folder = save_small_model(tmp_path / "model")
    planned = predict_align(config, RecipeContext(model=str(folder), seed=0)).details

    tokenizer = byte_tokenizer()
    rows = tokenize_rows(read_feedback(data, kind=found.kind).rows, tokenizer).rows
    model, training = small_model().requires_grad_(True), config.training(1, config.micro_batch)
    counted: list[int] = []  # tokens of passes with gradients

    def count(module: Any, inputs: tuple[torch.Tensor], output: Any) -> None:
        if torch.is_grad_enabled():
            counted.append(inputs[0].numel())

    model.model.embed_tokens.register_forward_hook(count)
    options = config.method_options()
    if found.online:
        sampling = SamplingParams(max_tokens=NEW, ignore_eos=True)
        rollouts = Rollouts(prompts=config.batch, generations=config.draws, sampling=sampling)
        engine = PlainEngine(tokenizer)
        with RewardPool(lambda p, c, m: [float(len(text)) for text in c], workers=0) as pool:
            work: Any = RolloutWork(rows, found, options, rollouts, engine=engine, pool=pool)
            Trainer(model, work, training).fit()
    else:
        Trainer(model, RowWork(rows, found, options), training).fit()
    assert counted == [each] * len(counted)
    assert planned["tokens_a_pass"] == sum(counted)
    assert planned["longest_sequence"] == PROMPT + (NEW if found.online else 6)
