"""Trials as tasks of a Ray cluster (extra ``ray``): one study, the processors of many machines.

The study stays here: it alone touches the store. A trial is a task with no retries of Ray's own,
so that the study counts every attempt. What trials report is left at an actor, the desk, where the
study collects it each time it looks; an answer reaches a trial with its next report. Machines need
the same Python, Sharpen and the objective's packages; files it reads must be there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sharpen.core.errors import ConfigError, DependencyNotInstalled, ExecutionError
from sharpen.core.executor import OnReport
from sharpen.core.feedback import Feedback, TracePoint
from sharpen.core.problem import Answer, Problem, evaluate
from sharpen.core.trial_worker import Job

__all__ = ["Ray"]

_POLL_S = 0.2  # between two looks at the desk


class Ray:
    """Runs trials on a Ray cluster.

    Args:
        workers: trials at once; None is as many as the cluster has room for when the study begins.
        address: of the cluster, ``"auto"`` for that of this machine; None starts one here, or takes
            the one that this process is connected to.
        resources: of each trial: ``num_cpus``, ``num_gpus``, ``memory`` (bytes) or Ray's own names.
        timeout_s: seconds a trial may run; one that takes longer is killed.

    Raises:
        DependencyNotInstalled: Ray is missing.
    """

    blocking = False

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str | None = None,
        resources: Mapping[str, float] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}.")
        if timeout_s is not None and not timeout_s > 0:
            raise ConfigError(f"timeout_s must be positive, got {timeout_s}.")
        try:
            import ray
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("the Ray executor", "ray") from None
        self._ray: Any = ray
        self._given = workers
        self.slots = workers or 1
        self._address = address
        self._resources = {"num_cpus": 1, **(resources or {})}
        self.timeout_s = timeout_s
        self._is_ours = False
        self._problem: Any = None
        self._desk: Any = None
        self._jobs: dict[Any, Job] = {}
        self._killed_for: dict[Any, Feedback] = {}

    def open(self, problem: Problem) -> None:
        """See :meth:`~sharpen.core.executor.Executor.open`.

        Raises:
            ExecutionError: there is no such cluster, or it has no room for a single trial.
        """
        if not self._ray.is_initialized():
            try:
                self._ray.init(address=self._address, log_to_driver=False, include_dashboard=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                where = self._address or "this machine"
                raise ExecutionError(
                    f"there is no Ray cluster at {where}: {error}. Start one with: ray start --head"
                ) from None
            self._is_ours = True
        room = self._room()
        if room < 1:
            raise ExecutionError(
                f"the Ray cluster has no room for a trial of {self._resources}: it has "
                f"{self._ray.cluster_resources()}."
            )
        self.slots = self._given or room
        self._problem = self._ray.put((sys.path, self._ray.cloudpickle.dumps(problem)))
        self._desk = self._ray.remote(num_cpus=0)(_Desk).remote()

    def _room(self) -> int:
        """Trials that fit the whole cluster at once."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        has = self._ray.cluster_resources()
        fits = [
            has.get(names.get(name, name), 0.0) / amount
            for name, amount in self._resources.items()
            if amount > 0
        ]
        return int(min(fits, default=1))

    def submit(self, job: Job) -> None:
        """See :meth:`~sharpen.core.executor.Executor.submit`."""
        options = dict(self._resources)
        usual = {
            key: options.pop(key) for key in ("num_cpus", "num_gpus", "memory") if key in options
        }
        task = self._ray.remote(max_retries=0, max_calls=0, resources=options or None, **usual)(
            _carry_out
        )
        self._jobs[task.remote(self._problem, job, self._desk)] = job

    def poll(self, timeout_s: float, on_report: OnReport) -> list[tuple[int, Feedback]]:
        """See :meth:`~sharpen.core.executor.Executor.poll`."""
        until = time.monotonic() + timeout_s
        while self._jobs:
            left = max(until - time.monotonic(), 0.0)
            ready, _ = self._ray.wait(list(self._jobs), num_returns=1, timeout=min(left, _POLL_S))
            self._hear(on_report)
            if ready:
                return [(self._jobs[ref].number, self._outcome(ref)) for ref in ready]
            if time.monotonic() >= until:
                break
        return []

    def _hear(self, on_report: OnReport) -> None:
        """Collect what was reported, and leave answers; kill what takes too long."""
        running = {job.number: ref for ref, job in self._jobs.items()}
        try:
            points, begun = self._ray.get(self._desk.collect.remote())
        except self._ray.exceptions.RayError as error:
            raise ExecutionError(f"the Ray cluster is gone: {error}") from None
        stops = [
            number
            for number, point in points
            if number in running and on_report(number, point) == "stop"
        ]
        if stops:
            self._desk.stop.remote(stops)
        if self.timeout_s is None:
            return
        for number, seconds in begun.items():
            ref = running.get(number)
            if ref is not None and ref not in self._killed_for and seconds > self.timeout_s:
                self._killed_for[ref] = Feedback(
                    status="timeout",
                    error=f"trial {number} took more than {self.timeout_s:g} seconds.",
                    cost={"seconds": seconds},
                )
                self._ray.cancel(ref, force=True)

    def _outcome(self, ref: Any) -> Feedback:
        """The result of a task that ended."""
        job = self._jobs.pop(ref)
        self._desk.forget.remote(job.number)
        killed = self._killed_for.pop(ref, None)
        errors = self._ray.exceptions
        try:
            feedback: Feedback = self._ray.get(ref)
            return feedback
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
            if killed is not None:
                return killed
            text = f"the worker died during trial {job.number}: {str(error).splitlines()[0]}"
            return Feedback(status="failed", error=text, info={"killed": True})
        except errors.RayError as error:
            if killed is not None:
                return killed
            return Feedback(status="failed", error=f"trial {job.number} failed in Ray: {error}")

    def close(self) -> None:
        """See :meth:`~sharpen.core.executor.Executor.close`."""
        for ref in self._jobs:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(ref, force=True)
        self._jobs.clear()
        self._killed_for.clear()
        if self._desk is not None:
            self._ray.kill(self._desk)
            self._desk = self._problem = None
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False


class _Desk:
    """Where trials leave what they report; an actor."""

    def __init__(self) -> None:
        self._points: list[tuple[int, TracePoint]] = []
        self._stopped: set[int] = set()
        self._begun: dict[int, float] = {}

    def begin(self, number: int) -> None:
        """A trial begins."""
        self._stopped.discard(number)
        self._begun[number] = time.monotonic()

    def report(self, number: int, point: TracePoint) -> Answer:
        """Leave a point; tells whether the trial is to stop."""
        self._points.append((number, point))
        return "stop" if number in self._stopped else "continue"

    def collect(self) -> tuple[list[tuple[int, TracePoint]], dict[int, float]]:
        """Points since the last time, and for how many seconds each trial has run."""
        points, self._points = self._points, []
        now = time.monotonic()
        return points, {number: now - begun for number, begun in self._begun.items()}

    def stop(self, numbers: list[int]) -> None:
        """Have trials stop at their next report."""
        self._stopped.update(numbers)

    def forget(self, number: int) -> None:
        """A trial ended."""
        self._begun.pop(number, None)
        self._stopped.discard(number)


def _carry_out(sent: tuple[list[str], bytes], job: Job, desk: Any) -> Feedback:
    """A task: one trial; modules are looked for where the study looks, too."""
    import ray

    path, pickled = sent
    sys.path.extend(folder for folder in path if folder not in sys.path)
    problem: Problem = ray.cloudpickle.loads(pickled)
    ray.get(desk.begin.remote(job.number))

    def report(point: TracePoint) -> Answer:
        answer: Answer = ray.get(desk.report.remote(job.number, point))
        return answer

    return evaluate(problem, job.config, job.begin(report))
