"""Sandboxes that wait for jobs."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from sharpen.core.errors import ConfigError
from sharpen.core.sandbox.job import EncodedJob, Job
from sharpen.core.sandbox.judge import judge
from sharpen.core.sandbox.limits import Limits
from sharpen.core.sandbox.outcome import failed, outcome
from sharpen.core.sandbox.process import Plan, Sandbox, SandboxFailed
from sharpen.core.sandbox.result import Result, Status
from sharpen.core.sandbox.tiers import choose_tier

__all__ = ["SandboxPool"]

_MOST_RUNS = 200
_WORKED = 0.05  # of the wall time: below, a program slept, and a second try would sleep too


class _Turns:
    """Lets jobs run side by side, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._waiting_alone = 0

    @contextmanager
    def beside(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_alone == 0 and self._running >= 0)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting_alone += 1
            self._changed.wait_for(lambda: self._running == 0)
            self._waiting_alone -= 1
            self._running = -1
        try:
            yield
        finally:
            with self._changed:
                self._running = 0
                self._changed.notify_all()


_Task = tuple[Job, EncodedJob, "Future[Result]"]


class _Worker:
    """A thread with a sandbox for programs and, once tests come, one for those.

    The thread that starts a sandbox outlives it: when it ends, the kernel ends the sandbox.
    """

    def __init__(self, plan: Plan, tasks: queue.SimpleQueue[_Task | None], turns: _Turns) -> None:
        self.plan = plan
        self.tasks = tasks
        self.turns = turns
        self.program: Sandbox | None = None
        self.tests: Sandbox | None = None
        self.thread = threading.Thread(target=self._work, name="sandbox", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            job, encoded, future = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._run(job, encoded))
            except BaseException as error:
                future.set_exception(error)
            del task, job, encoded, future
        for sandbox in (self.program, self.tests):
            if sandbox is not None:
                sandbox.close()

    def _run(self, job: Job, encoded: EncodedJob) -> Result:
        with self.turns.beside():
            result = self._once(job, encoded)
        if result.status is Status.WALL_TIMEOUT and result.cpu_s > _WORKED * result.wall_s:
            with self.turns.alone():  # the machine may have been too busy
                result = self._once(job, encoded)
        return result

    def _once(self, job: Job, encoded: EncodedJob) -> Result:
        limits = job.limits or self.plan.limits
        try:
            self.program = self._ready(self.program, "program")
            if job.tests is None:
                result, clean = outcome(self.program, job, encoded, limits)
            else:
                self.tests = self._ready(self.tests, "tests")
                result, clean = judge(self.program, self.tests, job, encoded, limits)
        except SandboxFailed as error:
            result, clean = failed(error, self.plan.tier), False
        if self.program is not None and not (clean and self.program.runs < _MOST_RUNS):
            self.program.close()
            self.program = None
        if self.tests is not None and not (clean and self.tests.runs < _MOST_RUNS):
            self.tests.close()
            self.tests = None
        return result

    def _ready(self, sandbox: Sandbox | None, role: str) -> Sandbox:
        return sandbox if sandbox is not None else Sandbox(self.plan, role)


def _end(workers: list[_Worker], tasks: queue.SimpleQueue[_Task | None]) -> None:
    while True:  # what nobody has begun is cancelled
        try:
            task = tasks.get_nowait()
        except queue.Empty:
            break
        if task is not None:
            task[2].cancel()
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.thread.join()
    workers.clear()


class SandboxPool:
    """Runs programs that nobody trusts, side by side.

    Each worker keeps a sandbox with an interpreter in it; a job is a fork of that, so that it costs
    milliseconds. A sandbox is made anew after 200 jobs, and after any job that left something.

    Args:
        workers: sandboxes; one for each core without a number.
        tier: ``auto`` for the best this machine has, or the one to use (see
            :func:`~sharpen.core.sandbox.detect_tiers`).
        limits: what a job may use, where it has no limits of its own.
        packages: installed packages that jobs may import, loaded once.
        allow_unsafe: take tier 0, with no protection, where it is asked for or there is no other.

    Raises:
        SandboxUnavailable: the machine has not that tier.

    Example:
        >>> from sharpen.core.sandbox import Job, SandboxPool
        >>> with SandboxPool(1) as pool:
        ...     job = Job(source="def f(x): return 2 * x", entry="f", inputs=[(21,)])
        ...     pool.run(job).outputs
        (42,)
    """

    def __init__(
        self,
        workers: int | None = None,
        tier: int | str = "auto",
        limits: Limits | None = None,
        packages: Iterable[str] = (),
        *,
        allow_unsafe: bool = False,
    ) -> None:
        chosen = choose_tier(tier, allow_unsafe=allow_unsafe)
        count = len(os.sched_getaffinity(0)) if workers is None else workers
        if count < 1:
            raise ConfigError(f"workers={workers!r} (SandboxPool): give a number from 1 on.")
        plan = Plan(
            tier=chosen,
            limits=limits or Limits(),
            packages=tuple(packages),
        )
        self._open(plan, count)

    def _open(self, plan: Plan, count: int) -> None:
        self.plan = plan
        self._owner = os.getpid()
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        turns = _Turns()
        self._workers = [_Worker(plan, self._tasks, turns) for _ in range(count)]
        self._finalizer = weakref.finalize(self, _end, self._workers, self._tasks)

    @classmethod
    def of(cls, plan: Plan, workers: int) -> Self:
        """A pool of sandboxes that a plan describes whole."""
        pool = cls.__new__(cls)
        pool._open(plan, workers)
        return pool

    @property
    def tier(self) -> int:
        """The tier of its sandboxes."""
        return self.plan.tier

    def submit(self, job: Job) -> Future[Result]:
        """Queue a job; ``asyncio.wrap_future`` makes what it gives awaitable.

        Raises:
            DataError: an argument is of a type that cannot cross.
            ConfigError: the pool is closed.
        """
        if not self._finalizer.alive:
            raise ConfigError("this SandboxPool is closed: make another one.")
        if os.getpid() != self._owner:
            raise ConfigError("this SandboxPool was made before a fork: make one in the process.")
        future: Future[Result] = Future()
        self._tasks.put((job, job.encoded(), future))
        return future

    def run(self, job: Job) -> Result:
        """Run a job and wait for it; raises as :meth:`submit`."""
        return self.submit(job).result()

    def map(self, jobs: Iterable[Job]) -> list[Result]:
        """Run jobs side by side; gives results in their order, and raises as :meth:`submit`."""
        return [future.result() for future in [self.submit(job) for job in jobs]]

    def close(self) -> None:
        """Cancel what has not begun, wait for what has, and leave no process."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a SandboxPool is not pickled: it is processes. Make one where it is used.")
