"""A program in a process of its own, to be timed again and again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.sandbox.inside.channel import receive, send
from sharpen.core.sandbox.inside.codec import CodecError, encode

__all__ = ["Late", "Program", "Timer", "encode_inputs"]

_LOAD_S = 120.0


class Late(ExecutionError):
    """A measurement took longer than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A function in a source, which is trusted."""

    source: str
    entry: str
    """The function's name, or a dotted path such as ``Class.method``."""

    file: str = "<program>"
    """How tracebacks call it."""

    module: str = "program"
    """Its module's name; with dots where it is part of a package."""

    path: tuple[str, ...] = ()
    """Folders that it imports from."""

    @classmethod
    def from_file(cls, file: str | Path, entry: str, *, root: str | Path | None = None) -> Program:
        """A function of a file.

        Args:
            file: the source.
            entry: the function.
            root: the folder that its package lies in; the file's own without it.
        """
        path = Path(file).resolve()
        folder = path.parent if root is None else Path(root).resolve()
        parts = path.relative_to(folder).with_suffix("").parts
        return cls(
            source=path.read_text(encoding="utf-8"),
            entry=entry,
            file=str(path),
            module=".".join(parts),
            path=(str(folder),),
        )


def encode_inputs(inputs: Sequence[tuple[Sequence[Any], dict[str, Any]]]) -> list[bytes]:
    """Arguments, by position and by name, as they cross.

    Raises:
        ConfigError: there are none, or one cannot cross.
    """
    if not inputs:
        raise ConfigError("there are no inputs to measure with.")
    found = []
    for i, (args, kwargs) in enumerate(inputs):
        try:
            found.append(encode((tuple(args), dict(kwargs)), strict=True))
        except CodecError as error:
            raise ConfigError(f"input {i} cannot be handed to another process: {error}") from None
    return found


class Timer:
    """Times one program; each measurement is in a fresh child of its process.

    Args:
        program: what is timed.
        inputs: as of :func:`encode_inputs`.
        processor: the processor that it runs on; any without one.

    Raises:
        ConfigError: the program does not have the function.
        ExecutionError: the program does not load.
    """

    def __init__(
        self, program: Program, inputs: Sequence[bytes], processor: int | None = None
    ) -> None:
        self.program = program
        self.load_s = 0.0
        self._inputs, self._processor = list(inputs), processor
        self._process: subprocess.Popen[bytes] | None = None
        self.restart(0)

    def restart(self, hash_seed: int) -> None:
        """Load the program anew, in a process whose memory lies elsewhere.

        Where code and data happen to lie makes some per cent of difference, the same for as long as
        a process lives. What is to be told of a program must come from several.

        Raises:
            ExecutionError: it does not load.
        """
        self.close()
        begin = time.monotonic()
        ours, theirs = socket.socketpair()
        line = [sys.executable, "-m", "sharpen.code.measure.runner", str(theirs.fileno())]
        self._process = subprocess.Popen(
            line,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        )
        theirs.close()
        self._channel = ours
        program = self.program
        plain = {name: getattr(program, name) for name in program.__slots__}
        try:
            send(ours, {**plain, "path": list(program.path)})
            ours.settimeout(_LOAD_S)
            said, _ = receive(ours)
        except (EOFError, OSError) as error:
            self.close()
            raise ExecutionError(f"{program.file} did not load: {error!r}") from None
        if "missing" in said:
            self.close()
            raise ConfigError(f"{program.file} defines no '{program.entry}'.")
        if "error" in said:
            self.close()
            raise ExecutionError(f"{program.file} does not load: {said['error']}")
        self.load_s = time.monotonic() - begin

    def time(self, loops: int, *, clock: str = "cpu", limit_s: float = 60.0) -> list[float]:
        """[inputs] seconds a call.

        Args:
            loops: calls of each input.
            clock: ``cpu``, ``thread`` or ``wall``.
            limit_s: of wall time, for the whole.

        Raises:
            Late: it took longer.
            ExecutionError: the program raised or ended its process.
        """
        found = self._ask({"what": "time", "loops": loops, "clock": clock}, limit_s)
        return [ns / loops / 1e9 for ns in found["ns"]]

    def opcodes(self, *, limit_s: float = 60.0) -> list[int]:
        """[inputs] instructions of the interpreter a call; raises as :meth:`time`."""
        return list(self._ask({"what": "opcodes"}, limit_s)["counts"])

    def peak_mib(self, *, limit_s: float = 60.0) -> float:
        """MiB of memory that a call of each input needs beyond an idle child; raises as above."""
        idle = self._ask({"what": "nothing"}, limit_s)["peak_kib"]
        busy = self._ask({"what": "time", "loops": 1, "clock": "cpu"}, limit_s)["peak_kib"]
        return float(max(busy - idle, 0)) / 1024

    def _ask(self, task: dict[str, Any], limit_s: float) -> dict[str, Any]:
        task |= {"inputs": self._inputs, "processor": self._processor, "limit_s": limit_s}
        try:
            send(self._channel, task)
            self._channel.settimeout(limit_s + _LOAD_S)
            found, _ = receive(self._channel)
        except (EOFError, OSError) as error:
            raise ExecutionError(f"the process of the program is gone: {error!r}") from None
        if found.get("late"):
            raise Late(f"it took longer than {limit_s:g} s.")
        if "error" in found:
            raise ExecutionError(str(found["error"]))
        return dict(found)

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
