"""Machine instructions of a call, counted from outside by cachegrind.

Processor time says how long; instructions say how much work, the same in every run, in C as in
Python. A program cannot change what is counted: it runs on a simulated processor. Processes that
are forked when the program is loaded tell what a call takes without all that comes before::

    instructions of a call = (I(2 n calls) - I(n calls)) / n

To copy arguments that could be changed is part of a call.

Valgrind (GPL) is run as a program of its own; a run takes about fifty times as long.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpen.code.measure.process import Late, encode_inputs
from sharpen.code.measure.program import Program
from sharpen.core.errors import ConfigError, DependencyNotInstalled, ExecutionError
from sharpen.core.sandbox.inside.codec import decode, encode

__all__ = ["count_instructions", "has_counter"]

_COUNT = re.compile(r"I\s+refs:\s+([\d,]+)")


def has_counter() -> bool:
    """Whether this machine has valgrind."""
    return shutil.which("valgrind") is not None


def count_instructions(
    program: Program,
    inputs: Sequence[tuple[Sequence[Any], dict[str, Any]]],
    *,
    loops: int = 1,
    limit_s: float = 120.0,
) -> float:
    """Machine instructions of one call of each input, together.

    Args:
        program: what is counted; it is trusted.
        inputs: arguments, by position and by name.
        loops: n, calls of each input in the shorter run.
        limit_s: of wall time.

    Raises:
        ConfigError: an input cannot be handed to another process, or ``loops`` is below 1.
        DependencyNotInstalled: there is no valgrind.
        ExecutionError: the program does not load, raises, or ends its process.
        Late: a run takes longer.
    """
    if loops < 1:
        raise ConfigError(f"loops={loops} must be at least 1.")
    if not has_counter():
        raise DependencyNotInstalled("instructions are counted by valgrind: apt install valgrind.")
    encoded = encode_inputs(inputs)
    _, before, twice, after = _counted(program, encoded, loops, limit_s)
    return (twice - (before + after) / 2) / loops  # between forks time passes for their parent too


def _counted(program: Program, inputs: list[bytes], loops: int, limit_s: float) -> list[int]:
    """Instructions of n calls that compile what they import, and of n, 2 n and n calls."""
    plain = {name: getattr(program, name) for name in program.__slots__}
    with tempfile.TemporaryDirectory() as folder:
        task, log = Path(folder) / "task", Path(folder) / "log"
        task.write_bytes(encode({"program": plain, "inputs": inputs, "loops": loops}))
        line = [
            *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--trace-children=no"),
            *("--cachegrind-out-file=/dev/null", f"--log-file={log}"),
            *(sys.executable, "-m", "sharpen.code.measure.instructions", str(task)),
        ]
        try:
            done = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
        except subprocess.TimeoutExpired:
            raise Late(f"counting took longer than {limit_s:g} s.") from None
        found = _COUNT.findall(log.read_text(errors="replace")) if log.exists() else []
    if done.returncode != 0 or len(found) != 5:  # the last is the process that the others are of
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise ExecutionError(f"{program.file} could not be counted: {said[0]}")
    return [int(number.replace(",", "")) for number in found[:4]]


def _main(path: Path) -> None:
    """Load a program and call it in processes that are counted, one after another."""
    from sharpen.code.measure.loading import load
    from sharpen.code.measure.timing import time_inputs

    task = decode(path.read_bytes())
    function = load({**task["program"], "path": list(task["program"]["path"])})
    n = task["loops"]
    for loops in (n, n, 2 * n, n):
        pid = os.fork()
        if pid == 0:
            try:
                time_inputs(function, task["inputs"], loops, "cpu")
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != 0:
            sys.exit(code if code > 0 else f"it was ended by {signal.Signals(-code).name}")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
