"""How soon a training goes on after a rank was killed, and what checkpoints cost while it runs.

The tiny model on two ranks of this machine, ZeRO stage 1. A rank is killed (SIGKILL) at several
steps; timed is from the kill to the first step done again, and counted are the steps done twice.
Then the same training with and without checkpoints, in turn: the difference is what they cost.
The claims: training again within 15 s, at most one checkpoint interval lost, a stall of at most
5 %. The weights after all kills equal those of a training left alone.

    python -m benchmarks.train.bench_recovery [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from benchmarks.common import arguments, draw_bars, save, summarize

import sharpen as sh
from sharpen.core.assets import asset_path
from sharpen.models import load_tokenizer
from sharpen.train import CheckpointManager, FTConfig, ParallelConfig, TrainConfig
from sharpen.train.config import CheckpointConfig
from sharpen.train.ft.driver import RankJob, drive

EVERY = 5


class Observer:
    """Times steps and kills a rank where it is asked to."""

    def __init__(self, kills: list[int]) -> None:
        self.kills = list(kills)
        self.recoveries: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self._killed_at: float | None = None
        self._last = 0.0
        self._done = 0

    def __call__(self, event: dict[str, Any]) -> None:
        """An event of the driver."""
        now = time.perf_counter()
        if event["event"] == "start":
            self._last = 0.0
            if self._killed_at is not None:
                self.recoveries.append({"lost_steps": self._done - event["step"]})
        if event["event"] != "step":
            return
        if self._killed_at is not None:
            self.recoveries[-1]["seconds"] = now - self._killed_at
            self._killed_at = None
        elif self._last:
            self.seconds.append(now - self._last)
        self._last, self._done = now, event["report"]["step"]
        if self.kills and self._done >= self.kills[0]:
            self.kills.pop(0)
            os.kill(rank_pid(len(self.kills) % 2), signal.SIGKILL)
            self._killed_at = time.perf_counter()


def rank_pid(rank: int) -> int:
    """Process of a rank that this process's driver has started."""
    for process in psutil.Process().children():
        if process.environ().get("RANK") == str(rank):
            return process.pid
    raise SystemExit(f"no process of rank {rank}")


def make_job(data: Path, work: Path, steps: int, every: int) -> RankJob:
    return RankJob(
        target="sharpen.train.run:train_tokens",
        given={
            "model": "tiny",
            "data": str(data),
            "tokenizer_fingerprint": load_tokenizer("tiny").fingerprint,
        },
        config=TrainConfig(
            steps=steps,
            global_batch=4,
            lr=1e-4,
            nproc=2,
            parallel=ParallelConfig(zero_stage=1),
            checkpoint=CheckpointConfig(every=every, every_s=1e9),
            ft=FTConfig(heartbeat_s=5, hang_timeout_s=60),
        ),
        work=work,
        seed=0,
    )


def weights(work: Path) -> dict[str, torch.Tensor]:
    manager = CheckpointManager(work)
    found = manager.load_latest()
    manager.close()
    assert found is not None
    return found.tensors("model")


def main() -> int:
    options = arguments(__doc__, "train_recovery")
    assert asset_path("tiny")
    steps, kills, rounds = (20, [7], 1) if options.quick else (60, [7, 13, 21, 34, 48], 3)
    recipe = {
        "sharpen": 1,
        "name": "recovery",
        "model": "tiny",
        "data": {
            "source": {"asset": "python-stdlib", "view": "docstrings"},
            "format": "prompt_completion",
            "max_tokens": 512,
            "limit": 1500,
            "split": {"valid": 0},
        },
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = sh.run(recipe, output=folder / "data").artifact("data")
        killed = Observer(kills)
        drive(make_job(data, folder / "killed", steps, EVERY), killed)
        samples: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(rounds):
            for kind, every in (("with", EVERY), ("without", 10**6)):
                alone = Observer([])
                work = folder / f"{kind}{len(samples[kind])}"
                drive(make_job(data, work, steps, every), alone)
                samples[kind].append(sum(alone.seconds) / len(alone.seconds))
        same = weights(folder / "killed"), weights(folder / "with0")
        if not all(torch.equal(same[0][key], same[1][key]) for key in same[0]):
            print("the killed training has other weights")
            return 1
    recoveries = killed.recoveries
    stall = statistics.median(
        a / b - 1 for a, b in zip(samples["with"], samples["without"], strict=True)
    )
    slowest = max(r["seconds"] for r in recoveries)
    lost = max(r["lost_steps"] for r in recoveries)
    print(f"training again after {[round(r['seconds'], 1) for r in recoveries]} s")
    print(f"steps done twice: {[r['lost_steps'] for r in recoveries]}, a checkpoint every {EVERY}")
    print(f"a step takes {stall:+.1%} with checkpoints every {EVERY} steps")
    results = {
        "recoveries": recoveries,
        "seconds_a_step": samples,
        "summary_s": {kind: summarize(values) for kind, values in samples.items()},
        "stall": stall,
    }
    config = {"steps": steps, "checkpoint_every": EVERY, "world": 2, "model": "tiny"}
    save(options, results, config=config, plot=lambda figure: draw(figure, recoveries))
    return 0 if slowest <= 15 and lost <= EVERY and stall <= 0.05 else 1


def draw(figure: Any, recoveries: list[dict[str, float]]) -> None:
    axes = figure.subplots()
    draw_bars(
        axes,
        y_label="s from the kill to the next step",
        groups=[f"kill {i}" for i in range(1, len(recoveries) + 1)],
        series={"recovery": [r["seconds"] for r in recoveries]},
    )
    axes.set_title("A rank killed: training again", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
