"""Who works on a trial, and whether that process still can.

An owner is a process id, its start time, the boot it belongs to and its namespace of process ids.
A dead owner on this machine is known at once, so a killed study resumes without waiting; an expiry
on the store's clock covers the rest, and no change of the wall clock matters.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = ["is_lost", "this_process"]


def _start_ticks(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


@functools.cache
def _boot_and_namespace() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def this_process() -> str:
    """This process, such that a later one with the same number is told apart."""
    return f"{os.getpid()} {_start_ticks(os.getpid())} {_boot_and_namespace()}"


def is_lost(owner: str, expires: float, now: float, *, one_machine: bool) -> bool:
    """Whether a lease is void: it ran out, its owner is dead, or the machine was restarted.

    Args:
        owner: what :func:`this_process` said in the process that took it.
        expires: when it runs out.
        now: on the same clock.
        one_machine: whether owners are all on this machine, so that another boot is an earlier one.
    """
    pid, ticks, place = owner.split(" ", 2)
    here = _boot_and_namespace()
    if place == here and _start_ticks(int(pid)) != ticks:
        return True
    if one_machine and place.split("/")[0] != here.split("/")[0]:
        return True
    return now > expires  # of another machine or container, the processes are hidden
