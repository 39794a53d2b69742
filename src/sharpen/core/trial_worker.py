"""A worker process of :class:`sharpen.core.executor.Local`: takes trials, sends back feedback.

The parent sends jobs; the worker answers ``("ready", heavy)`` once, the slow modules that the
problem has loaded, then for each job any number of ``("report", point)``, each of which the parent
answers, and one ``("result", feedback)``. It ends when the pipe closes, and when its parent dies.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import psutil

from sharpen.core.feedback import TracePoint
from sharpen.core.fork_server import die_with_parent
from sharpen.core.problem import Answer, Problem, TrialContext, evaluate

__all__ = ["Job", "run_forked", "serve_trials", "work"]

_HEAVY = ("torch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One trial to carry out."""

    number: int
    """The trial's number."""

    config: dict[str, Any]
    """Its configuration."""

    seed: int
    """Its seed."""

    attempt: int = 1
    """How many times it was begun."""

    fidelity: float | None = None
    """How closely to measure; None is the truth."""

    context: Mapping[str, Any] = field(default_factory=dict)
    """The conditions to measure under."""

    def begin(self, on_report: Callable[[TracePoint], Answer]) -> TrialContext:
        """What the evaluation may know of it."""
        return TrialContext(
            number=self.number,
            seed=self.seed,
            attempt=self.attempt,
            fidelity=self.fidelity,
            context=self.context,
            on_report=on_report,
        )


def serve_trials(connection: Connection[Any, Any], problem: Problem) -> None:
    """Evaluate jobs from ``connection`` until it closes."""
    connection.send(("ready", tuple(name for name in _HEAVY if name in sys.modules)))

    def report(point: TracePoint) -> Answer:
        connection.send(("report", point))
        answer: Answer = connection.recv()
        return answer

    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(("result", evaluate(problem, job.config, job.begin(report))))


def _settle_in(memory_bytes: int | None) -> None:
    """Leave standard output to results, interrupts to the parent, and keep the memory limit."""
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if memory_bytes is not None:
        most = memory_bytes + psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run_forked(
    connection: Connection[Any, Any], problem: Problem, memory_bytes: int | None, parent: int
) -> None:
    """Body of a worker that is a forked copy of the parent."""
    os.setpgid(0, 0)
    die_with_parent(parent)
    _settle_in(memory_bytes)
    serve_trials(connection, problem)


def work(memory_bytes: int | None, descriptors: Sequence[int]) -> int:
    """What a worker that a server has forked does; the descriptor is its pipe."""
    connection: Connection[Any, Any] = Connection(descriptors[0])
    _settle_in(memory_bytes)
    payload = connection.recv_bytes()
    try:
        problem = pickle.loads(payload)
    except Exception:
        connection.send(("broken", traceback.format_exc()))
        return 1
    serve_trials(connection, problem)
    return 0
