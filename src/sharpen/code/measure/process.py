"""A program in a process of its own, to be timed again and again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sharpen.code.measure.child import LOAD_S, ProgramProcess
from sharpen.code.measure.program import Program
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.sandbox.inside.channel import receive, send
from sharpen.core.sandbox.inside.codec import CodecError, encode

__all__ = ["Late", "Program", "Timer", "encode_inputs"]


class Late(ExecutionError):
    """A measurement took longer than it may."""


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


class Timer(ProgramProcess):
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
        super().__init__(program, "sharpen.code.measure.runner")
        self.load_s = 0.0
        self._inputs, self._processor = list(inputs), processor
        self.restart(0)

    def restart(self, hash_seed: int) -> None:
        """Load the program anew, in a process whose memory lies elsewhere.

        Where code and data happen to lie makes some per cent of difference, the same for as long as
        a process lives. What is to be told of a program must come from several.

        Raises:
            ExecutionError: it does not load.
        """
        begin = time.monotonic()
        self.start(hash_seed)
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

    def curve(self, *, limit_s: float = 60.0) -> list[tuple[float, float]]:
        """[n, 2] memory over processor time while each input is called once.

        Seconds of processor time of the process and MiB that it holds, those of the interpreter
        included: when the first call begins, about each millisecond, and when the last has ended.
        Raises as above.
        """
        found = self._ask({"what": "curve"}, limit_s)
        return [(ns / 1e9, kib / 1024) for ns, kib in found["samples"]]

    def _ask(self, task: dict[str, Any], limit_s: float) -> dict[str, Any]:
        task |= {"inputs": self._inputs, "processor": self._processor, "limit_s": limit_s}
        try:
            send(self._channel, task)
            self._channel.settimeout(limit_s + LOAD_S)
            found, _ = receive(self._channel)
        except (EOFError, OSError) as error:
            raise ExecutionError(f"the process of the program is gone: {error!r}") from None
        if found.get("late"):
            raise Late(f"it took longer than {limit_s:g} s.")
        if "error" in found:
            raise ExecutionError(str(found["error"]))
        return dict(found)
