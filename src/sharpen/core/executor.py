"""Where trials run: in this process, or in local worker processes.

A worker is a process group of its own, so that a trial that hangs is killed with whatever it
started, and a crash costs one trial. It never touches the store. An objective that another process
can import is sent to a process that a server forks, which has loaded what earlier workers needed
(:mod:`~sharpen.core.fork_server`); one defined in a script, a notebook or a function is run in a
forked copy of this process. When this process dies the kernel kills its workers.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Protocol

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.feedback import Feedback, TracePoint
from sharpen.core.fork_server import ForkedProcess, start_process
from sharpen.core.problem import Answer, Problem, evaluate
from sharpen.core.trial_worker import Job, run_forked

__all__ = ["Executor", "Inline", "Job", "Local"]

OnReport = Callable[[int, TracePoint], Answer]
_START_S = 120.0
_MAX_POLL_S = 0.5


class Executor(Protocol):
    """Runs trials; a study submits at most :attr:`slots` at a time."""

    slots: int
    """How many trials run at once."""

    blocking: bool
    """Whether :meth:`poll` runs the trial itself, in the calling thread."""

    def open(self, problem: Problem) -> None:
        """Get ready to evaluate ``problem``."""

    def submit(self, job: Job) -> None:
        """Begin a trial."""

    def poll(self, timeout_s: float, on_report: OnReport) -> list[tuple[int, Feedback]]:
        """Trials that ended, by number; waits at most about ``timeout_s`` for one."""

    def close(self) -> None:
        """Stop whatever runs and free everything."""


class Inline:
    """Trials run one after another in this process, without time or memory limits."""

    slots = 1
    blocking = True

    def __init__(self) -> None:
        self._problem: Problem | None = None
        self._jobs: list[Job] = []

    def open(self, problem: Problem) -> None:
        """See :meth:`Executor.open`."""
        self._problem = problem

    def submit(self, job: Job) -> None:
        """See :meth:`Executor.submit`."""
        self._jobs.append(job)

    def poll(self, timeout_s: float, on_report: OnReport) -> list[tuple[int, Feedback]]:
        """See :meth:`Executor.poll`; runs the trial to its end."""
        assert self._problem is not None, "open() comes first"
        ended = []
        while self._jobs:
            job = self._jobs.pop(0)
            context = job.begin(lambda point, number=job.number: on_report(number, point))  # type: ignore[misc]
            ended.append((job.number, evaluate(self._problem, job.config, context)))
        return ended

    def close(self) -> None:
        """See :meth:`Executor.close`."""
        self._jobs.clear()


@dataclass(slots=True)
class _Worker:
    """A worker process and what it is doing."""

    process: Any
    """A ``ForkedProcess`` or a multiprocessing ``Process``."""
    connection: Connection[Any, Any]
    born_s: float = field(default_factory=time.monotonic)
    ready: bool = False
    job: Job | None = None
    begun_s: float = 0.0

    def kill(self) -> None:
        """End the process and all it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.connection.close()
        self.exit_code()

    def exit_code(self) -> int:
        """Wait for the process to end; negative is a signal."""
        if isinstance(self.process, ForkedProcess):
            return self.process.wait()
        self.process.join()
        return int(self.process.exitcode)


class Local:
    """Trials run in worker processes on this machine.

    Args:
        workers: how many at once.
        timeout_s: seconds a trial may take; one that takes longer is killed.
        memory_bytes: address space a worker may use beside what it has at its start; a trial that
            needs more fails.
    """

    blocking = False

    def __init__(
        self, workers: int = 1, *, timeout_s: float | None = None, memory_bytes: int | None = None
    ) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}.")
        if timeout_s is not None and not timeout_s > 0:
            raise ConfigError(f"timeout_s must be positive, got {timeout_s}.")
        if memory_bytes is not None and memory_bytes < 1:
            raise ConfigError(f"memory_bytes must be positive, got {memory_bytes}.")
        self.slots = workers
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self._problem: Problem | None = None
        self._payload: bytes | None = None
        self._workers: list[_Worker] = []
        self._early_deaths = 0
        self._heavy: tuple[str, ...] = ()

    def open(self, problem: Problem) -> None:
        """See :meth:`Executor.open`."""
        self._problem = problem
        try:
            payload = pickle.dumps(problem)
        except (pickle.PicklingError, AttributeError, TypeError):
            payload = b"__main__"
        # What is defined in the main script cannot be imported by a fresh interpreter.
        self._payload = None if b"__main__" in payload else payload

    def submit(self, job: Job) -> None:
        """See :meth:`Executor.submit`."""
        free = [worker for worker in self._workers if worker.job is None]
        if not free:
            assert len(self._workers) < self.slots, "more trials than workers"
            free = [self._begin()]
            self._workers.append(free[0])
        self._give(free[0], job)

    def _give(self, worker: _Worker, job: Job) -> None:
        worker.job, worker.begun_s = job, time.monotonic()
        with suppress(BrokenPipeError):  # it died idle: the next poll sees it
            worker.connection.send(job)

    def _begin(self) -> _Worker:
        ours, theirs = Pipe()
        if self._payload is None:
            with warnings.catch_warnings():
                # Newer Pythons warn of forking beside threads; the child only runs the objective.
                warnings.simplefilter("ignore", DeprecationWarning)
                process: Any = get_context("fork").Process(
                    target=run_forked,
                    args=(theirs, self._problem, self.memory_bytes, os.getpid()),
                    daemon=True,
                )
                process.start()
        else:
            process = start_process(
                "sharpen.core.trial_worker:work",
                self.memory_bytes,
                descriptors=(theirs.fileno(),),
                output=2,
                preload=("sharpen.core.trial_worker", *self._heavy),
                own_group=True,
            )
            ours.send_bytes(self._payload)
        theirs.close()
        return _Worker(process, ours)

    def poll(self, timeout_s: float, on_report: OnReport) -> list[tuple[int, Feedback]]:
        """See :meth:`Executor.poll`.

        Raises:
            ExecutionError: workers cannot be started, or cannot load the problem.
        """
        until = time.monotonic() + timeout_s
        while True:
            ended: list[tuple[int, Feedback]] = []
            busy = [worker for worker in self._workers if worker.job is not None]
            left = max(until - time.monotonic(), 0.0)
            pipes = [worker.connection for worker in busy]
            ready = wait(pipes, timeout=min(left, self._step(busy)))
            for worker in busy:
                if worker.connection in ready:
                    self._hear(worker, ended, on_report)
                self._check_time(worker, ended)
            if ended or not busy or time.monotonic() >= until:
                return ended

    def _step(self, busy: Sequence[_Worker]) -> float:
        """Seconds until a deadline may have passed."""
        step = _MAX_POLL_S
        if self.timeout_s is not None:
            for worker in busy:
                step = min(step, max(worker.begun_s + self.timeout_s - time.monotonic(), 0.001))
        return step

    def _hear(
        self, worker: _Worker, ended: list[tuple[int, Feedback]], on_report: OnReport
    ) -> None:
        """Take one message of a worker."""
        job = worker.job
        assert job is not None
        try:
            kind, content = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._buried(worker, ended)
            return
        if kind == "ready":
            worker.ready, worker.begun_s = True, time.monotonic()
            self._heavy = content
            self._early_deaths = 0
        elif kind == "report":
            with suppress(BrokenPipeError):
                worker.connection.send(on_report(job.number, content))
        elif kind == "result":
            worker.job = None
            ended.append((job.number, content))
        else:
            raise ExecutionError(f"a worker cannot load the problem:\n{content}")

    def _buried(self, worker: _Worker, ended: list[tuple[int, Feedback]]) -> None:
        """A worker died: its trial fails, and the next trial gets a new worker."""
        job = worker.job
        assert job is not None
        worker.connection.close()
        code = worker.exit_code()
        worker.kill()
        self._workers.remove(worker)
        if not worker.ready:
            self._early_deaths += 1
            if self._early_deaths > self.slots + 1:
                raise ExecutionError(f"workers cannot be started: they ended with code {code}.")
        cause = f"ended with exit code {code}"
        if code < 0:
            cause = f"died of signal {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            cause += " (killed from outside, most likely for want of memory)"
        error = f"the worker {cause} during trial {job.number}."
        info = {"killed": True} if code == -signal.SIGKILL else {}
        ended.append((job.number, Feedback(status="failed", error=error, info=info)))

    def _check_time(self, worker: _Worker, ended: list[tuple[int, Feedback]]) -> None:
        if worker.job is None:
            return
        now = time.monotonic()
        if not worker.ready:
            if now - worker.born_s > _START_S:
                raise ExecutionError(f"a worker was not ready after {_START_S:g} seconds.")
            return
        if self.timeout_s is not None and now - worker.begun_s > self.timeout_s:
            job = worker.job
            worker.kill()
            self._workers.remove(worker)
            feedback = Feedback(
                status="timeout",
                error=f"trial {job.number} took more than {self.timeout_s:g} seconds.",
                cost={"seconds": now - worker.begun_s},
            )
            ended.append((job.number, feedback))

    def close(self) -> None:
        """See :meth:`Executor.close`."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
