"""Pairs of steps on two processes against one: what is told of each round, and weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from align.loop.letters import Deaf, Letters
from distributed import run
from sharpen.align.config import BranchConfig
from sharpen.align.engines import PlainEngine
from sharpen.align.loop.rollouts import Rollouts
from sharpen.align.loop.stepwise import StepwiseWork
from sharpen.align.methods import find_method
from sharpen.align.rewards import RewardPool
from sharpen.core.errors import DataError
from sharpen.serve.sampling import SamplingParams
from sharpen.train import StepReport, Trainer
from sharpen.train.config import CheckpointConfig, TrainConfig
from small_models import byte_tokenizer, small_model

TOLD = ("loss", "success", "reward", "turns", "pairs", "episodes", "success_after")

Job = dict[str, Any]
"""What differs from :data:`USUAL`."""

USUAL: Job = {
    "method": "dpo",
    "world": Letters,
    "tasks": 9,
    "batch": 4,
    "margin": 0.1,
    "epochs": 1,
    "minibatches": 1,
    "output": None,
    "kill_after": None,
}
JOBS: list[Job] = [
    {"epochs": 2, "minibatches": 2},
    {"method": "orpo"},
    {"tasks": 1, "margin": 0.02},  # one rank has nothing to play; one pair a round, or none
]


def unasked(prompts: Any, completions: Any, meta: Any) -> list[float]:
    """Worlds tell rewards themselves."""
    raise AssertionError


class Told:
    """Numbers of each step."""

    def __init__(self, kill_after: int | None) -> None:
        self.rows: list[dict[str, float]] = []
        self.kill_after = kill_after

    def on_start(self, trainer: Trainer) -> None:
        """Nothing."""

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """Keep them, until it is time to die."""
        if report.step == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        values = {"loss": report.loss, "labels": report.labels, **report.metrics}
        self.rows.append({name: values[name] for name in (*TOLD, "labels") if name in values})


def train(job: Job) -> dict[str, Any]:
    """One training; on every rank alike."""
    own = {**USUAL, **job}
    method, tokenizer = find_method(own["method"]), byte_tokenizer()
    rollouts = Rollouts(
        prompts=own["batch"],
        generations=3,
        epochs=own["epochs"],
        minibatches=own["minibatches"],
        sampling=SamplingParams(max_tokens=6),
    )
    model = small_model(std=0.05).requires_grad_(True)
    config = TrainConfig(
        steps=3 * rollouts.steps,
        micro_batch=2,
        global_batch=own["batch"] * 3,
        optimizer_options={"eps": 1e-4},  # what is nearly 0 is not blown up to a whole step
        lr=3e-3,
        checkpoint=CheckpointConfig(every=1, async_=False),
    )
    told = Told(own["kill_after"])
    with RewardPool(unasked, workers=0) as pool:
        work = StepwiseWork(
            own["world"],
            own["tasks"],
            tokenizer,
            256,
            method,
            method.options(),
            rollouts,
            engine=PlainEngine(tokenizer),
            pool=pool,
            branches=BranchConfig(margin=own["margin"]),
        )
        Trainer(model, work, config, output=own["output"], seed=3, callbacks=[told]).fit()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return {"told": told.rows, "weights": weights}


def several(jobs: list[Job]) -> list[dict[str, Any]]:
    """Trainings one after the other."""
    return [train(job) for job in jobs]


def refused(job: Job) -> str:
    """What a training is told, instead."""
    with pytest.raises(DataError) as caught:
        train(job)
    return str(caught.value)


@pytest.mark.slow
def test_two_processes_learn_from_pairs_as_one_does() -> None:
    """Weights move by up to 0.003 a step; sums in another order by less than 0.00003 in all."""
    alone = several(JOBS)
    assert {one["pairs"] for one in alone[2]["told"]} == {1.0, 0.0}
    for ranks in run(several, 2, JOBS):
        for job, done, expected in zip(JOBS, ranks, alone, strict=True):
            assert len(done["told"]) == len(expected["told"])
            for found, told in zip(done["told"], expected["told"], strict=True):
                assert found == pytest.approx(told, rel=1e-5, abs=1e-5), job
            for key, weight in done["weights"].items():
                torch.testing.assert_close(
                    weight,
                    expected["weights"][key],
                    rtol=1e-5,
                    atol=3e-5,
                    msg=lambda text, job=job, key=key: f"{job}, {key}: {text}",
                )


@pytest.mark.slow
def test_two_processes_that_were_killed_end_in_the_same_bits(tmp_path: Path) -> None:
    whole = run(train, 2, {})
    parts = {"output": tmp_path / "parts"}
    with pytest.raises(AssertionError, match=r"exit codes \[-9, -9\]"):
        run(train, 2, {**parts, "kill_after": 2})
    for ours, again in zip(whole, run(train, 2, parts), strict=True):
        assert again["told"] == ours["told"][1:]
        assert all(
            torch.equal(again["weights"][key], ours["weights"][key]) for key in ours["weights"]
        )


@pytest.mark.slow
def test_no_pair_on_any_rank_is_the_error_of_one_process_on_each() -> None:
    for job in ({"world": Deaf}, {"margin": 5.0}):
        assert run(refused, 2, job) == [refused(job)] * 2
