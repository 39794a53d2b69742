"""Trials in threads of this process: for objectives that wait, for a server or a device.

Python runs one thread at a time, so objectives that compute in Python gain nothing; use
:class:`~sharpen.core.executor.Local`. A thread cannot be killed: there are no limits of time and
memory, and a trial that hangs keeps its thread.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.executor import OnReport
from sharpen.core.feedback import Feedback, TracePoint
from sharpen.core.problem import Answer, Problem, evaluate
from sharpen.core.trial_worker import Job

__all__ = ["Threads"]


class Threads:
    """Runs trials in threads.

    Args:
        workers: how many at once.
    """

    blocking = False

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}.")
        self.slots = workers
        self._problem: Problem | None = None
        self._told: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._running: set[int] = set()
        self._closed = threading.Event()

    def open(self, problem: Problem) -> None:
        """See :meth:`~sharpen.core.executor.Executor.open`."""
        self._problem = problem
        self._told, self._closed = queue.SimpleQueue(), threading.Event()

    def submit(self, job: Job) -> None:
        """See :meth:`~sharpen.core.executor.Executor.submit`."""
        self._running.add(job.number)
        words = (self._problem, job, self._told, self._closed)
        threading.Thread(target=_carry_out, args=words, daemon=True).start()

    def poll(self, timeout_s: float, on_report: OnReport) -> list[tuple[int, Feedback]]:
        """See :meth:`~sharpen.core.executor.Executor.poll`."""
        ended: list[tuple[int, Feedback]] = []
        until = time.monotonic() + timeout_s
        while self._running:
            left = 0.0 if ended else max(until - time.monotonic(), 0.0)
            try:
                number, content, answer = (
                    self._told.get(timeout=left) if left else (self._told.get_nowait())
                )
            except queue.Empty:
                break
            if answer is not None:
                answer.put(on_report(number, content))
                continue
            self._running.discard(number)
            ended.append((number, content))
        return ended

    def close(self) -> None:
        """Ask what runs to stop at its next report; what never reports goes on, unheard."""
        self._closed.set()
        self._running.clear()
        while not self._told.empty():
            _, _, answer = self._told.get()
            if answer is not None:
                answer.put("stop")


def _carry_out(
    problem: Problem,
    job: Job,
    told: queue.SimpleQueue[tuple[Any, ...]],
    closed: threading.Event,
) -> None:
    """Body of a thread: one trial."""

    def report(point: TracePoint) -> Answer:
        answer: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        told.put((job.number, point, answer))
        while not closed.is_set():
            try:
                return answer.get(timeout=0.5)
            except queue.Empty:
                continue
        return "stop"

    told.put((job.number, evaluate(problem, job.config, job.begin(report)), None))
