"""Programs that read standard input and write standard output, run in a sandbox: Python and C++.

C++ is compiled in a sandbox too; that time does not count. Inputs and outputs are files, so that no
pipe makes a program wait. A Python program is compiled before it is timed and run anew, as a main
module, for each input; its time is that of Python's code, without the start of an interpreter. The
time of a C++ program is the processor time of its process.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.sandbox import Job, Limits, SandboxPool
from sharpen.core.sandbox.job import Clock

__all__ = ["LANGUAGES", "Language", "Outcome", "build", "new_pool", "run_program"]

Language = Literal["python", "cpp"]
LANGUAGES = ("python", "cpp")

_SCRATCH_BYTES = 256 << 20
_MEMORY_BYTES = 1 << 30
_COMPILE_S = 60.0
_LOAD_S = 1.0

_REDIRECT = """
import os, sys

def _files(given):
    with open("given.txt", "wb") as file:
        file.write(given)
    source = os.open("given.txt", os.O_RDONLY)
    target = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    return source, target

def _said():
    with open("said.txt", "rb") as file:
        return file.read()
"""

_PYTHON = (
    _REDIRECT
    + """
_CODE = compile(SOURCE, "<program>", "exec", dont_inherit=True)

def run(given):
    source, target = _files(given)
    kept = os.dup(0), os.dup(1), sys.stdin, sys.stdout
    os.dup2(source, 0)
    os.dup2(target, 1)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    try:
        exec(_CODE, {"__name__": "__main__", "__builtins__": __builtins__})
    except SystemExit as error:
        if error.code not in (None, 0):
            raise RuntimeError(f"exit code {error.code}") from None
    finally:
        sys.stdout.flush()
        os.dup2(kept[0], 0)
        os.dup2(kept[1], 1)
        sys.stdin, sys.stdout = kept[2:]
        for file in (source, target, kept[0], kept[1]):
            os.close(file)
    return _said(), None
"""
)

_BUILD = """
import subprocess

def build(source, flags):
    with open("program.cpp", "w") as file:
        file.write(source)
    line = ["g++", *flags, "program.cpp", "-o", "program"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[:2000])
    with open("program", "rb") as file:
        return file.read()
"""

_CPP = (
    _REDIRECT
    + """
import resource

with open("program", "wb") as _file:
    _file.write(PROGRAM)
os.chmod("program", 0o700)

def run(given):
    source, target = _files(given)
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(source, 0)
            os.dup2(target, 1)
            most = int(-(-LIMIT_S // 1)) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (most, most))
            os.execv("./program", ["program"])
        finally:
            os._exit(127)
    os.close(source)
    os.close(target)
    _, status, used = os.wait4(pid, 0)
    took = used.ru_utime + used.ru_stime
    if took <= LIMIT_S and status:
        raise RuntimeError(f"it ended with {os.waitstatus_to_exitcode(status)}")
    return _said(), took
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a program on some inputs."""

    outputs: tuple[bytes, ...] = ()
    """Of each input, up to the first on which it failed or took too long."""

    times: tuple[float, ...] = ()
    """Seconds, or instructions, of the same."""

    late: bool = False
    """Whether it took too long on the next one."""

    why: str = ""
    """Why there are not all."""


def new_pool(workers: int) -> SandboxPool:
    """Sandboxes with room for a compiler.

    Raises:
        SandboxUnavailable: this machine has none.
    """
    return SandboxPool(workers, limits=Limits(scratch_bytes=_SCRATCH_BYTES))


def build(source: str, language: Language, pool: SandboxPool, flags: Sequence[str]) -> bytes | str:
    """What is run: the source itself, or a compiled program.

    Raises:
        ConfigError: another language.
        DependencyNotInstalled: there is no compiler.
        ValueError: it does not compile; the message is the compiler's.
    """
    if language not in LANGUAGES:
        raise ConfigError(f"language='{language}' must be python or cpp.")
    if language == "python":
        return source
    if shutil.which("g++") is None:
        raise DependencyNotInstalled("C++ programs need g++. Install it: apt install g++")
    limits = Limits(
        cpu_s=_COMPILE_S,
        memory_bytes=2 << 30,
        processes=64,
        file_bytes=64 << 20,
        scratch_bytes=_SCRATCH_BYTES,
    )
    job = Job(source=_BUILD, entry="build", inputs=[(source, list(flags))], limits=limits)
    result = pool.run(job)
    if not result.ok:
        raise ValueError(str(result.error))
    program = result.outputs[0]
    if not isinstance(program, bytes):
        raise ValueError("the compiler gave no program")
    return program


def run_program(
    program: bytes | str,
    inputs: Sequence[bytes],
    pool: SandboxPool,
    *,
    clock: Clock = "cpu",
    limit_s: float = 10.0,
) -> Outcome:
    """Run a program on some inputs, one after another.

    Args:
        program: of :func:`build`.
        inputs: what each run reads.
        pool: of :func:`new_pool`.
        clock: ``cpu`` or ``opcodes``, which only Python has.
        limit_s: processor time of one run.
    """
    is_python = isinstance(program, str)
    if clock == "wall" or (clock == "opcodes" and not is_python):
        raise ConfigError(f"clock='{clock}': programs are timed by cpu, Python also by opcodes.")
    limits = Limits(
        cpu_s=_LOAD_S + limit_s * len(inputs) * (100 if clock == "opcodes" else 1),
        memory_bytes=_MEMORY_BYTES,
        file_bytes=64 << 20,
        scratch_bytes=_SCRATCH_BYTES,
    )
    job = Job(
        source=_PYTHON if is_python else _CPP,
        entry="run",
        inputs=[(given,) for given in inputs],
        names={"SOURCE": program} if is_python else {"PROGRAM": program, "LIMIT_S": limit_s},
        clock=clock,
        call_limit=limit_s if is_python and clock == "cpu" else None,
        limits=limits,
    )
    result = pool.run(job)
    outputs: list[bytes] = []
    times: list[float] = []
    for output, took in zip(result.outputs, result.times, strict=False):
        if not isinstance(output, tuple) or len(output) != 2 or not isinstance(output[0], bytes):
            return Outcome(outputs=tuple(outputs), times=tuple(times), why="a forged output")
        own = output[1] if isinstance(output[1], float) else took
        if clock == "cpu" and own > limit_s:
            return Outcome(outputs=tuple(outputs), times=tuple(times), late=True, why="too long")
        outputs.append(output[0])
        times.append(own)
    late = result.status in ("timeout", "wall_timeout")
    why = "" if result.ok else f"{result.status}: {result.error}"
    return Outcome(outputs=tuple(outputs), times=tuple(times), late=late, why=why)
