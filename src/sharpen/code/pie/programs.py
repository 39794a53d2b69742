"""Programs that read standard input and print, run and timed in a sandbox.

C++ is compiled there once, which is not timed. Each test is a process of its own whose processor
time the kernel counts, the start of Python's interpreter included, as when anybody runs a program.
A program that lets another process work for it is found out by the time of the whole sandbox.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sharpen.code.pie.rows import Language
from sharpen.core.errors import ConfigError, DependencyNotInstalled, ExecutionError
from sharpen.core.sandbox import Job, Limits, SandboxPool, Status

__all__ = ["Built", "Programs", "Run"]

_BUILD = """
import os
import subprocess


def build(code, flags):
    os.environ["TMPDIR"] = os.getcwd()
    with open("program.cpp", "w") as file:
        file.write(code)
    line = ["g++", *flags, "program.cpp", "-o", "program"]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    if done.returncode:
        return [done.stderr[-2000:], b""]
    with open("program", "rb") as file:
        return ["", file.read()]
"""

_RUN = """
import os
import signal
import subprocess
import sys
import time


def run(program, texts, limit_s, python):
    name = "program.py" if python else "./program"
    with open(name, "wb") as file:
        file.write(program)
    if not python:
        os.chmod(name, 0o700)
    line = [sys.executable, "-I", "-S", name] if python else [name]
    found = []
    for text in texts:
        with open("input", "w") as file:
            file.write(text)
        with open("input") as given, open("output", "wb") as out, open("error", "wb") as err:
            begin = time.perf_counter()
            child = subprocess.Popen(line, stdin=given, stdout=out, stderr=err)
            while True:
                pid, status, used = os.wait4(child.pid, os.WNOHANG)
                wall = time.perf_counter() - begin
                if pid or wall > limit_s:
                    break
                time.sleep(min(0.001, wall / 20))
            late = not pid
            if late:
                child.send_signal(signal.SIGKILL)
                pid, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        with open("output", "rb") as file:
            printed = file.read()
        with open("error", "rb") as file:
            said = file.read()[-500:]
        cpu = used.ru_utime + used.ru_stime
        found.append([child.returncode, printed, said, cpu, wall, late])
        if late or child.returncode:
            break
    return found
"""
_COMPILING = Limits(cpu_s=60, memory_bytes=3 << 30, processes=32, file_bytes=64 << 20)
_PRINTED = 16 << 20
_HIDDEN = 1.2, 0.1  # times, and seconds more, that a sandbox may need beside its program


@dataclass(frozen=True, slots=True)
class Built:
    """A program that can be run."""

    data: bytes
    is_python: bool
    error: str = ""
    """Why it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of a program on some tests."""

    outputs: list[str]
    """What it printed; fewer than the tests where it failed or took too long."""

    cpu_s: list[float]
    wall_s: list[float]
    why: str = ""
    """Why there are fewer."""

    is_late: bool = False
    suspicious: str = ""


class Programs:
    """Builds and runs programs.

    Args:
        limit_s: wall time of one test.
        memory_bytes: of one program.
        flags: of g++.

    Raises:
        ConfigError: a limit is not above 0.
        SandboxUnavailable: this machine has no sandbox.
    """

    def __init__(
        self,
        *,
        limit_s: float = 10.0,
        memory_bytes: int = 1 << 30,
        flags: Sequence[str] = ("-O3", "-std=c++17"),
    ) -> None:
        if not limit_s > 0:
            raise ConfigError(f"limit_s={limit_s} must be above 0.")
        self.limit_s, self.memory_bytes, self.flags = limit_s, memory_bytes, list(flags)
        self.pool = SandboxPool(1)

    def build(self, program: str, language: Language) -> Built:
        """Compile what has to be.

        Raises:
            DependencyNotInstalled: there is no g++.
            ExecutionError: the sandbox failed.
        """
        if language == "python":
            return Built(program.encode("utf-8", "replace"), is_python=True)
        if shutil.which("g++") is None:
            raise DependencyNotInstalled("C++ programs need g++: apt install g++.")
        job = Job(source=_BUILD, entry="build", inputs=[(program, self.flags)], limits=_COMPILING)
        result = self.pool.run(job)
        if result.status is Status.INFRA:
            raise ExecutionError(result.summary())
        if not result.ok:
            return Built(b"", is_python=False, error=f"the compiler: {result.summary()}")
        error, data = result.outputs[0]
        return Built(data, is_python=False, error=error and f"it does not compile: {error}")

    def run(self, built: Built, texts: Sequence[str]) -> Run:
        """Run a program on some tests, until one fails.

        Raises:
            ExecutionError: the sandbox failed.
        """
        if built.error:
            return Run(outputs=[], cpu_s=[], wall_s=[], why=built.error)
        seconds = 5 + self.limit_s * len(texts)
        limits = Limits(
            cpu_s=seconds,
            wall_s=seconds + 10,
            memory_bytes=self.memory_bytes,
            file_bytes=_PRINTED,
            result_bytes=_PRINTED * 4,
        )
        inputs = [(built.data, list(texts), self.limit_s, built.is_python)]
        result = self.pool.run(Job(source=_RUN, entry="run", inputs=inputs, limits=limits))
        if result.status is Status.INFRA:
            raise ExecutionError(result.summary())
        if not result.ok:
            return Run(outputs=[], cpu_s=[], wall_s=[], why=result.summary())
        outputs, cpu, wall, why, is_late = [], [], [], "", False
        for code, printed, said, cpu_s, wall_s, late in result.outputs[0]:
            if late or code:
                is_late = bool(late)
                text = said.decode(errors="replace").strip().splitlines()[-1:]
                why = "it took too long" if late else f"it ended with {code}: {''.join(text)}"
                break
            outputs.append(printed.decode(errors="replace"))
            cpu.append(max(cpu_s, 1e-6))
            wall.append(wall_s)
        hidden = ""
        if result.counts.get("leftover") or result.cpu_s > _HIDDEN[0] * sum(cpu) + _HIDDEN[1] + (
            self.limit_s if is_late else 0.0
        ):
            hidden = f"{result.cpu_s:.3g} s were used and {sum(cpu):.3g} s by the program itself"
        return Run(
            outputs=outputs,
            cpu_s=cpu,
            wall_s=wall,
            why=why,
            is_late=is_late,
            suspicious=hidden,
        )

    def close(self) -> None:
        """End the sandbox."""
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
