"""Times a program that nobody trusts, in a sandbox, as :class:`Timer` times one that is trusted."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.code.measure.process import Late, Timer
from sharpen.code.measure.program import Program
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.core.sandbox import Call, Job, Limits, Result, SandboxPool, Status, decode

__all__ = ["SandboxTimer"]

_MOST_CALLS, _MOST_BYTES = 1000, 1 << 20  # of one measurement: each call has its arguments sent
_MEMORY_BYTES = 2 << 30
_USE_UP = """

def _sharpen_used_up(*args, **kwargs):
    found = {entry}(*args, **kwargs)
    if hasattr(type(found), "__next__"):
        for _ in found:
            pass
"""


class SandboxTimer(Timer):
    """Times one program in a sandbox; each measurement is in a fresh process.

    Args:
        program: what is timed; it finds the standard library and the pool's packages alone.
        inputs: as of :func:`sharpen.code.measure.encode_inputs`.
        pool: of sandboxes.
    """

    def __init__(self, program: Program, inputs: Sequence[bytes], pool: SandboxPool) -> None:
        self.program, self._pool = program, pool
        self.load_s = 0.0
        self._source = program.source + _USE_UP.format(entry=program.entry)
        self._calls = [Call(*decode(one)) for one in inputs]
        self._most = max(1, min(_MOST_CALLS // len(inputs), _MOST_BYTES // sum(map(len, inputs))))

    def restart(self, hash_seed: int) -> None:
        """Nothing: each measurement is in a process of its own."""

    def time(self, loops: int, *, clock: str = "cpu", limit_s: float = 60.0) -> list[float]:
        """[inputs] seconds a call, the mean of ``loops`` or fewer.

        Raises:
            Late: it took longer.
            ExecutionError: the program raised, or did something to the clock.
        """
        if clock not in ("cpu", "wall"):
            raise ConfigError(f"clock='{clock}': in a sandbox there are cpu and wall.")
        count = len(self._calls)
        loops = min(loops, self._most)
        times = self._run(self._calls * loops, clock, limit_s).times
        return [sum(times[i::count]) / loops for i in range(count)]

    def opcodes(self, *, limit_s: float = 60.0) -> list[int]:
        """[inputs] instructions of the interpreter a call; raises as :meth:`time`."""
        return [int(one) for one in self._run(self._calls, "opcodes", limit_s).times]

    def peak_mib(self, *, limit_s: float = 60.0) -> float:
        """MiB of memory of a call of each input, arguments included; raises as above."""
        return self._run(self._calls, "cpu", limit_s).peak_mib

    def curve(self, *, limit_s: float = 60.0) -> list[tuple[float, float]]:
        """[n, 2] memory over time, in samples of some milliseconds; raises as above.

        Seconds are those of the calls, spread over the samples: others' work does not count.
        """
        result = self._run(self._calls, "cpu", limit_s, sample_memory=True)
        memory = result.memory or [(0.0, result.peak_mib)]
        last = max(memory[-1][0], 1e-9)
        seconds = sum(result.times)
        found = [(seconds * at / last, mib) for at, mib in memory]
        return [(0.0, memory[0][1]), *found, (seconds, memory[-1][1])]

    def _run(
        self, calls: Sequence[Call], clock: str, limit_s: float, *, sample_memory: bool = False
    ) -> Result:
        job = Job(
            source=self._source,
            entry="_sharpen_used_up",
            inputs=calls,
            sample_memory=sample_memory,
            clock="wall" if clock == "wall" else "opcodes" if clock == "opcodes" else "cpu",
            limits=Limits(cpu_s=limit_s, memory_bytes=_MEMORY_BYTES),
        )
        result = self._pool.run(job)
        if result.status in (Status.TIMEOUT, Status.WALL_TIMEOUT):
            raise Late(f"it took longer than {limit_s:g} s.")
        if result.status is not Status.OK:
            raise ExecutionError(f"{result.status}: {result.error}")
        if result.suspicious:
            raise ExecutionError(f"its times cannot be believed: {result.suspicious}")
        if len(result.times) != len(calls) or not all(one > 0 for one in result.times):
            raise ExecutionError("it says no times that can be.")
        return result

    def close(self) -> None:
        """Nothing: the pool is its owner's."""
