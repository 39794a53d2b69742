"""How much faster a model's programs are, as PIE judges them.

Shypula et al., *Learning Performance-Improving Code Edits*, ICLR 2024 (arXiv 2302.07867)::

    speed-up   = max(1, time of the slow program / time of the model's); a wrong one takes for ever
    best@k     = the least time of the first k that are right
    %Opt       = share with a speed-up of at least 1.1
    %Correct   = share with a right program among the first k

A program is right if each test prints what is expected, line by line, numbers within 1e-3. Differs
from the released evaluators: all programs of a row are timed in turns, by processor time; times
stored with the rows are not used; a slow program that is stopped took at least so long, and its
row is counted among ``censored``; the geometric mean and the median stand beside the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

import numpy as np

from sharpen.code.evaluate.journal import Journal
from sharpen.code.metrics import best_at_k, summarize
from sharpen.code.pie.programs import Built, Programs, Run
from sharpen.code.pie.rows import COLUMNS, PieRow, Version, load_pie, read_lines, read_tests
from sharpen.core.config import digest
from sharpen.core.errors import ConfigError, FileFormatError
from sharpen.core.files import atomic_write_json

__all__ = ["PieConfig", "accuracy", "pie_eval"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PieConfig:
    """Settings; the names are those of the released evaluator."""

    version: Version = "v1"
    clock: Literal["cpu", "wall"] = "cpu"
    num_trials: int = 5
    """Runs of each program."""

    ignore_first_k: int = 1
    """Runs of each that are not counted."""

    max_time_per_run: float = 10.0
    """Seconds of a test, after which a program is stopped."""

    model_generated_potentially_faster_code_col: str = "generated_answers"
    """The column of the model's programs: a text, or a list of them."""

    cflags: tuple[str, ...] = ("-O3", "-std=c++17")
    memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.num_trials < 1 or not 0 <= self.ignore_first_k < self.num_trials:
            raise ConfigError(
                f"ignore_first_k={self.ignore_first_k} must be below num_trials={self.num_trials}."
            )
        if self.clock not in ("cpu", "wall"):
            raise ConfigError(f"clock={self.clock!r} must be cpu or wall.")


def accuracy(printed: str, expected: str) -> float:
    """Share of the expected lines that were printed at their place; numbers within 1e-3.

    More lines than expected are no fault, as in the released evaluator.
    """
    wanted = expected.strip().splitlines()
    if not wanted:
        return float(not printed.strip())
    got = printed.strip().splitlines()
    return sum(map(_same_line, got, wanted)) / len(wanted)


def _same_line(got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    try:
        return abs(float(got) - float(wanted)) < 1e-3
    except ValueError:
        return False


def pie_eval(
    generations: str | Path,
    reference: str | Path | None,
    tests: str | Path,
    config: PieConfig | None = None,
    *,
    out: str | Path | None = None,
    limit: int | None = None,
    on_row: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run a model's programs against the slow ones and their authors' faster ones.

    Args:
        generations: JSONL: rows with the slow program and the column of the model's programs.
        reference: JSONL of PIE's rows, which are joined by the slow program; None where the rows of
            ``generations`` have all columns.
        tests: the folder with a folder for each problem.
        config: settings.
        out: a JSON file for the report; an evaluation that was ended goes on.
        limit: the first rows only.
        on_row: called with the name of each row that is done.

    Returns:
        ``rows`` with the released evaluator's columns (``*_time_mean`` and ``*_time_std`` in
        milliseconds, ``*_acc``) and ``metrics`` by name, such as ``mean_speedup_best@1``,
        ``is_correct_best@1``, ``percent_programs_speedup_best@1>=speedup_threshold_1.1``,
        ``geometric_mean_speedup_best@1``.

    Raises:
        FileFormatError: a file is damaged, or nothing fits together.
        MissingFileError: a file or a test is not there.
        SandboxUnavailable: this machine has no sandbox.
    """
    config = config or PieConfig()
    pairs = _joined(Path(generations), reference, config)[:limit]
    checked = [(row, made, read_tests(tests, row)) for row, made in pairs]
    target = None if out is None else Path(out)
    journal = Journal(None if target is None else target.with_name(target.name + ".journal"))
    found: list[dict[str, Any]] = []
    try:
        with Programs(
            limit_s=config.max_time_per_run,
            memory_bytes=config.memory_bytes,
            flags=config.cflags,
        ) as programs:
            for row, made, cases in checked:
                key = digest([dict(row.columns), list(made), cases, asdict(config)])
                known = journal.get(key)
                if known is None:
                    known = _row(row, made, cases, config, programs)
                    journal.add(key, known)
                found.append(known)
                if on_row is not None:
                    on_row(row.name)
    except BaseException:
        journal.close(done=False)
        raise
    report = {
        "format": 1,
        "config": asdict(config),
        "metrics": _metrics(found, max(len(made) for _, made in pairs)),
        "rows": found,
    }
    if target is not None:
        atomic_write_json(target, report)
    journal.close(done=True)
    return report


def _joined(
    generations: Path, reference: str | Path | None, config: PieConfig
) -> list[tuple[PieRow, list[str]]]:
    """Rows with the model's programs."""
    _, slow, _ = COLUMNS[config.version]
    column = config.model_generated_potentially_faster_code_col
    made: dict[str, list[str]] = {}
    for number, row in read_lines(generations):
        programs = row.get(column, row.get(column.removesuffix("s")))
        programs = [programs] if isinstance(programs, str) else programs
        if not isinstance(programs, list) or not all(
            one is None or isinstance(one, str) for one in programs
        ):
            raise FileFormatError(f"{generations}:{number}: {column!r} must be programs.")
        if not isinstance(row.get(slow), str):
            raise FileFormatError(f"{generations}:{number}: the slow program {slow!r} is missing.")
        made[row[slow].strip()] = [one or "" for one in programs]
    rows = load_pie(generations if reference is None else reference, config.version)
    found = [
        (row, made[row.slow.strip()])
        for row in rows
        if row.slow.strip() in made and row.slow != row.fast
    ]
    if not found:
        raise FileFormatError(f"no slow program of {generations} is in {reference or generations}.")
    return found


def _row(
    row: PieRow,
    made: Sequence[str],
    cases: Sequence[tuple[str, str]],
    config: PieConfig,
    programs: Programs,
) -> dict[str, Any]:
    """Columns of a row."""
    column = config.model_generated_potentially_faster_code_col
    tags = {"input": row.slow, "reference": row.fast}
    tags |= {f"{column}_{i}": program for i, program in enumerate(made)}
    built = {
        tag: programs.build(program, row.language) if program.strip() else Built(b"", True, "empty")
        for tag, program in tags.items()
    }
    texts, expected = [given for given, _ in cases], [wanted for _, wanted in cases]
    runs: dict[str, list[Run]] = {tag: [] for tag in tags}
    open_tags = list(tags)
    for trial in range(config.num_trials):
        for tag in list(open_tags) if trial % 2 == 0 else list(reversed(open_tags)):
            run = programs.run(built[tag], texts)
            runs[tag].append(run)
            if len(run.outputs) < len(texts) or _accuracy(run, expected) < 1:
                open_tags.remove(tag)
    found: dict[str, Any] = {"name": row.name, "problem_id": row.problem}
    for tag in tags:
        found |= _columns(tag, runs[tag], expected, config)
    return found


def _accuracy(run: Run, expected: Sequence[str]) -> float:
    """Mean over the tests; those that were not reached count as wrong."""
    shares = [accuracy(got, wanted) for got, wanted in zip(run.outputs, expected, strict=False)]
    return sum(shares) / len(expected)


def _columns(
    tag: str, runs: Sequence[Run], expected: Sequence[str], config: PieConfig
) -> dict[str, Any]:
    share = min(_accuracy(run, expected) for run in runs)
    found: dict[str, Any] = {f"{tag}_acc": share, f"{tag}_time_mean": None, f"{tag}_time_std": None}
    why = next((run.why for run in runs if run.why), "" if share == 1 else "wrong output")
    marks = next((run.suspicious for run in runs if run.suspicious), "")
    found |= {f"{tag}_why": why, f"{tag}_suspicious": marks, f"{tag}_agg_runtime": None}
    if runs[-1].is_late:
        # It took this long at least.
        spent = config.max_time_per_run + sum(_times(runs[-1], config))
        return {**found, f"{tag}_agg_runtime": spent, f"{tag}_censored": True}
    counted = runs[config.ignore_first_k :]
    if share == 1 and counted and not marks:
        times = np.array([_times(run, config) for run in counted])
        milliseconds = (1e3 * times).ravel().tolist()
        found[f"{tag}_time_mean"] = fmean(milliseconds)
        found[f"{tag}_time_std"] = pstdev(milliseconds)
        found[f"{tag}_agg_runtime"] = float(np.median(times, axis=0).sum())
    return found


def _times(run: Run, config: PieConfig) -> list[float]:
    return run.cpu_s if config.clock == "cpu" else run.wall_s


def _metrics(rows: Sequence[Mapping[str, Any]], most: int) -> dict[str, Any]:
    """Over the rows whose slow program is right, or took too long."""
    kept = [row for row in rows if row["input_agg_runtime"] is not None]
    found: dict[str, Any] = {
        "rows": len(rows),
        "slow_program_wrong": len(rows) - len(kept),
        "censored": sum(bool(row.get("input_censored")) for row in kept),
        "suspicious": sum(bool(v) for row in rows for k, v in row.items() if "_suspicious" in k),
    }
    if not kept:
        return found
    old = [row["input_agg_runtime"] for row in kept]
    times = [_times_of(row) for row in kept]
    shares = [_shares_of(row) for row in kept]
    for k in sorted({1, 2, 4, 8, 16, 32, 64, most}):
        if k > most:
            break
        summary = summarize(old, [best_at_k(some, k) for some in times])
        found[f"mean_accuracy_best@{k}"] = fmean(max(some[:k], default=0.0) for some in shares)
        found[f"is_correct_best@{k}"] = summary.correct
        found[f"mean_speedup_best@{k}"] = summary.mean
        found[f"geometric_mean_speedup_best@{k}"] = summary.geometric_mean
        found[f"median_speedup_best@{k}"] = summary.median
        for threshold, share in summary.shares.items():
            found[f"percent_programs_speedup_best@{k}>=speedup_threshold_{threshold}"] = share
    authors = [_right(row, "reference") or float("inf") for row in kept]
    found["mean_speedup_tgt_over_src"] = summarize(old, authors).mean
    return found


def _right(row: Mapping[str, Any], tag: str) -> float | None:
    """The time of a program that is right."""
    late = row.get(f"{tag}_censored")
    seconds: float | None = None if late or row[f"{tag}_acc"] < 1 else row[f"{tag}_agg_runtime"]
    return seconds


def _generated(row: Mapping[str, Any]) -> list[str]:
    tags = [k.removesuffix("_acc") for k in row if k.endswith("_acc")]
    return [tag for tag in tags if tag not in ("input", "reference")]


def _times_of(row: Mapping[str, Any]) -> list[float | None]:
    return [_right(row, tag) for tag in _generated(row)]


def _shares_of(row: Mapping[str, Any]) -> list[float]:
    return [row[f"{tag}_acc"] for tag in _generated(row)]
