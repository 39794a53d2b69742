"""PIE: how much faster edits of programs are, and whether they are still right.

Shypula et al., *Learning Performance-Improving Code Edits*, ICLR 2024 (arXiv 2302.07867). Rows of
the data and of generations keep the names of the authors' evaluators, so that their files work:
version 1 (``input``, ``target``, ``submission_id_v0``) and version 2 (``src_code``, ``tgt_code``,
``src_id``, ``tests``). Tests are ``DIR/<problem_id>/input.N.txt`` and ``output.N.txt``.

A generation that is wrong on one test takes for ever: its speed-up is 1. ``best@k`` is the fastest
of the first k. Times of the data are not believed: all programs are timed anew.

Differs from the authors' evaluators: processor time in sandboxes in place of the wall clock or a
simulator; the time of a program is the mean over tests of the median over runs; a slow program that
takes too long counts with the limit, from which on its time is not known, in place of infinity; the
geometric mean and the median stand beside the mean.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sharpen.code.evaluate.stdin_programs import (
    LANGUAGES,
    Language,
    build,
    new_pool,
    run_program,
)
from sharpen.code.metrics import best_at_k, summarize
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_json
from sharpen.core.sandbox import SandboxPool
from sharpen.core.sandbox.job import Clock

__all__ = ["PieConfig", "load_pie", "pie_eval"]

_COLUMNS = {
    "v1": ("submission_id_v0", "input", "target"),
    "v2": ("src_id", "src_code", "tgt_code"),
}
_INPUT = re.compile(r"input\.(\d+)\.txt")


@dataclass(frozen=True, kw_only=True, slots=True)
class PieConfig:
    """Settings; names are those of the authors' configuration."""

    language: Language = "python"
    num_trials: int = 25
    """Runs of a program on each test."""

    ignore_first_k: int = 1
    """Of them, that do not count."""

    max_time_per_run: float = 10.0
    """Processor time, seconds."""

    model_generated_potentially_faster_code_col: str = "generated_answers"
    """The column of the generations: a text, or a list of them."""

    k: tuple[int, ...] = (1,)
    """Of best@k."""

    clock: Clock = "cpu"
    """``cpu``, or for Python ``opcodes``, for which one run is enough."""

    cflags: tuple[str, ...] = ("-O3", "-std=c++17")
    """Of g++."""

    jobs: int = 1
    """Programs at a time."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ConfigError(f"language='{self.language}' must be python or cpp.")
        if not 0 <= self.ignore_first_k < self.num_trials:
            raise ConfigError(
                f"ignore_first_k={self.ignore_first_k} must be below num_trials={self.num_trials}."
            )
        if not self.k or any(k < 1 for k in self.k):
            raise ConfigError(f"k={self.k} must be numbers from 1.")


def load_pie(path: str | Path, version: Literal["v1", "v2"] = "v1") -> list[dict[str, Any]]:
    """Rows of a JSONL file of PIE.

    Args:
        path: of the file.
        version: of the data set, which tells the names of its columns.

    Raises:
        ConfigError: another version.
        MissingFileError: there is no such file.
        FileFormatError: a row lacks a column.
    """
    if version not in _COLUMNS:
        raise ConfigError(f"version='{version}' must be v1 or v2.")
    rows = _rows(Path(path))
    for number, row in enumerate(rows, 1):
        for name in ("problem_id", *_COLUMNS[version]):
            if not isinstance(row.get(name), str):
                raise FileFormatError(f"{path}:{number}: the text {name!r} is missing ({version}).")
    return rows


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is no text in UTF-8: {error}.") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FileFormatError(f"{path}:{number}: no JSON: {error}.") from None
        if not isinstance(row, dict):
            raise FileFormatError(f"{path}:{number}: an object is needed.")
        rows.append(row)
    if not rows:
        raise FileFormatError(f"{path} holds no rows.")
    return rows


def _version(row: Mapping[str, Any]) -> Literal["v1", "v2"]:
    return "v2" if "src_code" in row else "v1"


def pie_eval(
    generations: str | Path,
    reference: str | Path,
    tests_dir: str | Path,
    config: PieConfig | None = None,
    *,
    out: str | Path | None = None,
    on_program: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Time slow programs, their references and generations.

    Args:
        generations: JSONL; rows are joined with the reference's by the slow program, or its id.
            Rows of the reference without generations count as unchanged.
        reference: JSONL of PIE, version 1 or 2.
        tests_dir: of tests.
        config: settings.
        out: where the report goes.
        on_program: called with the id of each row that is done.

    Returns:
        ``metrics``, by k and of the references, and ``rows`` with the columns ``input_time_mean``,
        ``reference_acc``, ``generated_answers_0_time_mean``, ``speedup_best@1`` ...

    Raises:
        FileFormatError: a file is damaged, or a problem has no tests.
        MissingFileError: a file is missing.
        SandboxUnavailable: this machine has no sandbox.
    """
    config = config or PieConfig()
    first = _rows(Path(reference))[0]
    version = _version(first)
    rows = load_pie(reference, version)
    given = _generations(_rows(Path(generations)), rows, version, config, str(generations))
    tests = {row["problem_id"]: _tests(Path(tests_dir) / row["problem_id"]) for row in rows}
    with new_pool(config.jobs) as pool, ThreadPoolExecutor(config.jobs) as executor:

        def one(row: dict[str, Any], answers: list[str]) -> dict[str, Any]:
            found = _evaluate_row(row, answers, tests[row["problem_id"]], version, config, pool)
            if on_program is not None:
                on_program(row[_COLUMNS[version][0]])
            return found

        found = list(executor.map(one, rows, given))
    report = {
        "format": 1,
        "metrics": _metrics(found, config),
        "config": asdict(config),
        "rows": found,
    }
    if out is not None:
        atomic_write_json(Path(out), report)
    return report


def _generations(
    rows: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    version: Literal["v1", "v2"],
    config: PieConfig,
    where: str,
) -> list[list[str]]:
    """For each row of the reference, its generations."""
    identity, slow, _ = _COLUMNS[version]
    column = config.model_generated_potentially_faster_code_col
    by_id: dict[str, list[str]] = {}
    by_code: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 1):
        answers = row.get(column)
        answers = [answers] if isinstance(answers, str) else answers
        if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
            raise FileFormatError(f"{where}, row {number}: {column!r} must be a text or a list.")
        if isinstance(row.get(identity), str):
            by_id[row[identity]] = answers
        elif isinstance(row.get(slow), str):
            by_code[row[slow].strip()] = answers
        else:
            raise FileFormatError(f"{where}, row {number}: {identity!r} or {slow!r} is missing.")
    found = [by_id.get(r[identity], by_code.get(r[slow].strip(), [])) for r in reference]
    if not any(found):
        raise DataError(f"{where} has no generation for any program of the reference.")
    return found


def _tests(folder: Path) -> dict[int, tuple[bytes, bytes]]:
    """By number, what is read and what should be written."""
    found = {}
    for path in sorted(folder.glob("input.*.txt")) if folder.is_dir() else ():
        matched = _INPUT.fullmatch(path.name)
        target = path.with_name(path.name.replace("input", "output"))
        if matched and target.is_file():
            found[int(matched[1])] = path.read_bytes(), target.read_bytes()
    if not found:
        raise MissingFileError(f"{folder} has no tests: input.N.txt with output.N.txt.")
    return dict(sorted(found.items()))


def _evaluate_row(
    row: dict[str, Any],
    answers: Sequence[str],
    tests: Mapping[int, tuple[bytes, bytes]],
    version: Literal["v1", "v2"],
    config: PieConfig,
    pool: SandboxPool,
) -> dict[str, Any]:
    identity, slow, fast = _COLUMNS[version]
    chosen = row.get("tests")
    numbers = [n for n in chosen if n in tests] if isinstance(chosen, list) else list(tests)
    cases = [tests[n] for n in numbers or tests]
    column = config.model_generated_potentially_faster_code_col
    found: dict[str, Any] = {identity: row[identity], "problem_id": row["problem_id"]}
    tags = {"input": row[slow], "reference": row[fast]}
    tags |= {f"{column}_{i}": answer for i, answer in enumerate(answers)}
    for tag, source in tags.items():
        figures = _figures(source, cases, config, pool)
        found |= {f"{tag}_{name}": value for name, value in figures.items()}
    old = found["input_time_mean"]
    for k in config.k:
        new = [
            found[f"{column}_{i}_time_mean"] if found[f"{column}_{i}_acc"] == 1.0 else None
            for i in range(len(answers))
        ]
        best = best_at_k(new, k)
        found[f"is_correct_best@{k}"] = best < float("inf")
        found[f"speedup_best@{k}"] = max(1.0, old / best) if old is not None else 1.0
        found[f"agg_runtime_best@{k}"] = None if best == float("inf") else best
    return found


def _figures(
    source: str, cases: Sequence[tuple[bytes, bytes]], config: PieConfig, pool: SandboxPool
) -> dict[str, Any]:
    """``time_mean``, ``time_std``, ``acc`` of a program, ``tle`` and ``why`` it failed."""
    inputs, expected = [given for given, _ in cases], [_lines(said) for _, said in cases]
    nothing = {"time_mean": None, "time_std": None, "acc": 0.0, "tle": False}
    try:
        program = build(source, config.language, pool, config.cflags)
    except ValueError as error:
        return {**nothing, "why": f"it does not compile: {error}"}
    runs: list[tuple[float, ...]] = []
    trials = 1 if config.clock == "opcodes" else config.num_trials
    for _ in range(trials):
        outcome = run_program(
            program, inputs, pool, clock=config.clock, limit_s=config.max_time_per_run
        )
        right = sum(
            _lines(said) == wanted for said, wanted in zip(outcome.outputs, expected, strict=False)
        )
        accuracy = right / len(cases)
        if accuracy < 1:
            why = outcome.why or "wrong output"
            late = config.max_time_per_run if outcome.late else None
            return {**nothing, "time_mean": late, "acc": accuracy, "tle": outcome.late, "why": why}
        runs.append(outcome.times)
    kept = runs[config.ignore_first_k :] or runs
    return {
        "time_mean": statistics.fmean(statistics.median(t) for t in zip(*kept, strict=True)),
        "time_std": statistics.pstdev(statistics.fmean(run) for run in kept),
        "acc": 1.0,
        "tle": False,
        "why": "",
    }


def _lines(said: bytes) -> list[bytes]:
    """What counts of an output: its lines without space at their ends."""
    return [line.strip() for line in said.strip().splitlines()]


def _metrics(rows: Sequence[Mapping[str, Any]], config: PieConfig) -> dict[str, Any]:
    """Over all rows whose slow program could be timed, or is known to take the limit at least."""
    timed = [row for row in rows if row["input_time_mean"] is not None]
    if not timed:
        raise DataError("no slow program runs: are the language and the tests those of the data?")
    old = [row["input_time_mean"] for row in timed]

    def summary(new: Sequence[float | None]) -> dict[str, Any]:
        found = summarize(old, [float("inf") if t is None else t for t in new])
        return {**asdict(found), "shares": {str(k): v for k, v in found.shares.items()}}

    best = {f"best@{k}": summary([r[f"agg_runtime_best@{k}"] for r in timed]) for k in config.k}
    target = [r["reference_time_mean"] if r["reference_acc"] == 1.0 else None for r in timed]
    return {
        **best,
        "reference": summary(target),
        "stopped": sum(bool(row["input_tle"]) for row in timed),
        "left_out": len(rows) - len(timed),
    }
