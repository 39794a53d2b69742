"""Faults put into a rank are found by its check, and end the job under its name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from distributed import run
from sharpen.core.errors import ExecutionError
from sharpen.models.tokenizer import load_tokenizer
from sharpen.train import FTConfig, MetricsConfig, TrainConfig
from sharpen.train.ft.driver import RankJob, drive
from sharpen.train.ft.selfcheck import (
    Needs,
    SelfCheckError,
    check_connections,
    check_process,
    check_product,
)
from small_models import save_small_dataset, save_small_model


def test_a_sound_process_passes(tmp_path: Path) -> None:
    check_process(tmp_path, Needs(disk_bytes=1, memory_bytes=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_product_is_found(dtype: torch.dtype) -> None:
    def flipped(a: Tensor, b: Tensor) -> Tensor:
        out = a @ b
        out[7, 9] += 400.0  # one number of 147,456
        return out

    with pytest.raises(SelfCheckError, match="computes wrongly"):
        check_product(dtype, flipped)

    calls = []

    def unsteady(a: Tensor, b: Tensor) -> Tensor:
        calls.append(1)
        out = a @ b
        out[0, 0] += 1e-2 * len(calls)  # within the tolerance, but never the same
        return out

    with pytest.raises(SelfCheckError, match="gave two results"):
        check_product(dtype, unsteady)


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (Needs(disk_bytes=1 << 60), r"a checkpoint takes .* free\. Free space"),
        (Needs(memory_bytes=1 << 60), r"memory is available\. End other"),
    ],
)
def test_too_little_disk_or_memory_is_told(tmp_path: Path, needs: Needs, message: str) -> None:
    with pytest.raises(SelfCheckError, match=message):
        check_process(tmp_path, needs)


def damaged_connections() -> dict[str, str]:
    """Sound; then rank 1 sends damaged bytes; then its sum is wrong."""
    found = {}
    check_connections()
    exchange, total = dist.all_to_all_single, dist.all_reduce

    def damaged(out: Tensor, sent: Tensor) -> None:
        sent = sent.clone()
        if dist.get_rank() == 1:
            sent[3] += 1  # to rank 0
        exchange(out, sent)

    def wrong(x: Tensor) -> None:
        total(x)
        if dist.get_rank() == 1:
            x[5] -= 1

    for name, replaced in (("all_to_all_single", damaged), ("all_reduce", wrong)):
        before = getattr(dist, name)
        setattr(dist, name, replaced)
        try:
            check_connections()
            found[name] = ""
        except SelfCheckError as error:
            found[name] = str(error)
        setattr(dist, name, before)
        # A rank that found nothing waits in the sum for the one that did.
        if name == "all_to_all_single" and dist.get_rank() == 0:
            dist.all_reduce(torch.zeros(4096))
    return found


def test_damaged_messages_and_sums_are_found() -> None:
    first, second = run(damaged_connections, 2)
    assert "what rank 1 sent to rank 0 arrived damaged" in first["all_to_all_single"]
    assert first["all_reduce"] == ""
    assert "wrong on rank 1" in second["all_reduce"]


@pytest.mark.slow
def test_a_rank_that_fails_its_check_ends_the_job(tmp_path: Path) -> None:
    model = save_small_model(tmp_path / "model")
    save_small_dataset(tmp_path / "data")

    def attempt(when: str, spoil: bool) -> list[dict[str, Any]]:
        job = RankJob(
            target="sharpen.train.run:train_tokens",
            given={
                "model": str(model),
                "data": str(tmp_path / "data"),
                "tokenizer_fingerprint": load_tokenizer(model).fingerprint,
            },
            config=TrainConfig(
                steps=2,
                global_batch=2,
                nproc=1 if when == "start" else 2,
                ft=FTConfig(selfcheck=when, init_timeout_s=60),  # type: ignore[arg-type]
                metrics=MetricsConfig(timeline=(2, 2)),
            ),
            trace=tmp_path / f"{when}.json",
            work=tmp_path / when,
            seed=1,
            needs=Needs(disk_bytes=1 << 60 if spoil else 1),
        )
        events: list[dict[str, Any]] = []
        (tmp_path / when).mkdir(exist_ok=True)
        drive(job, events.append)
        return events

    with pytest.raises(ExecutionError, match=r"rank 0 failed its self-check: a checkpoint"):
        attempt("start", True)
    events = attempt("on_failure", True)  # no failure, so nothing is checked
    assert [event["event"] for event in events] == ["start", "step", "step"]
    trace = json.loads((tmp_path / "on_failure.json").read_text())["traceEvents"]
    steps = [e for e in trace if e["name"] == "step"]
    assert [(e["pid"], e["args"]["step"]) for e in steps] == [(0, 2), (1, 2)]
    # One clock: the second step of both ranks begins when both have summed the first's gradients.
    assert steps[0]["ts"] < steps[1]["ts"] + steps[1]["dur"]
    assert steps[1]["ts"] < steps[0]["ts"] + steps[0]["dur"]
