"""Where a whole program spends its time: functions ranked by the time in themselves."""

from __future__ import annotations

import marshal
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.improve import improve
from sharpen.code.improver.result import ImproveResult
from sharpen.code.improver.target import Function, functions_of, parsed, read_source
from sharpen.code.improver.testing import run_command
from sharpen.core.errors import ExecutionError, SharpenError, UserError

__all__ = ["Hot", "Outcome", "find_hot", "improve_hot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hot:
    """A function that takes time."""

    file: Path
    entry: str
    calls: int
    seconds: float
    """In the function itself, without what it calls; with the profiler's own time."""

    share: float
    """Of the whole program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one function."""

    hot: Hot
    result: ImproveResult | None
    error: str = ""
    """Why it was not tried."""


def find_hot(command: list[str], folder: Path, *, limit_s: float = 600.0) -> list[Hot]:
    """Run a command and rank the functions of a folder.

    Args:
        command: its words; it must end well.
        folder: files elsewhere are not looked at; or one file.
        limit_s: of wall time.

    Raises:
        ExecutionError: it fails, or runs no function of the folder.
    """
    place = folder.resolve()
    with tempfile.TemporaryDirectory(prefix="sharpen-improve-") as made:
        variables = {"SHARPEN_IMPROVE_PROFILE": "1", "SHARPEN_IMPROVE_OUT": made}
        paths = [str(place if place.is_dir() else place.parent)]
        passed, output = run_command(command, Path(made), variables, paths, limit_s)
        if not passed:
            raise ExecutionError(f"{' '.join(command)} fails, so there is no profile.\n{output}")
        times: dict[tuple[str, int], tuple[int, float]] = {}
        total = 0.0
        for path in Path(made).glob("profile-*"):
            for (file, line, _), row in marshal.loads(path.read_bytes()).items():
                calls, seconds = times.get((file, line), (0, 0.0))
                times[file, line] = calls + row[1], seconds + row[2]
                total += row[2]
    found = list(_located(times, place, total))
    if not found:
        raise ExecutionError(f"{' '.join(command)} runs no function of {folder}.")
    return sorted(found, key=lambda one: one.seconds, reverse=True)


def _located(
    times: dict[tuple[str, int], tuple[int, float]], place: Path, total: float
) -> Iterator[Hot]:
    """Lines of a profile as functions of files below a folder."""
    by_file: dict[Path, dict[int, tuple[int, float]]] = {}
    for (name, line), row in times.items():
        file = Path(os.path.realpath(name))
        if file == place or file.is_relative_to(place):
            by_file.setdefault(file, {})[line] = row
    for file, rows in by_file.items():
        try:
            tree = parsed(read_source(file), file)
        except UserError:
            continue
        functions = functions_of(tree)
        found: dict[str, tuple[int, float]] = {}
        for line, (calls, seconds) in rows.items():
            entry = _around(functions, line)
            if entry is None:
                continue
            before = found.get(entry, (0, 0.0))
            begins = _first_line(functions[entry][0]) == line
            found[entry] = before[0] + calls * begins, before[1] + seconds
        for entry, (calls, seconds) in found.items():
            share = seconds / total if total else 0.0
            yield Hot(file=file, entry=entry, calls=calls, seconds=seconds, share=share)


def _first_line(node: Function) -> int:
    return min([node.lineno, *(one.lineno for one in node.decorator_list)])


def _around(functions: Mapping[str, tuple[Function, object]], line: int) -> str | None:
    """The function that a line is in; comprehensions and functions within count for it."""
    for entry, (node, _) in functions.items():
        if _first_line(node) <= line <= (node.end_lineno or node.lineno):
            return entry
    return None


def improve_hot(
    hot: list[Hot],
    *,
    command: list[str],
    tests: str | None,
    config: ImproveConfig,
    lm: Any = None,
    out: Path | None = None,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Improve functions one after another; one that is refused does not stop the others.

    Args:
        hot: the functions.
        command: what their inputs are recorded from.
        tests: the user's tests; the command is one without them.
        config: settings of each.
        lm: a language model that may propose.
        out: a folder, with one in it for each function.
        say: called with a line at each step.
    """
    found = []
    for one in hot:
        say(f"{one.file.name}:{one.entry}: {one.share:.0%} of the time, {one.calls:,} calls")
        place = None if out is None else out / f"{one.file.stem}.{one.entry}"
        try:
            result = improve(
                one.file,
                one.entry,
                tests=tests or _joined(command),
                lm=lm,
                out=place,
                config=config,
                say=say,
            )
        except SharpenError as error:
            say(f"not tried: {error}")
            found.append(Outcome(hot=one, result=None, error=str(error)))
            continue
        say(result.summary())
        found.append(Outcome(hot=one, result=result))
    return found


def _joined(command: list[str]) -> str:
    return shlex.join(command)
