"""A driver's ranks killed, stopped and broken: training ends in the same bits, or says why not."""

import logging
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from sharpen.core.errors import ExecutionError, TrainingError
from sharpen.models.tokenizer import load_tokenizer
from sharpen.train import CheckpointManager, FTConfig, ParallelConfig, TrainConfig
from sharpen.train.config import CheckpointConfig
from sharpen.train.ft.driver import RankJob, drive
from small_models import save_small_dataset, save_small_model

ALONE: dict[str, Any] = {"nproc": 1, "parallel": ParallelConfig()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    folder = tmp_path_factory.mktemp("inputs")
    model = str(save_small_model(folder / "model"))
    save_small_dataset(folder / "data")
    return model, folder / "data", load_tokenizer(model).fingerprint


def make_job(inputs: tuple[str, Path, str], work: Path, **changes: Any) -> RankJob:
    model, data, fingerprint = inputs
    options: dict[str, Any] = {
        "steps": 8,
        "global_batch": 2,
        "lr": 1e-3,
        "parallel": ParallelConfig(zero_stage=1),
        "nproc": 2,
        "checkpoint": CheckpointConfig(every=2),
        "ft": FTConfig(heartbeat_s=2, hang_timeout_s=60),
    }
    config = TrainConfig(**{**options, **changes})
    return RankJob(
        target="sharpen.train.run:train_tokens",
        given={"model": model, "data": str(data), "tokenizer_fingerprint": fingerprint},
        config=config,
        work=work,
        seed=1,
    )


def weights(work: Path) -> dict[str, torch.Tensor]:
    manager = CheckpointManager(work)
    found = manager.load_latest()
    manager.close()
    assert found is not None
    return found.tensors("model")


def ranks() -> list[psutil.Process]:
    """What the driver has started, rank 0 first."""
    found = psutil.Process().children(recursive=True)
    return sorted((p for p in found if p.name() == "rank:work"), key=lambda p: p.pid)


class Trouble:
    """Sends a signal to a rank when a step is done, once for each entry."""

    def __init__(self, *plan: tuple[int, int, int]) -> None:
        self.plan = list(plan)
        self.starts: list[int] = []
        self.failures: list[str] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "start":
            self.starts.append(event["step"])
        elif event["event"] == "failure":
            self.failures.append(event["message"])
        elif self.plan and event["report"]["step"] == self.plan[0][0]:
            _, rank, sent = self.plan.pop(0)
            os.kill(ranks()[rank].pid, sent)


@pytest.mark.slow
def test_killed_and_stopped_ranks_end_in_the_same_bits(
    inputs: tuple[str, Path, str], tmp_path: Path
) -> None:
    quiet = Trouble()
    done = drive(make_job(inputs, tmp_path / "whole"), quiet)
    assert (done["steps"], quiet.starts, quiet.failures) == (8, [0], [])
    trouble = Trouble((3, 1, signal.SIGKILL), (5, 0, signal.SIGSTOP))
    done = drive(make_job(inputs, tmp_path / "broken"), trouble)
    assert done["steps"] == 8
    assert trouble.starts[0] == 0 and all(step % 2 == 0 for step in trouble.starts)
    assert trouble.starts[-1] >= 2 and trouble.plan == []
    killed = [m for m in trouble.failures if "rank 1 was ended by SIGKILL" in m]
    late = [m for m in trouble.failures if m not in killed]
    assert len(killed) == 1
    assert any("rank 0 has given no sign of life" in message for message in late)
    assert len(trouble.starts) == len(trouble.failures) + 1
    # On a machine with too much to do, a rank may seem to be stopped.
    assert all("has given no sign of life" in message for message in late)
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    assert ranks() == []


def test_what_starting_again_cannot_help_is_raised_at_once(
    inputs: tuple[str, Path, str], tmp_path: Path
) -> None:
    trouble = Trouble()
    changes = {**ALONE, "lr": 1e30, "max_norm": 1e30, "max_bad_steps": 2, "warmup": 0}
    job = make_job(inputs, tmp_path, **changes)
    with pytest.raises(TrainingError, match="2 steps in a row"):
        drive(job, trouble)
    assert len(trouble.starts) == 1


@pytest.mark.slow
def test_what_all_ranks_know_is_told_once(
    inputs: tuple[str, Path, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = make_job(inputs, tmp_path)
    drive(job, Trouble())
    (tmp_path / "step-00000008" / "trainer.json").unlink()
    caplog.set_level(logging.INFO, "sharpen")
    capfd.readouterr()
    drive(job, Trouble())
    told = [line for line in capfd.readouterr().err.splitlines() if "sharpen.train" in line]
    assert len(told) == 2
    assert told[0].startswith("WARNING sharpen.train.checkpoint: a damaged checkpoint is now")
    assert told[1] == "INFO sharpen.train.trainer: resumed from step 6 of 8"


@pytest.mark.slow
def test_deaths_without_progress_end_in_an_error(
    inputs: tuple[str, Path, str], tmp_path: Path
) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "start":
            starts.append(event["step"])
            os.kill(ranks()[0].pid, signal.SIGKILL)

    starts: list[int] = []
    job = make_job(inputs, tmp_path, checkpoint=CheckpointConfig(every=100), **ALONE)
    with pytest.raises(ExecutionError, match=r"rank 0 was ended by SIGKILL.*without a step"):
        drive(job, kill)
    assert 3 <= len(starts) <= 5
