"""A command and all it starts: CPU seconds, wall time, and the most memory they held together."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

__all__ = ["measured"]

_EVERY = 0.1  # seconds between looks at the memory


def measured(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a command to its end.

    Args:
        command: program and arguments.
        folder: where it runs; its output goes to ``log.txt`` there.
        environment: variables beside those there are.

    Returns:
        ``cpu_s`` of user and system, ``wall_s``, ``memory_bytes`` (the most that all processes
        held at once, shared pages counted by share).
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    most = 0
    spent: dict[int, float] = {}  # of processes that nobody waits for, too
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            most = max(most, _look(process.pid, spent))
            time.sleep(_EVERY)
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        told = (folder / "log.txt").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{told}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": max(cpu, sum(spent.values())), "wall_s": wall, "memory_bytes": most}


def _look(pid: int, spent: dict[int, float]) -> int:
    """Memory of a process and all below it; notes what each has computed so far."""
    total = 0
    try:
        root = psutil.Process(pid)
        for one in (root, *root.children(recursive=True)):
            try:
                times = one.cpu_times()
                spent[one.pid] = times.user + times.system
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
    except psutil.Error:
        return total
    return total
