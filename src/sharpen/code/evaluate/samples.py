"""Programs to evaluate, from files in the formats of ENAMEL and HumanEval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.code.problems import Problem
from sharpen.code.problems.humaneval import load_humaneval
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError

__all__ = ["Samples", "read_samples"]

Samples = dict[str, list[str]]
"""By the problem's name, whole programs."""


def read_samples(given: str | Path, problems: Sequence[Problem], *, some: bool = False) -> Samples:
    """Programs for each problem.

    Args:
        given: ``reference``, the problems' own; ``canonical``, their slow ones, HumanEval's for
            ENAMEL; or a file: JSON, ``{"0": ["code", ...]}`` by number or name of the problem or a
            list by number, in which code goes on where the prompt ends or has the whole function;
            or JSONL, ``{"task_id": ..., "completion" | "solution": ...}``, in which a completion
            goes on where the prompt ends and a solution stands alone.
        problems: those that are evaluated.
        some: leave out problems without samples, which are an error else.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: it is damaged, or a problem has no samples.
    """
    if given == "reference":
        return {p.name: [p.reference] for p in problems}
    if given == "canonical":
        return _canonical(problems)
    path = Path(given)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(
            f"there is no file {path} of samples; or say reference or canonical."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is no text in UTF-8: {error}.") from None
    read = _lines if path.suffix == ".jsonl" else _document
    found = read(path, text, problems)
    missing = [p.name for p in problems if not found.get(p.name)]
    if missing and (not some or len(missing) == len(problems)):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileFormatError(
            f"{path} has no samples for the problem {missing[0]}{more}. Add them, or evaluate"
            " only those that have some with --some (some=True)."
        )
    return {p.name: found[p.name] for p in problems if found.get(p.name)}


def _canonical(problems: Sequence[Problem]) -> Samples:
    if all(p.name.startswith("HumanEval/") for p in problems):
        known = {p.name: p.reference for p in load_humaneval()}
        return {p.name: [known[p.name]] for p in problems}
    if not any(p.slow for p in problems):
        raise ConfigError("these problems have no canonical, slow solutions: give --samples FILE.")
    return {p.name: [p.slow or p.reference] for p in problems}


def _names(problems: Sequence[Problem]) -> dict[str, Problem]:
    """Problems by all that they are called."""
    found = {p.name: p for p in problems}
    for problem in problems:
        found.setdefault(problem.name.rpartition("/")[2], problem)
    return found


def _document(path: Path, text: str, problems: Sequence[Problem]) -> Samples:
    try:
        value: Any = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FileFormatError(f"{path} is no JSON: {error}.") from None
    if isinstance(value, list):
        value = {str(i): codes for i, codes in enumerate(value)}
    if not isinstance(value, Mapping):
        raise FileFormatError(f"{path}: an object or a list of lists of programs is needed.")
    names = _names(problems)
    found: Samples = {}
    for key, codes in value.items():
        if isinstance(codes, str):
            codes = [codes]
        if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
            raise FileFormatError(f"{path}: the samples of {key!r} must be a list of programs.")
        problem = names.get(key)
        if problem is not None:
            found[problem.name] = [f"{problem.prompt}\n{code}" for code in codes]
    return found


def _lines(path: Path, text: str, problems: Sequence[Problem]) -> Samples:
    names = _names(problems)
    found: Samples = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FileFormatError(f"{where}: no JSON: {error}.") from None
        if not isinstance(row, dict) or not isinstance(row.get("task_id"), (str, int)):
            raise FileFormatError(f"{where}: an object with task_id is needed.")
        problem = names.get(str(row["task_id"]))
        completion, solution = row.get("completion"), row.get("solution")
        if not isinstance(completion if solution is None else solution, str):
            raise FileFormatError(f"{where}: a completion or a solution, a text, is needed.")
        if problem is not None:
            program = solution if solution is not None else f"{problem.prompt}{completion}"
            found.setdefault(problem.name, []).append(program)
    return found
