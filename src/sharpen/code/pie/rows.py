"""PIE's rows and tests, of both versions.

Shypula et al., *Learning Performance-Improving Code Edits*, ICLR 2024 (arXiv 2302.07867). Rows are
JSONL; tests lie in a folder a problem, ``input.N.txt`` beside ``output.N.txt``. Times that are
stored with the rows are of another machine and are not used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError

__all__ = ["COLUMNS", "Language", "PieRow", "Version", "load_pie", "read_lines", "read_tests"]

Version = Literal["v1", "v2"]
Language = Literal["python", "cpp"]

COLUMNS: dict[Version, tuple[str, str, str]] = {
    "v1": ("submission_id_v0", "input", "target"),
    "v2": ("src_id", "src_code", "tgt_code"),
}
"""By version, the columns of a row's name, its slow and its fast program."""

_LANGUAGES: dict[str, Language] = {
    "python": "python",
    "python3": "python",
    "py": "python",
    "cpp": "cpp",
    "c++": "cpp",
}
_TEST = re.compile(r"input\.(\d+)\.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class PieRow:
    """A slow program and a faster one by the same author."""

    name: str
    """Of the slow submission."""

    problem: str
    slow: str
    fast: str
    language: Language
    tests: tuple[int, ...] = ()
    """Numbers of the tests to use; all where there are none."""

    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole row."""


def load_pie(
    path: str | Path, version: Version = "v1", *, language: Language | None = None
) -> list[PieRow]:
    """The pairs of a file.

    Args:
        path: JSONL.
        version: which columns; the second version is C++ alone.
        language: of rows that name none; C++ in the second version.

    Raises:
        ConfigError: another version.
        MissingFileError: there is no such file.
        FileFormatError: a row lacks a column, or is of another language.
    """
    if version not in get_args(Version):
        raise ConfigError(f"version={version!r} must be v1 or v2.")
    name, slow, fast = COLUMNS[version]
    default = language or ("cpp" if version == "v2" else "python")
    found = []
    for number, row in read_lines(Path(path)):
        where = f"{path}:{number}"
        missing = [key for key in (slow, fast, "problem_id") if not isinstance(row.get(key), str)]
        if missing:
            raise FileFormatError(f"{where}: a row of {version} needs the text {missing[0]!r}.")
        said = str(row.get("language", default)).lower()
        if said not in _LANGUAGES:
            raise FileFormatError(f"{where}: language {said!r}; python and cpp can be run.")
        found.append(
            PieRow(
                name=str(row.get(name, number)),
                problem=row["problem_id"],
                slow=row[slow],
                fast=row[fast],
                language=_LANGUAGES[said],
                tests=_numbers(row.get("tests"), where),
                columns=row,
            )
        )
    if not found:
        raise FileFormatError(f"{path} has no rows.")
    return found


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a JSONL file.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: a line is no JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is no text in UTF-8: {error}.") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FileFormatError(f"{path}:{number}: no JSON: {error}.") from None
        if not isinstance(row, dict):
            raise FileFormatError(f"{path}:{number}: an object is needed.")
        found.append((number, row))
    return found


def _numbers(value: Any, where: str) -> tuple[int, ...]:
    if value is None:
        return ()
    if isinstance(value, str):  # as tables store lists
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = [value]
    try:
        return tuple(int(one) for one in value)
    except (TypeError, ValueError):
        raise FileFormatError(f"{where}: tests must be a list of numbers.") from None


def read_tests(folder: str | Path, row: PieRow) -> list[tuple[str, str]]:
    """What programs of a row read, and what they should print.

    Args:
        folder: with a folder for each problem.
        row: of the problem; its ``tests`` choose some.

    Raises:
        MissingFileError: there are none, or one is missing.
        FileFormatError: one is no text.
    """
    place = Path(folder) / row.problem
    there = sorted(
        int(match[1]) for path in place.glob("input.*.txt") if (match := _TEST.match(path.name))
    )
    numbers = list(row.tests) or there
    if not numbers:
        raise MissingFileError(f"{place} has no tests input.N.txt with output.N.txt.")
    found = []
    for number in numbers:
        pair = [place / f"{kind}.{number}.txt" for kind in ("input", "output")]
        try:
            given, expected = (path.read_text(encoding="utf-8") for path in pair)
        except FileNotFoundError as error:
            raise MissingFileError(f"there is no test {error.filename}.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(f"a test in {place} is no text in UTF-8: {error}.") from None
        found.append((given, expected))
    return found
