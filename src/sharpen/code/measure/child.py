"""A trusted program that is loaded in a process of its own, which is asked things over a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sharpen.code.measure.program import Program
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.sandbox.inside.channel import receive, send

__all__ = ["LOAD_S", "ProgramProcess"]

LOAD_S = 120.0
"""Seconds that a program may take to load, and a busy machine to answer."""


class ProgramProcess:
    """A program in a process.

    Args:
        program: what is loaded.
        module: is run in the process; it begins with :func:`sharpen.code.measure.loading.loaded`.
        folder: the one that the program runs in; this process's without one.
    """

    def __init__(self, program: Program, module: str, folder: Path | None = None) -> None:
        self.program = program
        self._module, self._folder = module, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, hash_seed: int) -> dict[str, Any]:
        """Load the program, in a new process.

        Args:
            hash_seed: of the process.

        Returns:
            What it says first.

        Raises:
            ConfigError: the program does not have the function.
            ExecutionError: it does not load.
        """
        self.close()
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self._folder,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        )
        theirs.close()
        self._channel = ours
        program = self.program
        plain = {name: getattr(program, name) for name in program.__slots__}
        try:
            ours.settimeout(LOAD_S)
            send(ours, {**plain, "path": list(program.path)})
            said, _ = receive(ours)
        except (EOFError, OSError) as error:
            self.close()
            raise ExecutionError(f"{program.file} did not load: {error!r}") from None
        if "missing" in said:
            self.close()
            raise ConfigError(f"{program.file} defines no '{program.entry}' when it is run.")
        if "error" in said:
            self.close()
            raise ExecutionError(f"{program.file} does not load: {said['error']}")
        return dict(said)

    def close(self) -> None:
        """End its process."""
        if self._process is not None:
            self._channel.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
