"""Tests in one sandbox, the program in another, and the verdict from both.

The tests hold what they expect, so they never share a process with the program. Both sandboxes get
one end of a connection made for this job alone, so that nothing of an earlier job can write to it.
"""

from __future__ import annotations

import socket
from typing import Any

from sharpen.core.sandbox.job import EncodedJob, Job
from sharpen.core.sandbox.limits import Limits
from sharpen.core.sandbox.outcome import FORGED, Seen, failure_from, finished
from sharpen.core.sandbox.process import Sandbox
from sharpen.core.sandbox.result import Failure, Result, Status

__all__ = ["judge"]

_OF_PROGRAM = (Status.ERROR, Status.MEMORY, Status.OUTPUT_LIMIT)


def judge(
    program: Sandbox, tests: Sandbox, job: Job, encoded: EncodedJob, limits: Limits
) -> tuple[Result, bool]:
    """Run a job that has tests; also whether both sandboxes may run another.

    Args:
        program: runs programs only.
        tests: runs tests only.
        job: with ``tests``.
        encoded: its values.
        limits: of the program; the tests have as much on top of what they wait.

    Raises:
        SandboxFailed: one of them ended.
    """
    its, ours = socket.socketpair()
    # Tests wait for the program; what they need themselves comes on top.
    of_tests = limits.updated(
        wall_s=limits.wall_limit_s + 5,
        cpu_s=limits.cpu_s + 5,
        memory_bytes=max(limits.memory_bytes, 1 << 30),
    )
    with its, ours:
        given = {
            "source": job.source,
            "entry": job.entry,
            "names": encoded.names,
            "sampled": job.sample_memory,
        }
        program.send(given, limits, (its.fileno(),))
        sent = {"prompt": job.prompt, "tests": job.tests, "entry": job.entry}
        tests.send(sent, of_tests, (ours.fileno(),))
    its_report = program.report(limits)
    verdict = Seen(tests, tests.report(of_tests), of_tests)
    seen = Seen(program, its_report, limits)
    status, error = _decide(seen, verdict)
    calls = verdict.frame.get("calls", 0)
    result = finished(program, its_report, status, error, {"calls": calls})
    return result, seen.clean and verdict.clean and status is not Status.VIOLATION


def _decide(seen: Seen, verdict: Seen) -> tuple[Status, Failure | None]:
    if seen.status is not Status.OK:
        return seen.status, seen.error
    if verdict.status is not Status.OK:
        # The program is done, so the tests failed by themselves, as of a value that is too much.
        return verdict.status, _of_tests(verdict.error)
    word: Any = verdict.frame.get("verdict")
    if word == "passed":
        return Status.OK, None
    if word == "gone":
        return Status.ERROR, Failure(type="SystemExit", message="it ended while it was asked")
    # What the tests' side passes on of an error is what the program's side said of it.
    try:
        failure = failure_from(verdict.frame["failure"])
        status = Status(word)
    except FORGED as error:
        return Status.VIOLATION, Failure(type="Violation", message=f"a forged answer: {error}")
    if status in (*_OF_PROGRAM, Status.WRONG):
        return status, failure
    return Status.VIOLATION, failure


def _of_tests(error: Failure | None) -> Failure | None:
    if error is None:
        return None
    return Failure(type=error.type, message=f"in the tests: {error.message}")
