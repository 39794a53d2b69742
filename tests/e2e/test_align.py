"""``sharpen align`` as a command: what it tells, refuses, and survives."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.command import document, sharpen, start
from sharpen.align.domains import program_rows, write_program_model

GRPO = (
    *("align", "grpo", "--model", "model", "--data", "prompt.jsonl", "--reward", "programs"),
    *("--steps", "12", "--lr", "1e-3", "batch=4", "generations=4", "sampling.max_tokens=4"),
    *("checkpoint.every=1", "options.beta=0.1", "epochs_per_batch=2", "--json"),
)
BEHIND = (*GRPO, "staleness=1", "reward.workers=1")
DPO = (
    *("align", "dpo", "--model", "model", "--data", "preference.jsonl", "--steps", "40"),
    *("--lr", "1e-3", "--lora", "4", "checkpoint.every=1", "--json"),
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_program_model(tmp_path / "model")
    for kind in ("prompt", "preference"):
        text = "".join(json.dumps(row) + "\n" for row in program_rows(40, kind=kind))
        (tmp_path / f"{kind}.jsonl").write_text(text)
    return tmp_path


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize(
    ("call", "kills"),
    [
        pytest.param(GRPO, 2, marks=pytest.mark.slow),
        pytest.param(GRPO, 10, marks=pytest.mark.nightly),
        pytest.param(BEHIND, 10, marks=pytest.mark.nightly),
        pytest.param(DPO, 10, marks=pytest.mark.nightly),
    ],
)
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(
    call: tuple[str, ...], kills: int, work: Path
) -> None:
    whole = document(sharpen(*call, "--output", "whole", cwd=work))
    expected = weights(work / whole["model"])
    chance = random.Random(kills)
    killed = 0
    while killed < kills:
        with start(*call, "--output", "parts", cwd=work) as process:
            # While it loads, generates, learns or writes: steps take about 50 ms.
            try:
                process.wait(chance.uniform(1.0, 6.0))
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
    done = sharpen(*call, "--output", "parts", cwd=work)
    assert done.returncode == 0, done.stderr
    told = document(done)
    assert weights(work / told["model"]) == expected
    assert told["summary"]["align"]["loss_last"] == whole["summary"]["align"]["loss_last"]
    assert document(sharpen(*call, "--output", "parts", cwd=work))["reused"] == ["align"]


@pytest.mark.slow
def test_data_is_looked_at_and_memory_planned(work: Path) -> None:
    told = document(
        sharpen("align", "inspect", "preference.jsonl", "-m", "model", "--json", cwd=work)
    )
    assert (told["kind"], told["rows"], told["unit"]) == ("preference", 40, "tokens")
    plans = {}
    for method in ("remax", "ppo"):
        call = (
            "align",
            "plan",
            method,
            "-m",
            "model",
            "-d",
            "prompt.jsonl",
            "--reward",
            "programs",
        )
        plans[method] = document(sharpen(*call, "sampling.max_tokens=4", "--json", cwd=work))[
            "align"
        ]
    assert "critic" in plans["ppo"]["parts"]
    assert plans["ppo"]["peak_bytes"] > plans["remax"]["peak_bytes"]


@pytest.mark.slow
def test_what_is_wrong_is_said_with_its_place(work: Path) -> None:
    (work / "bad.jsonl").write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": 1}\n'
    )
    grpo = ("grpo", "-d", "prompt.jsonl", "sampling.max_tokens=4")
    calls = {
        ("dpo", "-d", "bad.jsonl"): "bad.jsonl:2: the key 'chosen' is missing",
        ("grpo", "-d", "prompt.jsonl"): "need a reward",
        (*grpo, "--reward", "programms"): "Did you mean 'programs'",
        (*grpo, "--reward", "gone.py:f"): "gone.py",
        ("dpo", "-d", "preference.jsonl", "options.bet=1"): "beta",
        ("dpo", "-d", "none.jsonl"): "none.jsonl",
        ("agent", "-w", "romms", "sampling.max_tokens=4"): "Did you mean 'rooms'",
    }
    for call, told in calls.items():
        done = sharpen("align", *call, "-m", "model", "--output", "bad", cwd=work)
        assert done.returncode == 2, (call, done.stderr)
        assert told in done.stderr.replace("\n", " "), (call, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_tells_what_is_worth_a_look_and_writes_its_report(work: Path) -> None:
    call = ["align", "grpo", "--model", "model", "--data", "prompt.jsonl", "--reward", "programs"]
    call += ["--steps", "2", "batch=2", "generations=2", "sampling.max_tokens=1", "samples=1"]
    told = document(sharpen(*call, "--output", "run", "--json", cwd=work))
    (remark,) = [one for one in told["remarks"] if one["signal"] == "truncated"]
    assert "sampling.max_tokens" in remark["text"]
    page = (work / told["report"]).read_text(encoding="utf-8")
    assert "align: worth a look" in page
    assert "align: samples" in page
    again = sharpen(*call, "--output", "run", cwd=work)  # nothing is run again
    assert "worth a look: truncated" in again.stdout
