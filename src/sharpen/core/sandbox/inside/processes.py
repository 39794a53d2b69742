"""The processes of a job: what they have used, and their end."""

# pathlib is slow to load, and this runs in every sandbox.
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import contextlib
import os
import signal
import time

__all__ = ["children_of", "cpu_seconds", "descendants", "kill_all", "memory_kib", "reap"]

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def children_of(pid: int) -> list[int]:
    """The children of a process, of all its threads; none where it has ended."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except (OSError, ValueError):
        pass
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one, itself left out."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children_of(waiting.pop())
        found += below
        waiting += below
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of all below a process and of the children they waited for.

    The resolution is a clock tick, 10 ms: for limits, not for comparisons.
    """
    ticks = 0
    for one in descendants(pid):
        try:
            with open(f"/proc/{one}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / _TICKS


def memory_kib(pid: int) -> int:
    """Memory of a process and all below it that is in RAM; 0 where it has ended."""
    pages = 0
    for one in (pid, *descendants(pid)):
        try:
            with open(f"/proc/{one}/statm", "rb") as file:
                pages += int(file.read().split()[1])
        except (OSError, IndexError, ValueError):
            continue
    return pages * _PAGE // 1024


def reap() -> bool:
    """Collect children that have ended; whether none is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False


def kill_all(*, broadcast: bool, give_up_s: float = 5.0) -> bool:
    """End every descendant of this process, which adopts orphans.

    Args:
        broadcast: whether a signal to all reaches those of this sandbox alone, as the only process
            that may be told so can be sure of.
        give_up_s: how long to try.

    Returns:
        Whether none is left.
    """
    end = time.monotonic() + give_up_s
    pause = 0.0002
    while True:
        if broadcast:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if reap():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.01)
