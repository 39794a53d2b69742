"""What came of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sharpen.core.sandbox.inside.program import as_exception

__all__ = ["Failure", "Result", "Status"]


class Status(StrEnum):
    """How a job ended."""

    OK = "ok"
    """It gave its outputs; where some were expected, those."""
    WRONG = "wrong"
    """Its outputs are not those expected, or a test failed."""
    ERROR = "error"
    """It raised, or left early without a result."""
    TIMEOUT = "timeout"
    """It used more processor time than it may."""
    WALL_TIMEOUT = "wall_timeout"
    """It took too long without using its processor time: it slept, or the machine was busy."""
    MEMORY = "memory"
    """It needed more memory than it may."""
    OUTPUT_LIMIT = "output_limit"
    """It printed, wrote or gave more than it may."""
    KILLED = "killed"
    """A signal ended it, as a segmentation fault does."""
    VIOLATION = "violation"
    """What it wrote as its result is none, or it could not be cleared away."""
    INFRA = "infra"
    """The sandbox failed, which says nothing of the program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An exception, or what else went wrong."""

    type: str
    """Name of the exception's type."""

    message: str
    """Its text, cut."""

    traceback: str = ""
    """Lines of the program that it passed, as Python shows them."""

    frames: tuple[tuple[int, str], ...] = ()
    """The same as numbers: line of the source, from 1, and the function."""

    def as_exception(self) -> Exception:
        """An exception of the built-in type of that name; a ``RuntimeError`` that names others."""
        return as_exception(self.type, self.message)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came of a job; never evidence of more than that the program said so.

    ``outputs`` are what the program claims they are. Compare them outside, or give the job what is
    expected: that never enters the program's process.
    """

    status: Status
    """How it ended."""

    outputs: tuple[Any, ...] = ()
    """What each call gave, as plain values; up to the first that failed."""

    error: Failure | None = None
    """What went wrong."""

    mutated: tuple[tuple[list[Any], dict[str, Any]], ...] = ()
    """Arguments of each call as they were after it, where the job asks for them."""

    stdout: str = ""
    """What it printed, as far as the limit goes."""

    stderr: str = ""
    """The same of standard error."""

    times: tuple[float, ...] = ()
    """What each call took by the job's clock, as the program's process says: seconds, or
    instructions. Compare their sum with ``cpu_s``, which is seen from outside."""

    suspicious: str = ""
    """What the program did to the clock, where that was seen."""

    cpu_s: float = 0.0
    """Processor time of all its processes that ended in order, seconds; on some kernels in clock
    ticks."""

    wall_s: float = 0.0
    """Wall time, seconds."""

    peak_mib: float = 0.0
    """Peak memory beyond what a job that does nothing has, MiB."""

    memory: tuple[tuple[float, float], ...] = ()
    """Seconds since its start and MiB beyond what a job that does nothing has, where the job asks
    for samples. What comes and goes between two is in ``peak_mib`` alone."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """``calls`` answered, and ``leftover`` processes that it left and that were ended."""

    tier: int = 0
    """Tier of the sandbox that it ran in."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Of Python and the packages in the sandbox."""

    @property
    def ok(self) -> bool:
        """Whether the status is ``ok``."""
        return self.status is Status.OK

    def summary(self) -> str:
        """One line."""
        why = f": {self.error}" if self.error else ""
        used = f"{self.cpu_s:.2f} s CPU, {self.wall_s:.2f} s, {self.peak_mib:.0f} MiB"
        return f"{self.status}{why} ({used}, tier {self.tier})"

    def to_json(self) -> dict[str, Any]:
        """Plain data; values that JSON does not have are their ``repr``."""
        error = self.error
        return {
            "status": str(self.status),
            "outputs": [_plain(value) for value in self.outputs],
            "error": error
            and {
                "type": error.type,
                "message": error.message,
                "traceback": error.traceback,
                "frames": [list(frame) for frame in error.frames],
            },
            "mutated": [[_plain(args), _plain(kwargs)] for args, kwargs in self.mutated],
            "stdout": self.stdout,
            "stderr": self.stderr,
            "times": list(self.times),
            "suspicious": self.suspicious,
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "peak_mib": self.peak_mib,
            "memory": [list(sample) for sample in self.memory],
            "counts": dict(self.counts),
            "tier": self.tier,
            "versions": dict(self.versions),
        }


_MAX_BITS = 10_000  # more are not written as decimal digits, which costs their square


def _plain(value: Any) -> Any:
    if type(value) is int and value.bit_length() > _MAX_BITS:
        return hex(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return [_plain(item) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _plain(item) for key, item in value.items()}
    try:
        return repr(value)
    except ValueError:  # it holds a number of too many digits
        return f"<{type(value).__name__}>"
