"""Running a model's program in a sandbox: how it ends, and how fast it is beside a reference.

What is expected never enters the process of the program. Processor time is measured in pairs, the
program and the reference in turns, each run in a process of its own::

    log ratio = median over pairs of log(t_reference / t_program)

and set to 0 inside a dead zone, since the same code never takes the same time twice. Instructions
of the interpreter are the same in every run, so one count of each tells. Times that a program
claims are compared with what was seen from outside, as in :mod:`sharpen.core.sandbox.trust`.
"""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from sharpen.align.rewards.cases import TRUSTED_S, Case, case_key, make_case
from sharpen.align.rewards.verdict import Clock, JudgeConfig, Outcome, Verdict, code_in, compiles
from sharpen.code.replies import function_in
from sharpen.core.errors import ExecutionError
from sharpen.core.sandbox import (
    Job,
    Limits,
    Raised,
    Result,
    SandboxPool,
    Status,
    doubt,
    overhead_s,
    seen_s,
)
from sharpen.core.sandbox.job import same

__all__ = ["Judge"]

_log = logging.getLogger(__name__)

_ENDS: dict[Status, Outcome] = {
    Status.ERROR: "error",
    Status.WRONG: "wrong",
    Status.TIMEOUT: "timeout",
    Status.WALL_TIMEOUT: "timeout",
    Status.MEMORY: "memory",
    Status.OUTPUT_LIMIT: "memory",
    Status.KILLED: "error",
    Status.VIOLATION: "violation",
    Status.INFRA: "infra",
}
_RUN_S = 0.01  # what a timed run of the reference takes at least
_MOST_LOOPS = 200
_MOST_RATIO = 64.0  # how many times slower a program is told to be at most
_CLEAR = 8.0  # so many times slower need no second measurement
_LOAD_S = 0.25  # what a program may need to be loaded without being doubted
_MARGIN = 1.2  # overheads of the same inputs differ by so much
_CASES = 512


class Judge:
    """Runs programs; has a sandbox for them and one for references, made when first used.

    Both belong to the process that uses them: a judge that comes into another one by pickle or by a
    fork makes its own there.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config
        self._pools: dict[tuple[int, str], SandboxPool] = {}
        self._cases: OrderedDict[str, Case] = OrderedDict()

    def __reduce__(self) -> Any:
        return Judge, (self.config,)

    def judge(self, reply: str, meta: Mapping[str, Any]) -> Verdict:
        """Run the program of a reply.

        Args:
            reply: of a model: code between fences, or nothing but code.
            meta: the row's keys, see :mod:`sharpen.align.rewards.cases`.

        Raises:
            DataError: the row does not say how to judge.
            ExecutionError: its reference fails.
        """
        case = self._case(meta)
        program = function_in(reply, case.entry) or function_in(code_in(reply), case.entry)
        if program is None or not compiles(program):
            return Verdict(outcome="compile", why=f"no code that defines {case.entry}")
        found = self._outcome(case, program)
        if found.outcome == "violation":
            _log.warning("a program broke the rules: %s", found.why)
        if found.outcome != "correct" or self.config.clock == "none" or not case.calls:
            return found
        return found if case.reference is None else self._timed(case, program, found)

    def close(self) -> None:
        """End its sandboxes."""
        for (owner, _), pool in self._pools.items():
            if owner == os.getpid():
                pool.close()
        self._pools.clear()

    def _case(self, meta: Mapping[str, Any]) -> Case:
        key = case_key(meta)
        if key not in self._cases:
            self._cases[key] = make_case(meta, self._pool("ours"))
            if len(self._cases) > _CASES:
                self._cases.popitem(last=False)
        return self._cases[key]

    def _pool(self, name: str) -> SandboxPool:
        key = (os.getpid(), name)
        if key not in self._pools:
            self._pools[key] = SandboxPool(1, self.config.tier, self._limits())
        return self._pools[key]

    def _limits(self) -> Limits:
        return Limits(cpu_s=self.config.cpu_s, memory_bytes=self.config.memory_bytes)

    def _outcome(self, case: Case, program: str) -> Verdict:
        theirs = self._pool("theirs")
        if case.tests is not None:
            job = Job(source=program, entry=case.entry, tests=case.tests, prompt=case.prompt)
            result = theirs.run(job)
            if not result.ok or case.expected is None:
                return Verdict(outcome=_end(result), passed=float(result.ok), why=_why(result))
        job = Job(source=program, entry=case.entry, inputs=case.calls, catch=True)
        result = theirs.run(job)
        assert case.expected is not None
        rights = [same(a, b) for a, b in zip(result.outputs, case.expected, strict=False)]
        passed = sum(rights) / len(case.expected)
        if not result.ok:
            return Verdict(outcome=_end(result), passed=passed, why=_why(result))
        if result.suspicious:
            return Verdict(outcome="violation", passed=passed, why=result.suspicious)
        if passed == 1.0 and len(rights) == len(case.expected):
            return Verdict(outcome="correct", passed=1.0)
        raised = next((one for one in result.outputs if isinstance(one, Raised)), None)
        if raised is None:
            return Verdict(outcome="wrong", passed=passed)
        outcome: Outcome = "memory" if raised.type_name == "MemoryError" else "error"
        why = f"{raised.type_name}: {raised.message}"
        return Verdict(outcome=outcome, passed=passed, why=why)

    def _timed(self, case: Case, program: str, found: Verdict) -> Verdict:
        assert case.reference is not None
        try:
            if self.config.clock == "opcodes":
                ratio = self._by_opcodes(case, program)
            else:
                ratio = self._by_time(case, program)
        except _Ended as end:
            return end.verdict
        if abs(ratio) < self.config.dead_zone:
            ratio = 0.0
        return Verdict(outcome="correct", log_ratio=ratio, passed=found.passed)

    def _by_opcodes(self, case: Case, program: str) -> float:
        found = self._once(case, program, "opcodes")
        if found is None:
            return -math.log(_MOST_RATIO)
        assert case.once is not None
        return math.log(max(sum(case.once.times), 1.0) / max(sum(found.times), 1.0))

    def _by_time(self, case: Case, program: str) -> float:
        if case.load_s is None:
            case.load_s = self._reference(case, (), "cpu").cpu_s
        found = self._once(case, program, "cpu")
        if found is None:
            return -math.log(_MOST_RATIO)
        assert case.once is not None
        once, took = sum(case.once.times), sum(found.times)
        if took > _CLEAR * once and took > _CLEAR * _RUN_S:
            return math.log(max(once, 1e-9) / took)
        loops = min(max(1, math.ceil(_RUN_S / max(once, 1e-9))), _MOST_LOOPS)
        loading = max(self._program(case, program, (), "cpu").cpu_s - case.load_s, 0.0)
        return median(
            self._pair(case, program, loops, min(loading, _LOAD_S), pair % 2 == 0)
            for pair in range(self.config.repeats)
        )

    def _once(self, case: Case, program: str, clock: Clock) -> Result | None:
        """One timed call of each input; None of a program so slow that no more need be known."""
        if case.once is None:
            case.once = self._reference(case, case.calls, clock)
        most = _MOST_RATIO * max(case.once.times) + (_RUN_S if clock == "cpu" else 0)
        seconds = self.config.cpu_s + _CLEAR * case.once.cpu_s
        result = self._program(case, program, case.calls, clock, most=most, seconds=seconds)
        return None if _end(result) == "timeout" else result

    def _pair(
        self, case: Case, program: str, loops: int, loading: float, reference_first: bool
    ) -> float:
        """The log ratio of one pair of runs, several calls of each input in either."""
        calls = list(case.calls) * loops
        first = self._reference(case, calls, "cpu") if reference_first else None
        theirs = self._program(case, program, calls, "cpu", seconds=2 * self.config.cpu_s)
        ours = first or self._reference(case, calls, "cpu")
        if not theirs.ok:
            raise _Ended(Verdict(outcome=_end(theirs), why=_why(theirs)))
        took = _seconds(theirs, len(case.calls))
        overhead = _MARGIN * overhead_s(ours) + loading
        if doubt(theirs, overhead):
            took = max(took, seen_s(theirs, overhead) / loops)
        return math.log(_seconds(ours, len(case.calls)) / took)

    def _reference(self, case: Case, calls: Sequence[Any], clock: Clock) -> Result:
        assert case.reference is not None
        job = Job(
            source=case.reference,
            entry=case.entry,
            inputs=calls,
            clock=None if clock == "none" else clock,
            limits=Limits(cpu_s=TRUSTED_S),
        )
        result = self._pool("ours").run(job)
        if not result.ok:
            raise ExecutionError(f"the reference of '{case.entry}' fails: {result.summary()}")
        return result

    def _program(
        self,
        case: Case,
        program: str,
        calls: Sequence[Any],
        clock: Clock,
        *,
        most: float | None = None,
        seconds: float | None = None,
    ) -> Result:
        """A run of a program that is right; it may still run out of time."""
        limits = Limits(cpu_s=seconds or self.config.cpu_s, memory_bytes=self.config.memory_bytes)
        job = Job(
            source=program,
            entry=case.entry,
            inputs=calls,
            clock=None if clock == "none" else clock,
            call_limit=most,
            limits=limits,
        )
        result = self._pool("theirs").run(job)
        if result.suspicious:
            raise _Ended(Verdict(outcome="violation", why=result.suspicious))
        if not result.ok and _end(result) != "timeout":
            raise _Ended(Verdict(outcome=_end(result), why=_why(result)))
        return result


class _Ended(Exception):
    """A program that was right once was not again."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.why)
        self.verdict = verdict


def _seconds(result: Result, calls: int) -> float:
    """Seconds of one call of each input: the sum over inputs of the median over loops."""
    times = result.times
    return max(sum(median(times[i::calls]) for i in range(calls)), 1e-9)


def _end(result: Result) -> Outcome:
    if result.error is not None and result.error.type in ("SyntaxError", "IndentationError"):
        return "compile"
    if result.error is not None and result.error.type == "MemoryError":
        return "memory"
    return _ENDS.get(result.status, "correct")


def _why(result: Result) -> str:
    return f"{result.status}: {result.error}" if result.error else str(result.status)
