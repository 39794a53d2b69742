"""Whether times that a job claims can be true, by the processor time that was seen from outside.

A program shares its process with the clock and may write any number. It cannot write what the
kernel says of it: the processor time of the whole job, all threads and processes included. Of that
a part goes into starting, reading arguments and writing outputs; a program that is trusted, on the
same inputs, tells how much::

    calls = cpu_s(job) - (cpu_s(trusted) - sum of times(trusted))

Where the claim is less than four fifths of that, by 5 ms or more, it is not believed.
"""

from __future__ import annotations

from sharpen.core.sandbox.result import Result

__all__ = ["doubt", "overhead_s", "seen_s"]

_SHARE = 0.2
_LEAST_S = 0.005  # start and transfer of a job vary by so much


def overhead_s(trusted: Result) -> float:
    """Seconds of processor time of a job beside its calls, from one with the clock ``cpu``."""
    return max(0.0, trusted.cpu_s - sum(trusted.times))


def seen_s(result: Result, overhead: float) -> float:
    """Seconds of processor time that the calls of a job took together, seen from outside.

    Args:
        result: of the job.
        overhead: of :func:`overhead_s`, with the same inputs; what the program needs to be loaded,
            where that is known, on top.
    """
    return max(0.0, result.cpu_s - overhead)


def doubt(result: Result, overhead: float) -> str:
    """Why the times of a job with the clock ``cpu`` or ``wall`` are not believed, or nothing.

    Args:
        result: of the job.
        overhead: as of :func:`seen_s`.
    """
    claimed, seen = sum(result.times), seen_s(result, overhead)
    if claimed < (1 - _SHARE) * seen and seen - claimed > _LEAST_S:
        said = f"it says {claimed * 1e3:.1f} ms, from outside it took {seen * 1e3:.1f} ms"
        return f"{result.suspicious}; {said}" if result.suspicious else said
    return result.suspicious
