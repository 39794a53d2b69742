"""Batches as tasks of a Ray cluster (extra ``ray``): the same recipe on many machines.

Batches go to the tasks and their parts come back through Ray's store, so that no disk need be
shared; parts are written here, as with threads, and a killed run goes on in either way. Machines
need the same Python and packages, and files that operators read must be there.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from sharpen.core.errors import DependencyNotInstalled, ExecutionError, SharpenError
from sharpen.data.batch import SourceBatch
from sharpen.data.engine import Part, Work, write_part
from sharpen.data.parts import Parts

__all__ = ["RayTasks"]


def _compute(work: Work, given: SourceBatch) -> tuple[int, Part]:
    return given.number, work.compute(given)


class RayTasks:
    """Batches on a Ray cluster: that of ``RAY_ADDRESS``, or one that is started here.

    Args:
        workers: tasks at once; None is as many as the cluster has room for.

    Raises:
        DependencyNotInstalled: Ray is missing.
        ExecutionError: there is no cluster at the address.
    """

    def __init__(self, workers: int | None = None) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("the Ray executor", "ray") from None
        self._ray: Any = ray
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            address = os.environ.get("RAY_ADDRESS")
            room: dict[str, Any] = {} if address else {"num_cpus": workers}
            try:
                self._ray.init(
                    address=address, log_to_driver=False, include_dashboard=False, **room
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ExecutionError(
                    f"there is no Ray cluster at {address}: {error}. Start one with: ray start "
                    "--head"
                ) from None
        self.slots = workers or max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        self._task = self._ray.remote(num_cpus=1, max_retries=3)(_compute)
        self._work: Work | None = None
        self._stored: Any = None

    def submit(self, work: Work, given: SourceBatch, parts: Parts) -> Future[Any]:
        """See :class:`~sharpen.data.engine.Executor`."""
        if work is not self._work:
            self._work, self._stored = work, self._ray.put(work)
        future: Future[Any] = self._task.remote(self._stored, given).future()
        return future

    def collect(self, done: Future[Any], parts: Parts) -> int:
        """See :class:`~sharpen.data.engine.Executor`."""
        try:
            number, part = done.result()
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, SharpenError):
                raise error.cause from None
            raise ExecutionError(f"a task of the cluster failed: {error}") from None
        except self._ray.exceptions.RayError as error:
            raise ExecutionError(
                f"the Ray cluster lost a task: {error}. The same command goes on from here."
            ) from None
        write_part(parts, number, part)
        return int(part[2].rows_in)

    def close(self) -> None:
        """See :class:`~sharpen.data.engine.Executor`."""
        self._stored = None
        if self._is_ours:
            with suppress(Exception):
                self._ray.shutdown()
