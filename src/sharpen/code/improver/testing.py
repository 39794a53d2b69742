"""Running the user's tests: with the arguments of a function recorded, or with another text of it.

Tests are a command of any kind. What is needed happens in every Python process that the command
starts, by a module that Python loads on its own when it starts (``sitecustomize``): see
:mod:`sharpen.code.improver.recording`.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sharpen.code.improver.recording import read_records, read_refusals
from sharpen.code.improver.target import Target
from sharpen.core.errors import ConfigError, MissingFileError

__all__ = [
    "TestRun",
    "command_of",
    "doctest_command",
    "find_tests",
    "run_command",
    "run_tests",
]

_HOOK = "from sharpen.code.improver.recording import start\nstart()\n"
_TAIL = 30  # lines of what failed tests printed


@dataclass(frozen=True, slots=True)
class TestRun:
    """How a run of tests ended.

    Args:
        passed: whether the command's exit code was 0.
        output: the last lines that it printed.
        seconds: it took.
        records: arguments of calls, as they cross.
        loaded: whether a process imported the text that stood in for the file.
        refused: calls whose arguments are no plain values.
    """

    __test__ = False  # pytest takes classes of this name for its own

    passed: bool
    output: str
    seconds: float
    records: list[bytes] = field(default_factory=list)
    loaded: bool = False
    refused: int = 0


def command_of(tests: str) -> list[str]:
    """The command for tests: a folder or file for pytest, or the words of a command.

    Raises:
        MissingFileError: what looks like a path is not there.
        ConfigError: it is no command.
    """
    if Path(tests).exists():
        return [sys.executable, "-m", "pytest", "-q", "-x", tests]
    try:
        words = shlex.split(tests)
    except ValueError as error:
        raise ConfigError(f"--tests {tests!r}: {error}.") from None
    if not words:
        raise ConfigError("--tests is empty: give a folder, a file or a command.")
    if len(words) == 1 and (words[0].endswith((".py", "/")) or os.sep in words[0]):
        raise MissingFileError(f"--tests: there is no {words[0]}.")
    if words[0] in ("pytest", "py.test"):
        return [sys.executable, "-m", "pytest", *words[1:]]
    return [sys.executable, *words[1:]] if words[0] in ("python", "python3") else words


def doctest_command(target: Target) -> list[str]:
    """What runs the examples in a module's docstrings."""
    code = (
        "import doctest, importlib, sys; sys.path.insert(0, sys.argv[1]);"
        " failed, _ = doctest.testmod(importlib.import_module(sys.argv[2])); sys.exit(failed > 0)"
    )
    return [sys.executable, "-c", code, str(target.root), target.module]


def find_tests(target: Target) -> Path | None:
    """The file of tests that belongs to a module by its name, beside it or in ``tests``."""
    stem = target.file.stem
    folders = [target.file.parent, target.file.parent / "tests", target.root / "tests"]
    for folder in folders:
        for name in (f"test_{stem}.py", f"{stem}_test.py"):
            if (folder / name).is_file() and folder / name != target.file:
                return folder / name
    return None


def run_tests(
    command: list[str],
    target: Target,
    *,
    text: str | None = None,
    record: bool = False,
    hash_seed: int = 0,
    limit_s: float = 600.0,
) -> TestRun:
    """Run a command; every process that it starts is ended with it.

    Args:
        command: its words.
        target: whose calls are recorded.
        text: stands in for the file when a process imports it.
        record: whether arguments are recorded.
        hash_seed: of its Python processes.
        limit_s: of wall time; longer is a failure.
    """
    with tempfile.TemporaryDirectory(prefix="sharpen-improve-") as folder:
        place = Path(folder)
        variables = {
            "SHARPEN_IMPROVE_FILE": str(target.file),
            "SHARPEN_IMPROVE_OUT": folder,
            "PYTHONHASHSEED": str(hash_seed),
        }
        if record:
            variables["SHARPEN_IMPROVE_ENTRY"] = target.entry
            variables["SHARPEN_IMPROVE_KIND"] = target.kind
        if text is not None:
            (place / "text").write_bytes(text.encode())
            variables["SHARPEN_IMPROVE_TEXT"] = str(place / "text")
        begin = time.monotonic()
        passed, output = run_command(command, place, variables, [str(target.root)], limit_s)
        return TestRun(
            passed,
            output,
            time.monotonic() - begin,
            read_records(place) if record else [],
            any(place.glob("loaded-*")),
            read_refusals(place),
        )


def run_command(
    command: list[str], place: Path, variables: Mapping[str, str], paths: list[str], limit_s: float
) -> tuple[bool, str]:
    """Run a command whose Python processes load our hook.

    Args:
        command: its words.
        place: a folder for the hook and what it leaves.
        variables: of the environment.
        paths: folders that it may import from.
        limit_s: of wall time.

    Returns:
        Whether it ended well, and the last lines that it printed.
    """
    (place / "sitecustomize.py").write_text(_HOOK)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    variables = {
        "PYTHONPATH": os.pathsep.join([str(place), *filter(None, given), *paths]),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": f"{os.environ.get('PYTEST_ADDOPTS', '')} -p no:cacheprovider",
        **variables,
    }
    return _run(command, variables, limit_s)


def _run(command: list[str], variables: Mapping[str, str], limit_s: float) -> tuple[bool, str]:
    with _started(command, variables) as process:
        try:
            printed, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return False, f"it took longer than {limit_s:g} s"
    lines = printed.decode(errors="replace").splitlines()
    return process.returncode == 0, "\n".join(lines[-_TAIL:])


@contextmanager
def _started(command: list[str], variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **variables},
        )
    except OSError as error:
        raise ConfigError(f"--tests: {command[0]} cannot be run: {error.strerror}.") from None
    try:
        yield process
    finally:
        # Its own session: whatever it has started and left goes too.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
