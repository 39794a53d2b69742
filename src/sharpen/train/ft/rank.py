"""One rank of a training, in a process that a driver started.

What is trained is up to the function that the job names; it gets a :class:`Rank`. Rank 0 writes
events to the driver's pipe, one JSON object a line: ``start``, ``step``, ``result``, and whatever
that function tells. A rank that fails leaves its error as ``error-<rank>.json``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sharpen.core.config import from_dict
from sharpen.core.errors import SharpenError
from sharpen.train.config import TrainConfig
from sharpen.train.ft.heartbeat import Heartbeat
from sharpen.train.ft.selfcheck import Needs, SelfCheckError, check_connections, check_process
from sharpen.train.ft.timeline import Timeline, spans_file
from sharpen.train.prepare import training_device
from sharpen.train.trainer import StepReport, Trainer

__all__ = ["Rank", "work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """What the function that trains is given beside its job and config.

    It is called as ``function(given, config, rank)`` and returns what the driver is to return.
    """

    number: int
    """Which rank this is."""

    work: Path
    """Folder of the checkpoints."""

    seed: int
    """Of the training."""

    callbacks: tuple[Any, ...]
    """For every :class:`~sharpen.train.trainer.Trainer`: they tell that the rank is alive."""

    timeline: Timeline
    """For the trainer."""

    tell: Callable[..., None] | None
    """``tell(kind, **fields)`` tells the driver more; on rank 0 alone."""


class _Events:
    """Tells the driver of each step."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def send(self, kind: str, **fields: Any) -> None:
        """One line."""
        data = (json.dumps({"event": kind, **fields}) + "\n").encode()
        while data:
            data = data[os.write(self._handle, data) :]

    def on_start(self, trainer: Trainer) -> None:
        """Training starts, perhaps from a checkpoint."""
        self.send("start", step=trainer.step)

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """A step is done."""
        self.send("step", report=dataclasses.asdict(report))


def work(job: dict[str, Any], descriptors: Sequence[int]) -> int:
    """Train as the job says; the exit code is that of the error."""
    rank, folder = job["rank"], Path(job["folder"])
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(job["world_size"]), LOCAL_WORLD_SIZE=str(job["world_size"]))
    logging.basicConfig(level=job["log_level"], format="%(levelname)s %(name)s: %(message)s")
    heartbeat = Heartbeat(folder, rank, job["heartbeat_s"])
    try:
        _train(job, rank, heartbeat, _Events(descriptors[0]) if rank == 0 else None)
    except BaseException as error:
        known = isinstance(error, SharpenError)
        left = {
            "class": type(error).__name__ if known else "ExecutionError",
            "message": str(error) if known else traceback.format_exc(),
            "kind": type(error).__name__,
            "user": known and getattr(error, "exit_code", 1) == 2,
            "check": isinstance(error, SelfCheckError),
        }
        target = folder / f"error-{rank}.json"
        target.with_suffix(".new").write_text(json.dumps(left))
        target.with_suffix(".new").replace(target)
        # Not an orderly exit: other ranks may wait in a collective operation for ever.
        os._exit(getattr(error, "exit_code", 1) if known else 1)
    return 0


def _train(job: dict[str, Any], rank: int, heartbeat: Heartbeat, events: _Events | None) -> None:
    config = from_dict(TrainConfig, job["config"])
    device = training_device(config)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if job["selfcheck"]:
        check_process(Path(job["work"]), Needs(**job["needs"]))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{job['folder']}/store",
        rank=rank,
        world_size=job["world_size"],
        timeout=timedelta(seconds=config.ft.hang_timeout_s),
    )
    if job["selfcheck"]:
        check_connections()
    callbacks: tuple[Any, ...] = (heartbeat,) if events is None else (heartbeat, events)
    module, _, name = job["target"].partition(":")
    train: Callable[[Mapping[str, Any], TrainConfig, Rank], Mapping[str, Any]]
    train = getattr(importlib.import_module(module), name)
    given = Rank(
        number=rank,
        work=Path(job["work"]),
        seed=job["seed"],
        callbacks=callbacks,
        timeline=Timeline(config.metrics.timeline, path=spans_file(Path(job["folder"]), rank)),
        tell=events.send if events is not None else None,
    )
    done = train(job["given"], config, given)
    if events is not None:
        events.send("result", **done)
    dist.barrier()
    dist.destroy_process_group()
