"""Alignment on two processes against one: losses and weights."""

from collections.abc import Sequence
from pathlib import Path
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
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.plan import ParallelConfig
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepReport, Trainer
from sharpen.train.config import CheckpointConfig, TrainConfig
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

Job = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
"""A method, its options, the degrees of parallelism, and how rollouts are rewarded and used."""


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


def some(
    prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Any]
) -> list[float | None]:
    """Rewards of a few prompts: of the two ranks, one has none in the first and last batch."""
    found = lengths(prompts, completions, meta)
    return [
        value if prompt in ("ijklm ", "cd ", "ab ") else None
        for prompt, value in zip(prompts, found, strict=True)
    ]


def nothing(
    prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Any]
) -> list[float | None]:
    """No reward at all."""
    return [None] * len(completions)


class Losses:
    """What was told of each step, until it is time to stop."""

    def __init__(self, stop_at: int | None) -> None:
        self.values: list[tuple[float, float]] = []
        self.stop_at = stop_at

    def on_start(self, trainer: Trainer) -> None:
        """Nothing."""

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """Keep the loss and the norm of the gradient."""
        assert report.grad_norm is not None
        if self.stop_at is not None and report.step > self.stop_at:
            raise KeyboardInterrupt
        self.values.append((report.loss, report.grad_norm))


def train(job: Job, stop_at: int | None = None) -> dict[str, Any]:
    """One training; on every rank alike. ``stop_at``: interrupt in the step after that one."""
    name, own, parallel, how = job
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
        checkpoint=CheckpointConfig(every=1, async_=False),
    )
    work: RowWork | RolloutWork
    with RewardPool(how.get("reward", lengths), workers=0) as pool:
        if method.online:
            sampling = SamplingParams(max_tokens=NEW)
            rollouts = Rollouts(
                prompts=BATCH,
                generations=generations,
                epochs=method.epochs,
                sampling=sampling,
                staleness=how.get("staleness", 0),
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
        losses = Losses(stop_at)
        trainer = Trainer(model, work, config, output=how.get("output"), seed=3, callbacks=[losses])
        trainer.fit()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return {"told": losses.values, "weights": weights}


def several(jobs: list[Job]) -> list[dict[str, Any]]:
    """Trainings one after the other."""
    return [train(job) for job in jobs]


def refused(jobs: list[Job], error: type[Exception]) -> list[str]:
    """What each is told, instead of trained."""
    found = []
    for job in jobs:
        with pytest.raises(error) as caught:
            train(job)
        found.append(str(caught.value))
    return found


METHODS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sft", {}, {}),
    ("dpo", {"beta": 0.5}, {}),
    ("kto", {"beta": 0.5}, {}),
    ("grpo", {"beta": 0.1, "scale_rewards": "batch"}, {}),
    ("grpo", {"drop_zero_std": True}, {"reward": mostly_flat}),
    ("ppo", {}, {}),
    ("remax", {"baseline": "mean"}, {}),
    ("rloo", {"normalize": True}, {}),
]
PARTLY: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("grpo", {"scale_rewards": "batch"}, {"reward": some}),
    ("grpo", {"drop_zero_std": True}, {"reward": some}),
    ("ppo", {"kl_target": 1.0}, {"reward": some}),
    ("remax", {"baseline": "mean"}, {"reward": some}),
    ("remax", {"baseline": "ema", "beta": 0.0}, {"reward": some, "staleness": 1}),
    ("rloo", {"normalize": True}, {"reward": some, "staleness": 1}),
    ("grpo", {"beta": 0.1}, {"staleness": 1}),
    ("ppo", {}, {"staleness": 1}),
    ("rft", {}, {"reward": some, "staleness": 1}),
]


@pytest.mark.slow
def test_two_processes_learn_as_one_does() -> None:
    """Unequal completions on the ranks; moments of advantages and KTO's divergence are of all."""
    jobs: list[Job] = [
        (name, own, {"zero_stage": stage}, how) for name, own, how in METHODS for stage in (0, 1)
    ]
    compare(
        jobs, [done for name, own, how in METHODS for done in [train((name, own, {}, how))] * 2]
    )


@pytest.mark.slow
def test_two_processes_do_so_where_one_has_no_reward_and_one_batch_behind() -> None:
    """A rank without rewards takes part with nothing: in no mean, spread or denominator."""
    jobs: list[Job] = [(name, own, {}, how) for name, own, how in PARTLY]
    compare(jobs, [train(job) for job in jobs])


def compare(jobs: list[Job], alone: list[dict[str, Any]]) -> None:
    """On two ranks, against what one process told and made.

    Weights move by up to 0.01 a step; sums in another order move them by less than 0.00003 in all.
    """
    for ranks in run(several, 2, jobs):
        for job, done, expected in zip(jobs, ranks, alone, strict=True):
            for found, told in zip(done["told"], expected["told"], strict=True):
                assert found == pytest.approx(told, rel=1e-5, abs=1e-5), job
            for key, weight in done["weights"].items():
                torch.testing.assert_close(
                    weight,
                    expected["weights"][key],
                    rtol=1e-5,
                    atol=3e-5,
                    msg=lambda text, job=(*job, key): f"{job}: {text}",
                )


@pytest.mark.slow
def test_layouts_that_alignment_cannot_have_are_refused() -> None:
    jobs: list[Job] = [
        *[("grpo", {}, {"zero_stage": stage}, {}) for stage in (2, 3)],
        ("ppo", {}, {"sp": 2}, {}),
        ("ppo", {}, {"ring": 2}, {}),
        ("dpo", {}, {"sp": 2}, {}),
    ]
    for told in run(refused, 2, jobs, ConfigError):
        assert all("whole weights on every rank" in one for one in told[:4])
        assert "leave parallel.sp at 1" in told[4]


@pytest.mark.slow
def test_no_reward_on_any_rank_is_the_error_of_one_process_on_each() -> None:
    jobs: list[Job] = [
        ("grpo", {}, {}, {"reward": nothing, "staleness": behind}) for behind in (0, 1)
    ]
    alone = refused(jobs, ExecutionError)
    assert alone == [alone[0]] * 2
    assert "none of the 32 completions of this iteration got a reward: dropped (32)" in alone[0]
    assert run(refused, 2, jobs, ExecutionError) == [alone, alone]


def stopped(job: Job, folder: Path, last: int) -> dict[str, Any]:
    """A training that stops once, after a step, and goes on from its checkpoint."""
    parts: Job = (*job[:3], {**job[3], "output": folder})
    with pytest.raises(KeyboardInterrupt):
        train(parts, stop_at=last)
    return train(parts)


@pytest.mark.slow
def test_completions_still_to_learn_from_come_back_on_each_rank(tmp_path: Path) -> None:
    """Stopped on two ranks: on two the same bits, on one the same up to rounding."""
    job: Job = ("grpo", {"beta": 0.1}, {}, {"staleness": 1})
    whole, parts = run(train, 2, job), run(stopped, 2, job, tmp_path / "two", 1)
    for ours, again in zip(whole, parts, strict=True):
        assert again["told"] == ours["told"][1:]
        assert all(
            torch.equal(again["weights"][key], ours["weights"][key]) for key in ours["weights"]
        )
