"""The driver: starts the ranks of a training, watches them, and starts them again when one fails.

Jiang et al., MegaScale, 2024 (arXiv 2402.15627), section 4, for one machine. A rank has failed when
its process ends, when it gives no sign of life for a few heartbeats (killed, SIGSTOP), or when no
step is done for ``hang_timeout_s``; then the ranks that do not wait in a collective operation are
the suspects. All ranks are stopped, and started again from the newest whole checkpoint.

An error of the user's, or one that comes back at the same step, is not tried again. Before ranks
train again they check themselves (:mod:`sharpen.train.ft.selfcheck`); one that fails ends the job.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sharpen.core.errors as errors
from sharpen.core.config import to_dict
from sharpen.core.errors import ExecutionError, SharpenError
from sharpen.core.fork_server import ForkedProcess, start_process
from sharpen.core.huge_pages import worker_environment
from sharpen.train.config import TrainConfig
from sharpen.train.ft.heartbeat import read_pulse, read_stack
from sharpen.train.ft.selfcheck import Needs
from sharpen.train.ft.timeline import Span, read_spans, spans_file, write_trace

__all__ = ["RankJob", "drive"]

_log = logging.getLogger(__name__)
_COLLECTIVES = "torch/distributed/"
_MISSED = 3  # heartbeats
_IDLE_RESTARTS = 2  # without a step done in between


@dataclass(frozen=True, slots=True, kw_only=True)
class RankJob:
    """What every rank trains."""

    target: str
    """``MODULE:FUNCTION`` that trains; see :class:`~sharpen.train.ft.rank.Rank`."""

    given: Mapping[str, Any]
    """What that function is given, as JSON holds it."""

    config: TrainConfig
    """What to do."""

    work: Path
    """Folder of the checkpoints."""

    seed: int
    """Of the training."""

    trace: Path | None = None
    """Where the timeline of all ranks goes."""

    needs: Needs = field(default_factory=Needs)
    """What the self-check of a rank asks of the machine."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt ended."""

    message: str
    kind: str
    """What must be equal for two failures to be the same."""
    error: SharpenError | None = None
    """What the rank raised, if it could say."""
    final: bool = False
    """Starting again cannot help."""


class _Attempt:
    """The processes of one start of all ranks."""

    def __init__(self, job: RankJob, folder: Path, number: int) -> None:
        self.job, self.folder = job, folder
        when = job.config.ft.selfcheck
        self.world_size = job.config.world_size
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        described = {
            "target": job.target,
            "given": dict(job.given),
            "config": to_dict(job.config),
            "work": str(job.work),
            "seed": job.seed,
            "folder": str(folder),
            "world_size": self.world_size,
            "heartbeat_s": job.config.ft.heartbeat_s,
            "selfcheck": when == "start" or (when == "on_failure" and number > 0),
            "needs": to_dict(job.needs),
            "log_level": logging.getLogger("sharpen").getEffectiveLevel(),
        }
        environment = worker_environment()
        threads = max(1, len(os.sched_getaffinity(0)) // self.world_size)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        self.processes: list[ForkedProcess] = []
        try:
            for rank in range(self.world_size):
                process = start_process(
                    "sharpen.train.ft.rank:work",
                    {**described, "rank": rank},
                    descriptors=(writer,) if rank == 0 else (),
                    preload=("sharpen.train.ft.rank", job.target.partition(":")[0]),
                    environment=environment,
                )
                self.processes.append(process)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(writer)
        self._text = b""

    def events(self, wait_s: float) -> list[dict[str, Any]]:
        """What rank 0 has said since, waiting a moment for it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            if not selector.select(wait_s):
                return []
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._reader, 1 << 16)
            if not data:
                time.sleep(wait_s)  # rank 0 has ended
            self._text += data
        *lines, self._text = self._text.split(b"\n")
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        """End all ranks at once; checkpoints are whole or absent, so nothing is lost."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
        os.close(self._reader)

    def ended(self) -> bool:
        """Whether all ranks have ended well."""
        return all(process.poll() == 0 for process in self.processes)

    def failure(self, idle_s: float) -> _Failure | None:
        """What is wrong, if anything."""
        dead = [r for r, p in enumerate(self.processes) if p.poll() not in (None, 0)]
        if dead:
            return self._death(dead)
        ft = self.job.config.ft
        for rank, process in enumerate(self.processes):
            pulse = read_pulse(self.folder, rank)
            silent_s = _MISSED * ft.heartbeat_s + 1
            if process.poll() is None and pulse is not None and pulse.age_s > silent_s:
                return _Failure(
                    f"rank {rank} has given no sign of life for {pulse.age_s:.0f} s: it is "
                    "stopped, or its machine is overloaded.",
                    f"silent {rank}",
                )
        if idle_s > ft.hang_timeout_s:
            return self._hang(idle_s)
        return None

    def _death(self, dead: list[int]) -> _Failure:
        time.sleep(0.2)  # for the first cause: others fail because it is gone
        told = sorted(self.folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
        killed = [r for r in dead if (self.processes[r].poll() or 0) < 0]
        if killed:
            rank = killed[0]
            name = signal.Signals(-self.processes[rank].wait()).name
            return _Failure(f"rank {rank} was ended by {name}.", name)
        if told:
            left = json.loads(told[0].read_text())
            kind = getattr(errors, left["class"], ExecutionError)
            rank_name = f"rank {told[0].stem[6:]}"
            if left["check"]:
                text = f"{rank_name} failed its self-check: {left['message']}"
                return _Failure(text, "check", ExecutionError(text), final=True)
            return _Failure(
                f"{rank_name} failed: {left['message'].strip().splitlines()[-1]}",
                f"{left['kind']}: {left['message']}",
                kind(left["message"]),
                final=left["user"] or left["class"] == "TrainingError",
            )
        code = self.processes[dead[0]].wait()
        return _Failure(f"rank {dead[0]} ended with exit code {code}.", f"code {code}")

    def _hang(self, idle_s: float) -> _Failure:
        suspects = []
        for rank, process in enumerate(self.processes):
            stack = read_stack(self.folder, rank, process.pid) if process.poll() is None else ""
            if _COLLECTIVES not in "\n".join(stack.splitlines()[:4]):
                suspects.append(rank)
        names = ", ".join(map(str, suspects)) or "none: all wait in a collective operation"
        return _Failure(
            f"no step was done for {idle_s:.0f} s (hang_timeout_s); suspect ranks: {names}.",
            f"hang {suspects}",
        )


def drive(job: RankJob, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train on several processes of this machine, whatever happens to them.

    Args:
        job: what to train.
        on_event: told of ``start`` (with ``step``), ``step`` (with ``report``), ``failure`` (with
            ``message``), and of what rank 0 tells beside.

    Returns:
        What the function that trains has returned on rank 0.

    Raises:
        SharpenError: what a rank raised, if starting again cannot help.
        ExecutionError: too many restarts.
    """
    spans: dict[int, list[Span]] = {rank: [] for rank in range(job.config.world_size)}
    try:
        return _drive(job, on_event, spans)
    finally:
        if job.trace is not None:
            write_trace(job.trace, spans)


def _drive(
    job: RankJob, on_event: Callable[[dict[str, Any]], None], spans: dict[int, list[Span]]
) -> dict[str, Any]:
    """As :func:`drive`, adding what the ranks recorded to ``spans``."""
    ft = job.config.ft
    reached, idle, last = -1, 0, None
    for attempt in range(ft.max_restarts + 1):
        with tempfile.TemporaryDirectory(prefix="sharpen-ranks-") as name:
            result, failure, step = _attempt(job, Path(name), attempt, on_event)
            for rank, found in spans.items():
                found += read_spans(spans_file(Path(name), rank))
        if failure is None:
            return result
        on_event({"event": "failure", "message": failure.message})
        _log.warning("%s", failure.message)
        again = last is not None and last.kind == failure.kind and step <= reached
        idle = idle + 1 if step <= reached else 0
        reached, last = max(reached, step), failure
        if failure.final or (again and failure.error is not None):
            raise failure.error or ExecutionError(failure.message)
        if idle >= _IDLE_RESTARTS:
            raise ExecutionError(
                f"{failure.message} This came back {idle + 1} times without a step in between. "
                "Run the same command again to resume from the last checkpoint."
            )
        if attempt < ft.max_restarts:
            _log.warning("starting all ranks again (%d of %d)", attempt + 1, ft.max_restarts)
    assert last is not None
    raise ExecutionError(
        f"{last.message} Gave up after {ft.max_restarts} restarts (train.ft.max_restarts). Run the "
        "same command again to resume from the last checkpoint."
    )


def _attempt(
    job: RankJob, folder: Path, number: int, on_event: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], _Failure | None, int]:
    """One start of all ranks: its result, or its failure, and the last step done."""
    attempt = _Attempt(job, folder, number)
    step, result = -1, None
    moved, limit = time.monotonic(), job.config.ft.init_timeout_s
    started = False
    try:
        while True:
            for event in attempt.events(0.1):
                moved = time.monotonic()
                if event["event"] == "result":
                    result = {k: v for k, v in event.items() if k != "event"}
                    continue
                if event["event"] in ("start", "step"):
                    started = True
                    step = event["step"] if event["event"] == "start" else event["report"]["step"]
                on_event(event)
            if result is not None and attempt.ended():
                return result, None, step
            idle_s = time.monotonic() - moved
            if not started and idle_s > limit:
                message = f"the ranks were not ready after {idle_s:.0f} s (init_timeout_s)."
                return {}, _Failure(message, "init"), step
            failure = attempt.failure(idle_s if started else 0.0)
            if failure is not None:
                return {}, failure, step
    finally:
        attempt.stop()
