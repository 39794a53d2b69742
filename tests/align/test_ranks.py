"""Alignment on two processes against one: losses and weights."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from distributed import run
from sharpen.align.engines import PlainEngine
from sharpen.align.loop.rollouts import Rollouts, RolloutWork
from sharpen.align.loop.rows import RowWork
from sharpen.align.methods import find_method
from sharpen.align.rewards import RewardPool
from sharpen.align.rows import tokenize_rows
from sharpen.align.rows.parse import parse_row
from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError
from sharpen.plan import ParallelConfig
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepReport, Trainer
from sharpen.train.config import TrainConfig
from small_models import byte_tokenizer, small_model

WORDS = ("ab", "cd", "efg", "gh", "ijklm", "kl")
ROWS: dict[str, list[dict[str, Any]]] = {
    "completion": [{"prompt": f"{word} ", "completion": word[::-1]} for word in WORDS],
    "preference": [
        {"prompt": f"{word} ", "chosen": word[::-1], "rejected": word + word} for word in WORDS
    ],
    "label": [
        {"prompt": f"{word} ", "completion": word, "label": i % 3 == 0}
        for i, word in enumerate(WORDS)
    ],
    "prompt": [{"prompt": f"{word} "} for word in WORDS],
}
BATCH, STEPS, NEW = 4, 3, 6

Job = tuple[str, dict[str, Any], dict[str, Any]]
"""A method, its options, and the degrees of parallelism."""


def lengths(prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Any]) -> list[float]:
    """A reward that differs from completion to completion, but of one prompt."""
    return [
        0.5 if prompt == "cd " else len(text) % 7 / 7 + (sum(map(ord, text)) % 5) / 5
        for prompt, text in zip(prompts, completions, strict=True)
    ]


def mostly_flat(
    prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Any]
) -> list[float]:
    """Rewards that are alike for every prompt but one, so that a rank may have none that differ."""
    found = lengths(prompts, completions, meta)
    return [
        value if prompt == "ijklm " else 0.5 for prompt, value in zip(prompts, found, strict=True)
    ]


class Losses:
    """What was told of each step."""

    def __init__(self) -> None:
        self.values: list[tuple[float, float]] = []

    def on_start(self, trainer: Trainer) -> None:
        """Nothing."""

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """Keep the loss and the norm of the gradient."""
        assert report.grad_norm is not None
        self.values.append((report.loss, report.grad_norm))


def train(job: Job) -> dict[str, Any]:
    """One training; on every rank alike."""
    name, own, parallel = job
    method, tokenizer = find_method(name), byte_tokenizer()
    parsed = [parse_row(row, f"row {i}") for i, row in enumerate(ROWS[method.kind])]
    rows = tokenize_rows(parsed, tokenizer).rows
    options = from_dict(method.options, own)
    model = small_model(std=0.05).requires_grad_(True)
    if method.add_heads is not None:
        method.add_heads(model)
    generations = method.generations if method.online else 1
    config = TrainConfig(
        steps=STEPS * (method.epochs if method.online else 1),
        micro_batch=1,
        global_batch=BATCH * generations,
        optimizer_options={"eps": 1e-4},  # what is nearly 0 is not blown up to a whole step
        lr=1e-2,
        max_norm=0.5,
        parallel=ParallelConfig(**parallel),
    )
    work: RowWork | RolloutWork
    reward = mostly_flat if own.get("drop_zero_std") else lengths
    with RewardPool(reward, workers=0) as pool:
        if method.online:
            sampling = SamplingParams(max_tokens=NEW)
            rollouts = Rollouts(
                prompts=BATCH, generations=generations, epochs=method.epochs, sampling=sampling
            )
            engine = PlainEngine(tokenizer)
            work = RolloutWork(
                rows,
                method,
                options,
                rollouts,
                engine=engine,
                pool=pool,
                eos_ids=frozenset({2}),
            )
        else:
            work = RowWork(rows, method, options)
        losses = Losses()
        Trainer(model, work, config, seed=3, callbacks=[losses]).fit()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return {"told": losses.values, "weights": weights}


def several(jobs: list[Job]) -> list[dict[str, Any]]:
    """Trainings one after the other."""
    return [train(job) for job in jobs]


def refused(jobs: list[Job]) -> list[str]:
    """What each is told, instead of trained."""
    found = []
    for job in jobs:
        with pytest.raises(ConfigError) as caught:
            train(job)
        found.append(str(caught.value))
    return found


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("sft", {}),
    ("dpo", {"beta": 0.5}),
    ("kto", {"beta": 0.5}),
    ("grpo", {"beta": 0.1, "scale_rewards": "batch"}),
    ("grpo", {"drop_zero_std": True}),
    ("ppo", {}),
    ("remax", {"baseline": "mean"}),
    ("rloo", {"normalize": True}),
]


@pytest.mark.slow
def test_two_processes_learn_as_one_does() -> None:
    """Unequal completions on the ranks; moments of advantages and KTO's divergence are of all."""
    jobs: list[Job] = [
        (name, own, {"zero_stage": stage}) for name, own in METHODS for stage in (0, 1)
    ]
    alone = [done for name, own in METHODS for done in [train((name, own, {}))] * 2]
    for ranks in run(several, 2, jobs):
        for job, done, expected in zip(jobs, ranks, alone, strict=True):
            for found, told in zip(done["told"], expected["told"], strict=True):
                assert found == pytest.approx(told, rel=1e-5, abs=1e-5), job
            for key, weight in done["weights"].items():
                torch.testing.assert_close(
                    weight,
                    expected["weights"][key],
                    rtol=1e-5,
                    atol=1e-5,
                    msg=lambda text, job=(*job, key): f"{job}: {text}",
                )


@pytest.mark.slow
def test_layouts_that_alignment_cannot_have_are_refused() -> None:
    jobs: list[Job] = [
        *[("grpo", {}, {"zero_stage": stage}) for stage in (2, 3)],
        ("ppo", {}, {"sp": 2}),
        ("ppo", {}, {"ring": 2}),
        ("dpo", {}, {"sp": 2}),
    ]
    for told in run(refused, 2, jobs):
        assert all("whole weights on every rank" in one for one in told[:4])
        assert "leave parallel.sp at 1" in told[4]
