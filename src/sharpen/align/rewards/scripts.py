"""Programs that read standard input and print, as PIE's: right on all tests, and how fast.

A row says in its keys what a program reads and should print, and what it is compared with::

    stdin       [[input, output], ...]
    reference   a right program; its time is the measure (PIE: the slow program)
    language    python (the default) or cpp

Both programs are run in turns, each test in a process of its own, by processor time; the start of
the interpreter is part of it, as whenever anybody runs a program.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from sharpen.align.rewards.verdict import JudgeConfig, Verdict, code_in, compiles
from sharpen.code.pie import Programs, load_pie, read_tests
from sharpen.code.pie.evaluation import accuracy
from sharpen.code.pie.programs import Built, Run
from sharpen.code.pie.rows import Version
from sharpen.code.training_data import prompt_instruct
from sharpen.core.errors import ConfigError, DataError, ExecutionError

__all__ = ["ScriptJudge", "pie_rows"]


def pie_rows(
    path: str | Path, tests: str | Path, *, version: Version = "v1", limit: int | None = None
) -> list[dict[str, Any]]:
    """PIE's pairs as rows of :mod:`sharpen.align.rows`: slow to fast, with tests.

    Args:
        path: PIE's JSONL.
        tests: the folder with a folder for each problem.
        version: of PIE.
        limit: the first rows only.

    Returns:
        Rows with ``prompt``, ``completion`` (the fast program) and the keys of the module.

    Raises:
        MissingFileError: a file or a test is not there.
        FileFormatError: a row is damaged.
    """
    return [
        {
            "prompt": prompt_instruct(row.slow, language=row.language),
            "completion": f"{row.fast.rstrip()}\n```",
            "stdin": [list(one) for one in read_tests(tests, row)],
            "reference": row.slow,
            "language": row.language,
            "problem_id": row.problem,
        }
        for row in load_pie(path, version)[:limit]
    ]


class ScriptJudge:
    """Runs such programs; its sandbox is made when first used, and belongs to its process."""

    def __init__(self, config: JudgeConfig) -> None:
        if config.clock == "opcodes":
            raise ConfigError(
                "clock='opcodes' counts calls of functions; scripts need cpu or none."
            )
        self.config = config
        self._programs: dict[int, Programs] = {}

    def judge(self, reply: str, meta: Mapping[str, Any]) -> Verdict:
        """Run the program of a reply on the row's tests.

        Raises:
            DataError: the row does not say how to judge.
            ExecutionError: its reference fails.
        """
        tests, language = _tests(meta), meta.get("language", "python")
        if language not in ("python", "cpp"):
            raise DataError(f"'language' must be python or cpp, got {language!r:.60}.")
        program = code_in(reply)
        if not program.strip() or (language == "python" and not compiles(program)):
            return Verdict(outcome="compile", why="no program that parses")
        programs = self._own()
        try:
            built = programs.build(program, language)
            if built.error:
                return Verdict(outcome="compile", why=built.error)
            first = programs.run(built, [given for given, _ in tests])
        except ExecutionError as error:
            return Verdict(outcome="infra", why=str(error))
        found = _outcome(first, tests)
        reference = meta.get("reference")
        if found.outcome != "correct" or reference is None or self.config.clock == "none":
            return found
        return self._timed(built, programs.build(reference, language), tests, found)

    def close(self) -> None:
        """End its sandbox."""
        for owner, programs in self._programs.items():
            if owner == os.getpid():
                programs.close()
        self._programs.clear()

    def __reduce__(self) -> Any:
        return ScriptJudge, (self.config,)

    def _own(self) -> Programs:
        if os.getpid() not in self._programs:
            self._programs[os.getpid()] = Programs(
                limit_s=self.config.cpu_s, memory_bytes=self.config.memory_bytes
            )
        return self._programs[os.getpid()]

    def _timed(
        self, built: Built, reference: Built, tests: list[tuple[str, str]], found: Verdict
    ) -> Verdict:
        programs, texts = self._own(), [given for given, _ in tests]
        ratios = []
        for pair in range(self.config.repeats):
            runs: dict[str, Run] = {}
            for name in ("theirs", "ours") if pair % 2 else ("ours", "theirs"):
                runs[name] = programs.run(reference if name == "ours" else built, texts)
            if len(runs["ours"].outputs) < len(texts) and not runs["ours"].is_late:
                raise ExecutionError(f"the reference of a row fails: {runs['ours'].why}")
            ended = _outcome(runs["theirs"], tests)
            if ended.outcome != "correct":
                return ended
            ours = sum(runs["ours"].cpu_s) + self.config.cpu_s * runs["ours"].is_late
            ratios.append(math.log(ours / sum(runs["theirs"].cpu_s)))
        ratio = median(ratios)
        ratio = 0.0 if abs(ratio) < self.config.dead_zone else ratio
        return Verdict(outcome="correct", log_ratio=ratio, passed=found.passed)


def _tests(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    tests = meta.get("stdin")
    if not isinstance(tests, (list, tuple)) or not tests:
        raise DataError("'stdin' must be a list of [input, output].")
    found = []
    for one in tests:
        if not isinstance(one, (list, tuple)) or [type(part) for part in one] != [str, str]:
            raise DataError(f"'stdin' must be a list of [input, output], got {one!r:.60} in it.")
        found.append((one[0], one[1]))
    return found


def _outcome(run: Run, tests: list[tuple[str, str]]) -> Verdict:
    rights = [
        accuracy(got, wanted) == 1.0 for got, (_, wanted) in zip(run.outputs, tests, strict=False)
    ]
    passed = sum(rights) / len(tests)
    if run.suspicious:
        return Verdict(outcome="violation", passed=passed, why=run.suspicious)
    if run.is_late:
        return Verdict(outcome="timeout", passed=passed, why=run.why)
    if len(run.outputs) < len(tests):
        outcome = "memory" if "MemoryError" in run.why else "error"
        return Verdict(outcome=outcome, passed=passed, why=run.why)  # type: ignore[arg-type]
    return Verdict(outcome="correct" if all(rights) else "wrong", passed=passed)
