"""Programs that are called to see what they do: trusted ones in a process, others in a sandbox.

Both give the same, by the same code (:mod:`sharpen.code.improver.observing`): of each call what can
be seen, and of the whole series what it left in the module's variables.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sharpen.code.measure.child import ProgramProcess
from sharpen.code.measure.program import Program
from sharpen.core.errors import ExecutionError
from sharpen.core.sandbox import Call, Job, Limits, Record, SandboxPool, Status, decode
from sharpen.core.sandbox.inside.channel import receive, send
from sharpen.core.sandbox.inside.codec import CodecError

__all__ = ["Observer", "Sandboxed", "Seen", "Series", "Watcher", "error_name"]

_MEMORY_BYTES = 4 << 30
_SANDBOX_S = (
    5.0  # least processor time: the limit of wall time, which a busy machine uses up, follows
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a call.

    Args:
        what: as of :func:`sharpen.code.improver.observing.observe`; None where there is nothing.
        why: there is nothing: ``late``, ``ended`` or why it cannot be looked at.
    """

    what: Mapping[str, Any] | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """What was seen of calls one after another.

    Args:
        seen: [calls]; fewer where the process ended or was late, the last of which says so.
        before: digests of the module's variables before the first call.
        after: after the last.
    """

    seen: list[Seen]
    before: Mapping[str, bytes] = field(default_factory=dict)
    after: Mapping[str, bytes] = field(default_factory=dict)


def error_name(seen: Mapping[str, Any]) -> str:
    """The class of what a call raised; empty where it raised nothing."""
    error = seen["error"]
    if error is None:
        return ""
    return str(error.fields.get("type_name")) if isinstance(error, Record) else "?"


class Observer(Protocol):
    """Something that calls a program and tells what it saw."""

    def observe(self, inputs: Sequence[bytes], *, each_s: float, whole_s: float) -> Series:
        """Call it with each input in one process; stops at the first that is late or ends it."""
        ...

    def close(self) -> None:
        """End its process."""
        ...


class Watcher(ProgramProcess):
    """Calls a trusted program in a process of its own; each series is in a fresh child of it.

    Args:
        program: what is called.
        hash_seed: of the process.
        folder: the one that the program runs in; this process's without one.

    Raises:
        ConfigError: the program does not have the function.
        ExecutionError: it does not load.
    """

    def __init__(self, program: Program, hash_seed: int = 0, folder: Path | None = None) -> None:
        super().__init__(program, "sharpen.code.improver.observing_child", folder)
        self._hash_seed = hash_seed
        self._before: Mapping[str, bytes] = {}
        self._begin()

    def _begin(self) -> None:
        self._before = self.start(self._hash_seed)["state"]

    def observe(self, inputs: Sequence[bytes], *, each_s: float, whole_s: float) -> Series:
        """Call it with each input in one process; stops at the first that is late or ends it."""
        if self._process is None:
            self._begin()
        send(self._channel, self._task("calls", inputs))
        seen: list[Seen] = []
        after: Mapping[str, bytes] = {}
        left = whole_s
        while True:
            self._channel.settimeout(max(min(each_s, left), 0.01))
            begin = time.monotonic()
            try:
                found, _ = receive(self._channel)
            except TimeoutError:
                self.close()
                return Series([*seen, Seen(None, "late")], self._before)
            except (EOFError, OSError, CodecError) as error:
                self.close()
                return Series([*seen, Seen(None, f"ended: {error}")], self._before)
            left -= time.monotonic() - begin
            if "seen" in found:
                seen.append(Seen(found["seen"]))
            elif "unseen" in found:
                seen.append(Seen(None, str(found["unseen"])))
            elif "state" in found:
                after = found["state"]
            else:
                code = found["ended"]
                if len(seen) < len(inputs):
                    seen.append(Seen(None, f"ended: its process left with the code {code}"))
                return Series(seen, self._before, after)

    def lines(self, inputs: Sequence[bytes], *, limit_s: float = 60.0) -> dict[str, Any]:
        """Instructions and memory by line (:func:`sharpen.code.improver.profiling.count_lines`).

        Raises:
            ExecutionError: there is nothing to tell: it was late or ended its process.
        """
        if self._process is None:
            self._begin()
        try:
            send(self._channel, self._task("lines", inputs))
            self._channel.settimeout(limit_s)
            found, _ = receive(self._channel)
            receive(self._channel)
        except (EOFError, OSError) as error:
            self.close()
            raise ExecutionError(f"the profile of {self.program.entry} failed: {error!r}") from None
        if "lines" not in found:
            raise ExecutionError(f"the profile of {self.program.entry} failed: {found}")
        return dict(found["lines"])

    def _task(self, what: str, inputs: Sequence[bytes]) -> dict[str, Any]:
        return {"what": what, "inputs": list(inputs), "memory_bytes": _MEMORY_BYTES}


_INSIDE = (Path(__file__).parent / "observing.py").read_text(encoding="utf-8")
_DRIVER = """

import sys as _sys
import types as _types

_module = _types.ModuleType(PROGRAM["module"].rpartition(".")[2])
_module.__file__ = PROGRAM["file"]
_sys.modules[_module.__name__] = _module
exec(compile(PROGRAM["source"], PROGRAM["file"], "exec", dont_inherit=True), _module.__dict__)
_before = state_of(_module.__dict__)
_function = _module
for _part in PROGRAM["entry"].split("."):
    _function = getattr(_function, _part)


def see(what, args, kwargs):
    if what == "state":
        return _before, state_of(_module.__dict__)
    return observe(_function, args, kwargs)
"""


class Sandboxed:
    """Calls a program that nobody trusts in a sandbox.

    What it tells is what the program says: compare it outside with what is expected.

    Args:
        program: what is called; it finds the standard library and the pool's packages alone.
        pool: of sandboxes.
    """

    def __init__(self, program: Program, pool: SandboxPool) -> None:
        self.program, self._pool = program, pool

    def observe(self, inputs: Sequence[bytes], *, each_s: float, whole_s: float) -> Series:
        """Call it with each input in one process; stops at the first that is late or ends it."""
        program = self.program
        calls = [Call(("call", *decode(one))) for one in inputs]
        job = Job(
            source=_INSIDE + _DRIVER,
            entry="see",
            inputs=[*calls, Call(("state", (), {}))],
            names={
                "PROGRAM": {
                    "source": program.source,
                    "entry": program.entry,
                    "file": program.file,
                    "module": program.module,
                }
            },
            catch=True,
            limits=Limits(cpu_s=max(whole_s, _SANDBOX_S), memory_bytes=_MEMORY_BYTES // 2),
        )
        result = self._pool.run(job)
        if result.status is Status.INFRA:
            raise ExecutionError(f"the sandbox failed: {result.error}")
        seen: list[Seen] = []
        for one in result.outputs[: len(inputs)]:
            plain = isinstance(one, dict) and {"value", "error", "args"} <= one.keys()
            seen.append(Seen(one) if plain else Seen(None, f"its result is no observation: {one}"))
        state = result.outputs[len(inputs)] if len(result.outputs) > len(inputs) else None
        if not isinstance(state, tuple) or len(state) != 2:
            late = result.status in (Status.TIMEOUT, Status.WALL_TIMEOUT)
            why = "late" if late else f"ended: {result.error}"
            return Series([*seen[: len(inputs) - 1], Seen(None, why)])
        return Series(seen, dict(state[0]), dict(state[1]))

    def close(self) -> None:
        """Nothing: the pool is its owner's."""
