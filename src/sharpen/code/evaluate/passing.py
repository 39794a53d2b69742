"""Whether programs pass a problem's tests, which they never see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharpen.code.evaluate.config import EvalConfig
from sharpen.code.problems import Problem
from sharpen.core.sandbox import Job, SandboxPool

__all__ = ["by_tests", "job_of"]


def job_of(problem: Problem, program: str, config: EvalConfig | None = None) -> Job:
    """The run of a program against the tests of a problem."""
    return Job(
        source=program,
        entry=problem.entry,
        tests=problem.tests,
        prompt=problem.prompt,
        limits=config.limits(10.0) if config is not None else None,
    )


def by_tests(
    problem: Problem, programs: Sequence[str], config: EvalConfig, pool: SandboxPool
) -> dict[str, Any]:
    """What came of each program: ``passed`` and ``why``, lists, why empty where it passed."""
    results = pool.map(job_of(problem, program, config) for program in programs)
    return {
        "passed": [result.ok for result in results],
        "why": ["" if result.ok else f"{result.status}: {result.error}" for result in results],
    }
