"""Contenders in processes of their own that take one step in turn, when the parent says so.

Whatever else the machine does strikes all, and peak memory is each process's own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

__all__ = ["Turn", "peak_bytes", "resident_bytes", "start", "step"]

_errors: dict[int, IO[str]] = {}  # what contenders write there, by pid


def peak_bytes() -> int:
    """Highest resident memory of this process."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return _status("VmRSS")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name}")


class Turn:
    """Waits for the parent's word before each step and reports what the step took."""

    def wait(self) -> None:
        """Until the parent says go; ends the process when the parent is gone."""
        if not sys.stdin.readline():
            sys.exit(0)

    def report(self, seconds: float, loss: float, **more: float) -> None:
        """Tell the parent."""
        found = {"seconds": seconds, "loss": loss, "peak_bytes": peak_bytes(), **more}
        print("step " + json.dumps(found), flush=True)


def start(
    module: str, side: str, *args: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """A contender: ``python -m module --side side args...``."""
    errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - read when it has ended
    child = subprocess.Popen(
        [sys.executable, "-m", module, "--side", side, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=env,
    )
    _errors[child.pid] = errors
    return child


def step(child: subprocess.Popen[str]) -> dict[str, float]:
    """Let a contender take a step; what it reports."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    for line in child.stdout:
        if line.startswith("step "):
            found: dict[str, float] = json.loads(line[5:])
            return found
    code, errors = child.wait(), _errors.pop(child.pid)
    with errors:
        errors.seek(0)
        last = next((line for line in reversed(errors.read().splitlines()) if line.strip()), "")
    raise RuntimeError(f"{child.args} ended with code {code}: {last}")
