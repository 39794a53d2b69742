"""From what was seen of a job to what is said of it."""

from __future__ import annotations

import reprlib
import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sharpen._version import __version__
from sharpen.core.sandbox.inside.channel import LENGTH
from sharpen.core.sandbox.inside.codec import CodecError, Opaque, Record, decode
from sharpen.core.sandbox.job import EncodedJob, Job, same
from sharpen.core.sandbox.limits import Limits
from sharpen.core.sandbox.process import Sandbox
from sharpen.core.sandbox.result import Failure, Result, Status

__all__ = ["FORGED", "Seen", "failed", "failure_from", "find_opaque", "finished", "outcome"]

_BROKEN = {
    "cpu": (Status.TIMEOUT, "it used its {cpu_s:g} s of processor time"),
    "wall": (Status.WALL_TIMEOUT, "it took more than {wall_limit_s:g} s"),
    "output": (Status.OUTPUT_LIMIT, "it printed more than {output_bytes:,} bytes"),
    "result": (Status.OUTPUT_LIMIT, "its outputs take more than {result_bytes:,} bytes"),
    "scratch": (Status.OUTPUT_LIMIT, "its files take more than {scratch_bytes:,} bytes"),
}
_MAX_FRAMES = 100
_MAX_TEXT = 20_000

FORGED = (CodecError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
"""What reading a result may raise that no program of ours has written."""


class Seen:
    """A job's end, read from the report of its sandbox.

    Attributes:
        status: how it ended; ``ok`` where a result came and nothing else was the matter.
        frame: the result that the program's process wrote, which may be forged.
        clean: whether the sandbox may run another job.
    """

    def __init__(self, sandbox: Sandbox, report: Mapping[str, Any], limits: Limits) -> None:
        self.report = report
        self.error: Failure | None = None
        self.frame: dict[str, Any] = {}
        self.status = self._status(sandbox, limits)
        self.clean = bool(report["clean"]) and not report["leftover"]
        self.clean = self.clean and self.status is not Status.VIOLATION

    def _status(self, sandbox: Sandbox, limits: Limits) -> Status:
        report = self.report
        exit_code = report["exit_code"]
        if sandbox.group is not None and sandbox.lacked_memory():
            return self._say(Status.MEMORY, "MemoryError", "the kernel ended it for want of memory")
        if report["broken"] is not None:
            status, text = _BROKEN[report["broken"]]
            values = {name: getattr(limits, name) for name in ("cpu_s", "wall_limit_s")}
            values |= {name: getattr(limits, name) for name in ("output_bytes", "result_bytes")}
            return self._say(
                status, "Limit", text.format(**values, scratch_bytes=limits.scratch_bytes)
            )
        if exit_code == -signal.SIGXCPU or (
            exit_code == -signal.SIGKILL and report["cpu_s"] > limits.cpu_s
        ):
            text = _BROKEN["cpu"][1].format(cpu_s=limits.cpu_s)
            return self._say(Status.TIMEOUT, "Limit", text)
        if exit_code == -signal.SIGXFSZ:
            text = f"it wrote a file of more than {limits.file_bytes:,} bytes"
            return self._say(Status.OUTPUT_LIMIT, "Limit", text)
        if exit_code < 0:
            name = signal.Signals(-exit_code).name if -exit_code in _SIGNALS else str(-exit_code)
            return self._say(Status.KILLED, "Signal", f"the signal {name} ended it")
        data = report["frame"]
        if not data:
            text = f"exited early: no result, exit code {exit_code}"
            return self._say(Status.ERROR, "SystemExit", text)
        try:
            frame = _one_frame(data)
            status = Status(frame["status"])
            self.error = failure_from(frame["error"]) if frame.get("error") is not None else None
        except FORGED as error:
            return self._say(Status.VIOLATION, "Violation", f"its result is forged: {error}")
        self.frame = frame
        if status not in (Status.OK, Status.ERROR, Status.MEMORY, Status.OUTPUT_LIMIT):
            return self._say(Status.VIOLATION, "Violation", "its result is forged")
        if status is Status.OK and (exit_code != 0 or self.error is not None):
            return self._say(Status.ERROR, "SystemExit", f"exit code {exit_code} after its result")
        return status

    def _say(self, status: Status, kind: str, message: str) -> Status:
        self.error = Failure(type=kind, message=message)
        return status


_SIGNALS = {int(one) for one in signal.Signals}


def _one_frame(data: bytes) -> dict[str, Any]:
    if len(data) < LENGTH.size or LENGTH.unpack_from(data)[0] != len(data) - LENGTH.size:
        raise CodecError("not one message")
    frame = decode(data[LENGTH.size :])
    if type(frame) is not dict:
        raise CodecError("no result")
    return frame


def failure_from(value: Any) -> Failure:
    """An exception as a job's process describes it.

    Raises:
        Exception: it is no description; one of :data:`FORGED`.
    """
    if type(value) is not dict:
        raise ValueError("no description of an error")
    frames = [(int(line), str(name)) for line, name in value.get("frames", [])][:_MAX_FRAMES]
    return Failure(
        type=_text(value["type"]),
        message=_text(value["message"]),
        traceback=_text(value.get("traceback", "")),
        frames=tuple(frames),
    )


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("no text")
    return value[:_MAX_TEXT]


def shown(value: Any) -> str:
    """A value in a few words, however large it is."""
    try:
        return reprlib.repr(value)
    except Exception:  # a number of too many digits
        return f"<{type(value).__name__}>"


def outcome(sandbox: Sandbox, job: Job, encoded: EncodedJob, limits: Limits) -> tuple[Result, bool]:
    """Run a job that has inputs; also whether the sandbox may run another.

    Raises:
        SandboxFailed: the sandbox ended.
    """
    sandbox.send(
        {
            "source": job.source,
            "entry": job.entry,
            "names": encoded.names,
            "inputs": encoded.inputs,
            "catch": job.catch,
            "mutated": job.mutated,
            "clock": job.clock or "",
            "digests": job.digests,
            "call_limit": _inside(job),
            "sampled": job.sample_memory,
        },
        limits,
    )
    seen = Seen(sandbox, sandbox.report(limits), limits)
    status, error = seen.status, seen.error
    outputs: tuple[Any, ...] = ()
    mutated: tuple[Any, ...] = ()
    times: tuple[float, ...] = ()
    marks, is_late = "", False
    try:
        outputs = tuple(seen.frame.get("outputs", ()))
        after = seen.frame.get("mutated", ())
        mutated = tuple((list(args), dict(kwargs)) for args, kwargs in after)
        if max(len(outputs), len(mutated)) > len(job.inputs):
            raise ValueError("more outputs than calls")
        times, marks = _times(seen.frame, job, len(outputs))
        is_late = job.call_limit is not None and seen.frame.get("late") is True
    except FORGED as problem:
        status = Status.VIOLATION
        error = Failure(type="Violation", message=f"its result is forged: {problem}")
    if status is Status.OK and is_late:
        status = Status.TIMEOUT
        text = f"call {len(outputs)} took more than its limit by the clock {job.clock!r}"
        error = Failure(type="Limit", message=text)
    if status is Status.OK and job.entry is not None and len(outputs) != len(job.inputs):
        status = Status.VIOLATION
        error = Failure(type="Violation", message="its result is forged: not an output each call")
    if status is Status.OK and job.expected is not None:
        for index, (got, wanted) in enumerate(zip(outputs, job.expected, strict=True)):
            if not same(got, wanted):
                status = Status.WRONG
                text = f"call {index} gave {shown(got)}, expected {shown(wanted)}"
                error = Failure(type="Wrong", message=text)
                break
    clean = seen.clean and status is not Status.VIOLATION
    result = finished(sandbox, seen.report, status, error, {"calls": len(outputs)})
    found = replace(result, outputs=outputs, mutated=mutated, times=times, suspicious=marks)
    return found, clean


def _inside(job: Job) -> float | None:
    """A call's limit in nanoseconds or instructions."""
    if job.call_limit is None or job.clock == "opcodes":
        return job.call_limit
    return job.call_limit * 1e9


def _times(frame: Mapping[str, Any], job: Job, calls: int) -> tuple[tuple[float, ...], str]:
    """What calls took, and what was done to the clock.

    Raises:
        ValueError: that is forged.
    """
    if job.clock is None:
        return (), ""
    given, marks = frame.get("times", []), frame.get("marks", [])
    if type(given) is not list or not all(type(t) is int and 0 <= t < 1 << 62 for t in given):
        raise ValueError("its times are none")
    if type(marks) is not list or not all(type(mark) is str for mark in marks):
        raise ValueError("its marks are none")
    unit = 1.0 if job.clock == "opcodes" else 1e-9
    return tuple(t * unit for t in given[:calls]), "; ".join(marks)[:_MAX_TEXT]


def finished(
    sandbox: Sandbox,
    report: Mapping[str, Any],
    status: Status,
    error: Failure | None,
    counts: Mapping[str, int],
) -> Result:
    """A result with what was seen of a job."""
    return Result(
        status=status,
        error=error,
        stdout=report["stdout"].decode(errors="replace"),
        stderr=report["stderr"].decode(errors="replace"),
        cpu_s=report["cpu_s"],
        wall_s=report["wall_s"],
        peak_mib=sandbox.peak_mib(report["peak_kib"]),
        memory=tuple((at, sandbox.beyond_idle_mib(kib)) for at, kib in report["samples"]),
        counts={**counts, "leftover": report["leftover"]},
        tier=sandbox.plan.tier,
        versions={**sandbox.state["versions"], "sharpen": __version__},
    )


def failed(error: Exception, tier: int) -> Result:
    """The result of a job whose sandbox failed."""
    failure = Failure(type=type(error).__name__, message=str(error))
    return Result(status=Status.INFRA, error=failure, tier=tier)


def find_opaque(value: Any) -> Opaque | None:
    """The first part of an output that could not leave the sandbox; None where all of it could."""
    if isinstance(value, Opaque):
        return value
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = list(value)
    elif isinstance(value, Record):
        inner = list(value.fields.values())
    return next((found for item in inner if (found := find_opaque(item)) is not None), None)
