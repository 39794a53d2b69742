"""What programs cost on a problem: whether they are right, and ET, MU and TMU.

Huang et al., *Effi-Code*, 2024 (arXiv 2410.10209). Programs run in a sandbox, in turns, so that
what disturbs the machine strikes all. Of a problem with levels the calls of the largest are timed
by the clock of processor time; of one with tests alone, what the process took beyond one that does
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sharpen.code.evaluate.levels import Pools
from sharpen.code.metrics import overhead
from sharpen.code.problems import Problem
from sharpen.core.errors import DataError, ExecutionError
from sharpen.core.sandbox import Job, Limits, Result, SandboxPool, Status
from sharpen.core.sandbox.job import same

__all__ = ["Bench", "Cost"]

_SEEN = 200  # characters of an error that are passed on


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a right program takes."""

    et: float
    """Seconds of processor time."""

    mu: float
    """MiB at most, beyond a process that does nothing."""

    tmu: float
    """MiB times seconds."""


class Bench:
    """A problem, its inputs and what is expected, to try programs on.

    Args:
        problem: with levels or with tests.
        pools: sandboxes; nothing that is expected enters those of the programs that are tried.
        cpu_s: processor time of one run.
        memory_bytes: memory of one run.

    Raises:
        DataError: it has neither levels nor tests.
        ExecutionError: its generator or its reference fails.
    """

    def __init__(self, problem: Problem, pools: Pools, *, cpu_s: float, memory_bytes: int) -> None:
        self.problem, self.pools = problem, pools
        self.limits = Limits(cpu_s=cpu_s, memory_bytes=memory_bytes)
        if not problem.levels and problem.tests is None:
            raise DataError(f"problem {problem.name} has neither levels nor tests.")
        self.inputs = [
            problem.inputs(level, pool=pools.ours) for level in range(len(problem.levels))
        ]
        self.expected: list[list[Any]] = []
        for some in self.inputs:
            result = self._called(problem.reference, some, pools.ours)
            if not result.ok:
                raise ExecutionError(
                    f"problem {problem.name}: its own solution: {result.summary()}"
                )
            self.expected.append(list(result.outputs))
        empty = pools.theirs.run(Job(source="", limits=self.limits))
        self._empty_s = empty.cpu_s

    def _called(self, program: str, inputs: Sequence[tuple[Any, ...]], pool: SandboxPool) -> Result:
        return pool.run(
            Job(
                source=program,
                entry=self.problem.entry,
                inputs=inputs,
                clock="cpu",
                sample_memory=True,
                limits=self.limits,
            )
        )

    def wrong(self, program: str) -> str:
        """What is wrong with a program, in words for whoever wrote it; nothing if it is right."""
        if self.problem.tests is not None:
            result = self._tested(program)
            if not result.ok:
                return _why(result)
        for inputs, expected in zip(self.inputs, self.expected, strict=True):
            result = self._called(program, inputs, self.pools.theirs)
            outputs = zip(inputs, expected, result.outputs, strict=False)
            for args, wanted, got in outputs:
                if not same(got, wanted) and not self._accepted(args, wanted, got):
                    return (
                        f"{self.problem.entry}({', '.join(map(_short, args))}) gave {_short(got)},"
                        f" expected {_short(wanted)}"
                    )
            if not result.ok:
                return _why(result)
        return ""

    def _tested(self, program: str) -> Result:
        return self.pools.theirs.run(
            Job(
                source=program,
                entry=self.problem.entry,
                tests=self.problem.tests,
                prompt=self.problem.prompt,
                sample_memory=True,
                limits=self.limits,
            )
        )

    def _accepted(self, args: tuple[Any, ...], expected: Any, output: Any) -> bool:
        if self.problem.checker is None:
            return False
        inputs = [(args, expected, output)]
        job = Job(source=self.problem.checker, entry="check", inputs=inputs, limits=self.limits)
        result = self.pools.ours.run(job)
        return result.ok and bool(result.outputs[0])

    def costs(self, programs: Sequence[str], *, repeats: int = 3) -> list[Cost | None]:
        """[programs] medians of runs in turns; None for one that fails or forges its times.

        Args:
            programs: that were found to be right.
            repeats: runs of each.
        """
        runs: list[list[Cost]] = [[] for _ in programs]
        failed: set[int] = set()
        for turn in range(repeats):
            order = range(len(programs))
            for i in order if turn % 2 == 0 else reversed(order):
                cost = self._once(programs[i])
                if cost is None:
                    failed.add(i)
                else:
                    runs[i].append(cost)
        return [None if i in failed else _middle(some) for i, some in enumerate(runs)]

    def _once(self, program: str) -> Cost | None:
        if self.inputs:
            result = self._called(program, self.inputs[-1], self.pools.theirs)
            seconds = sum(result.times)
        else:
            result = self._tested(program)
            seconds = max(result.cpu_s - self._empty_s, 1e-6)
        if not result.ok or result.suspicious:
            return None
        last = result.memory[-1][1] if result.memory else 0.0
        samples = [(0.0, 0.0), *result.memory, (result.wall_s, last)]
        curve = overhead(samples, peak=result.peak_mib)
        return Cost(et=seconds, mu=curve.mu, tmu=curve.tmu)

    def smallest_input(self) -> tuple[Any, ...] | None:
        """Arguments to profile a program with; None where there are tests alone."""
        levels = self.inputs[1:2] or self.inputs[:1]
        return levels[0][0] if levels and levels[0] else None


def _middle(runs: Sequence[Cost]) -> Cost:
    return Cost(
        et=median(one.et for one in runs),
        mu=median(one.mu for one in runs),
        tmu=median(one.tmu for one in runs),
    )


def _why(result: Result) -> str:
    if result.status is Status.INFRA:
        raise ExecutionError(result.summary())
    if result.status in (Status.TIMEOUT, Status.WALL_TIMEOUT):
        return "it took too long"
    if result.error is not None and result.error.traceback:
        return result.error.traceback[-4 * _SEEN :]
    return f"{result.status}: {result.error}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SEEN else f"{text[:_SEEN]} ..."
