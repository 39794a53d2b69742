"""How efficient programs are on inputs of growing size, as ENAMEL judges them.

Qiu et al., *How Efficient is LLM-Generated Code?*, ICLR 2025 (arXiv 2406.06647). See
:mod:`sharpen.code.metrics.levels` for the formulas::

    t of an input  = Hodges-Lehmann estimate over R runs          t_level = max over its inputs
    T              = alpha * max over levels that count of t_level of the reference
    wrong or raises anywhere             no efficiency at all
    beyond T + tolerance, or no memory   right, but 0 on this level and all later; at level 0 wrong

Differs from the released program: processor time by default, in place of the wall clock; each
program runs in a sandbox, each of the R runs in a process of its own, so that what it keeps from
one run does not help in the next; printing is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.code.evaluate.config import EvalConfig
from sharpen.code.metrics import hodges_lehmann, level_efficiency, time_limit
from sharpen.code.problems import Problem
from sharpen.core.errors import ExecutionError
from sharpen.core.sandbox import Job, Result, SandboxPool, Status, doubt, overhead_s, seen_s
from sharpen.core.sandbox.inside.program import digest
from sharpen.core.sandbox.job import Call, EncodedCall, same

__all__ = ["Pools", "Prepared", "Verdict", "judge", "prepare"]

_LOAD_S = 0.5  # beyond what calls may take, for loading and for values to cross
_LONGEST_LOAD_S = 0.25  # what a program may need to be loaded without being doubted
_MARGIN = 1.2  # overheads of the same inputs differ by so much
_RAN_OUT = ("MemoryError", "OverflowError")
_LIMITED = (Status.TIMEOUT, Status.WALL_TIMEOUT, Status.MEMORY)


@dataclass(frozen=True, slots=True)
class Pools:
    """Sandboxes; what is expected never enters those of the programs that are judged."""

    ours: SandboxPool
    """For generators, references and checkers."""

    theirs: SandboxPool
    """For programs that are judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A problem's inputs, what is expected, and what the reference takes."""

    inputs: list[list[tuple[Any, ...]]]
    """By level."""

    calls: list[list[EncodedCall]]
    """The same as they cross."""

    expected: list[list[Any]]
    digests: list[list[bytes | None]]
    """What tells them apart."""

    times: list[float]
    """By level, of the reference: seconds or instructions."""

    limit: float
    """T."""

    overheads: list[float]
    """By level, seconds of processor time that a job needs beside its calls."""

    load_s: float
    """Seconds of processor time of a job with the reference and no call."""

    slow: list[float] | None = None
    """By level, what the slow solution takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a program."""

    passed: bool
    efficiency: float = 0.0
    times: list[float | None] = field(default_factory=list)
    """By level, as far as it got; None where it ran out of time or memory."""

    why: str = ""
    """Why it did not pass, or where it ran out."""

    suspicious: str = ""
    """Why its times are not believed; those seen from outside stand in their place."""


def prepare(problem: Problem, config: EvalConfig, pools: Pools) -> Prepared:
    """Make a problem's inputs and time its reference.

    Raises:
        ExecutionError: the generator, the reference or the checker fails.
    """
    levels = range(len(problem.levels))
    inputs = [problem.inputs(level, seed=config.seed, pool=pools.ours) for level in levels]
    calls = [[Call(args).encoded() for args in some] for some in inputs]
    load = _run(problem, problem.reference, [], config, pools.ours)
    expected, times, overheads = [], [], []
    for level in levels:
        runs = [
            _run(problem, problem.reference, calls[level], config, pools.ours, digests=bool(i))
            for i in range(_repeats(problem, level, config))
        ]
        expected.append(list(runs[0].outputs))
        times.append(_slowest(runs))
        overheads.append(_MARGIN * max(overhead_s(run) for run in runs))  # the first sends values
    if problem.checker is not None:
        for args, outputs in zip(inputs, expected, strict=True):
            if not _accepted(problem, args, outputs, outputs, config, pools.ours):
                raise ExecutionError(f"problem {problem.name}: its checker refuses the reference.")
    slow = None
    if problem.slow is not None:
        slow = [
            _slowest([_run(problem, problem.slow, calls[level], config, pools.ours, digests=True)])
            for level in levels
        ]
    return Prepared(
        inputs=inputs,
        calls=calls,
        expected=expected,
        digests=[[digest(output) for output in outputs] for outputs in expected],
        times=times,
        limit=time_limit(times, problem.hardness, config.alpha),
        overheads=overheads,
        load_s=load.cpu_s,
        slow=slow,
    )


def _repeats(problem: Problem, level: int, config: EvalConfig) -> int:
    varies = config.clock != "opcodes" and problem.hardness[level]
    return config.repeats if varies else 1


def _slowest(runs: Sequence[Result]) -> float:
    """[runs] of the same inputs: the greatest estimate of an input."""
    return max(hodges_lehmann(times) for times in zip(*(run.times for run in runs), strict=True))


def _run(
    problem: Problem,
    program: str,
    calls: Sequence[EncodedCall],
    config: EvalConfig,
    pool: SandboxPool,
    *,
    digests: bool = False,
) -> Result:
    """A run of a program that is right."""
    result = pool.run(
        Job(
            source=program,
            entry=problem.entry,
            inputs=calls,
            clock=config.clock,
            digests=digests,
            limits=config.limits(config.trusted_s),
        )
    )
    if not result.ok:
        raise ExecutionError(f"problem {problem.name}: its own solution: {result.summary()}")
    return result


def _accepted(
    problem: Problem,
    inputs: Sequence[tuple[Any, ...]],
    expected: Sequence[Any],
    outputs: Sequence[Any],
    config: EvalConfig,
    pool: SandboxPool,
) -> bool:
    """Whether the problem's checker takes all outputs."""
    assert problem.checker is not None
    job = Job(
        source=problem.checker,
        entry="check",
        inputs=list(zip(inputs, expected, outputs, strict=True)),
        limits=config.limits(config.reference_s),
    )
    result = pool.run(job)
    return result.ok and all(bool(one) for one in result.outputs)


def judge(
    problem: Problem, program: str, prepared: Prepared, config: EvalConfig, pools: Pools
) -> Verdict:
    """Run a program on the inputs of all levels."""
    load = pools.theirs.run(
        Job(source=program, entry=problem.entry, clock=config.clock, limits=config.limits(10.0))
    )
    if not load.ok:
        return Verdict(passed=False, why=f"it does not load: {load.status}: {load.error}")
    loading = min(max(load.cpu_s - prepared.load_s, 0.0), _LONGEST_LOAD_S)
    case = _Case(problem, program, prepared, config, pools, loading)
    most = prepared.limit + config.tolerance
    times: list[float | None] = []
    doubts = [load.suspicious] if load.suspicious else []
    ran_out = ""
    for level in range(len(problem.levels)):
        wrong, took = case.level(level, doubts)
        if wrong:
            return Verdict(passed=False, why=f"level {level}: {wrong}")
        is_late = took is None or took > most
        if is_late and level == 0 and took is None:
            return Verdict(passed=False, why=f"level 0: {case.ended}")
        times.append(took)
        if is_late and not ran_out:
            ran_out = f"level {level}: {case.ended if took is None else 'more time than it may'}"
        if took is None:
            break
    within = [t if t is not None and t <= most else None for t in times]
    within += [None] * (len(prepared.times) - len(within))
    efficiency = level_efficiency(
        within, prepared.times, hardness=problem.hardness, alpha=config.alpha
    )
    suspicious = "; ".join(dict.fromkeys(doubts))
    return Verdict(
        passed=True, efficiency=efficiency, times=times, why=ran_out, suspicious=suspicious
    )


def _is_digest(output: Any, known: bytes | None) -> bool:
    return known is not None and output == known


@dataclass(slots=True)
class _Case:
    """A program on its way through the levels."""

    problem: Problem
    program: str
    prepared: Prepared
    config: EvalConfig
    pools: Pools
    loading: float
    ended: str = ""

    def level(self, level: int, doubts: list[str]) -> tuple[str, float | None]:
        """What is wrong, or what the slowest input took; None where it ran out.

        Args:
            level: which one.
            doubts: why times are not believed; more are added.
        """
        config = self.config
        runs: list[Result] = []
        whole = False
        for _ in range(_repeats(self.problem, level, config)):
            result = self._once(level, slice(None), digests=not whole)
            known = self.prepared.digests[level]
            if not whole and not all(map(_is_digest, result.outputs, known)):
                whole = True  # values must tell
                result = self._once(level, slice(None))
            wrong = self._wrong(level, result, 0) if whole else self._failed(result, 0)
            if wrong:
                return wrong, None
            if not result.ok:
                if not result.outputs and len(self.prepared.inputs[level]) > 1:
                    return self._one_by_one(level), None
                self.ended = f"{result.status}: {result.error}"
                return "", None
            runs.append(result)
        took = _slowest(runs)
        if config.clock != "opcodes":
            overhead = self.prepared.overheads[level] + self.loading
            found = [doubt(run, overhead) for run in runs]
            if 2 * sum(bool(one) for one in found) > len(found):
                doubts.append(next(filter(None, found)))
                took = max(took, hodges_lehmann([seen_s(run, overhead) for run in runs]))
        elif runs[0].suspicious:
            doubts.append(runs[0].suspicious)
        return "", took

    def _once(self, level: int, which: slice, *, digests: bool = False) -> Result:
        config, prepared = self.config, self.prepared
        calls = prepared.calls[level][which]
        may_take = prepared.limit + config.tolerance
        if prepared.slow is not None:
            may_take = max(may_take, _MARGIN * prepared.slow[level])
        cpu_s = _LOAD_S + 2 * prepared.overheads[level] + self.loading
        cpu_s += config.trusted_s if config.clock == "opcodes" else len(calls) * may_take
        job = Job(
            source=self.program,
            entry=self.problem.entry,
            inputs=calls,
            clock=config.clock,
            call_limit=may_take,
            digests=digests,
            limits=config.limits(cpu_s),
        )
        result = self.pools.theirs.run(job)
        if result.status is Status.INFRA:
            raise ExecutionError(f"problem {self.problem.name}: {result.summary()}")
        return result

    def _wrong(self, level: int, result: Result, first: int) -> str:
        """What is wrong with a run, its outputs included; nothing where it ran out."""
        inputs, expected = self.prepared.inputs[level], self.prepared.expected[level]
        others = []
        for i, output in enumerate(result.outputs, first):
            if not same(output, expected[i]):
                if self.problem.checker is None:
                    return f"input {i}: wrong output"
                others.append((i, output))
        if others:
            asked = [inputs[i] for i, _ in others], [expected[i] for i, _ in others]
            given = [output for _, output in others]
            if not _accepted(self.problem, *asked, given, self.config, self.pools.ours):
                return f"input {others[0][0]}: wrong output"
        return self._failed(result, first)

    def _failed(self, result: Result, first: int) -> str:
        """Why a run failed; nothing where it ran out."""
        ran_out = result.error is not None and result.error.type in _RAN_OUT
        if result.ok or result.status in _LIMITED or ran_out:
            return ""
        return f"input {first + len(result.outputs)}: {result.status}: {result.error}"

    def _one_by_one(self, level: int) -> str:
        """Find what is wrong before the input on which it was ended without a word."""
        for i in range(len(self.prepared.inputs[level])):
            result = self._once(level, slice(i, i + 1))
            wrong = self._wrong(level, result, i)
            if wrong:
                return wrong
            if not result.ok:
                self.ended = f"{result.status}: {result.error}"
                return ""
        self.ended = "it was ended on all inputs together"
        return ""
