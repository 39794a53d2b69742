"""The last word on a candidate: tests, inputs that it has not met, times that can be believed.

The candidate was chosen because it looked fast, so its first time is biased: it is measured again,
with other inputs of the same sizes. It is accepted where

* the user's tests pass with it,
* nothing differs for new inputs and for all inputs that are timed, nor, where that was asked for,
  for arguments that a solver finds,
* the lower end of the objective's interval at the largest size is at least ``min_gain``,
* at no size is it slower by more than ``max_regress``: the interval does not say so, and
* its peak memory is at most ``max_memory`` times that of the original, and 16 MiB, without what it
  needs for small inputs too, such as for compiling itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sharpen.code.improver.corpus import Corpus, made_up
from sharpen.code.improver.journal import Attempt
from sharpen.code.improver.judge import Judge
from sharpen.code.improver.levels import Level, levels_of
from sharpen.code.improver.objective import TIMES, Gain, counted, gain_of_time, size_s
from sharpen.code.improver.observer import Observer
from sharpen.code.improver.reference import BaselineError, call_text, record_baseline
from sharpen.code.improver.starting import FirstCall, costly_start
from sharpen.code.improver.symbolic import Symbolic, difference_by_solving
from sharpen.code.improver.testing import run_tests
from sharpen.code.measure.comparison import Comparison, compare_timers
from sharpen.code.measure.process import encode_inputs
from sharpen.code.measure.single import growth
from sharpen.core.errors import ExecutionError

__all__ = ["LevelTimes", "Verdict", "decide", "exponents"]

_FRESH = 250
_NUMBER = 7919  # between the seeds of the search and those of the last word
_TOP_S, _OTHER_S, _TOLD_S = 10.0, 6.0, 2.0  # most; a clear difference is seen sooner
_FEW_PAIRS, _PATIENCE = 12, 4  # fewer pairs than these get so many times the seconds, once
_SMALL_S = 1e-4  # calls as they are known that take less are told, and do not decide
_FREE_MIB = 16.0
_SMALLER = 10  # times, inputs that tell what memory is needed for any


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelTimes:
    """Times at one size of inputs."""

    name: str
    size: int
    before_s: float
    after_s: float
    ratio: float
    low: float
    high: float
    decides: bool
    """Whether it may refuse: calls of some microseconds as they are known may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found of a candidate in the end."""

    accepted: bool
    reason: str
    """Why not."""

    gain: Gain | None = None
    """Of the objective, at the largest size."""

    levels: list[LevelTimes] = field(default_factory=list)
    memory_mib: tuple[float, float] = (0.0, 0.0)
    """Peak of the original and of the candidate, at the largest size."""

    fresh_inputs: int = 0
    """Inputs that the search had not met, for which nothing differs."""

    tests: str = ""
    """What became of the user's tests with it."""

    first_call: FirstCall | None = None
    """What the first call in a process costs, where that takes back the gain of some calls."""

    note: str = ""
    symbolic: Symbolic | None = None
    """What came of solving for arguments that tell it from the original."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def decide(
    judge: Judge,
    attempt: Attempt,
    corpus: Corpus,
    original: Observer,
    again: Observer,
    command: Sequence[str] | None,
) -> Verdict:
    """Test and measure a candidate from scratch.

    Args:
        judge: knows the function and its inputs.
        attempt: the candidate.
        corpus: inputs that new ones are made like.
        original: calls the function as it is.
        again: the same in another process.
        command: the user's tests.
    """
    config, target = judge.config, judge.target
    untrusted = attempt.origin == "llm" and not config.trust_llm
    tests = "there are none"
    if command is not None and untrusted:
        tests = "not run: a language model wrote it (--trust-llm runs them)"
    elif command is not None:
        run = run_tests(list(command), target, text=attempt.text, limit_s=config.tests_limit_s)
        if not run.passed:
            return _no(f"the tests fail with it: {_last(run.output)}")
        tests = "passed" if run.loaded else "passed, but they do not import the file"
    levels = levels_of(
        corpus,
        judge.baseline,
        original,
        count=config.levels,
        number=config.seed + _NUMBER,
        top_s=size_s(config.objective, config.top_s),
    )
    fresh = made_up(target, corpus.known, _FRESH, config.seed + _NUMBER, hinted=corpus.hinted)
    timed = [call for level in levels for call in level.inputs]
    try:
        baseline = record_baseline(
            [*fresh, *timed], original, again, judge.equality, judged=config.equal.startswith("mod")
        )
    except BaselineError as error:
        return _no(f"the function itself: {error}")
    observer = judge.watcher(attempt)
    try:
        refuted = baseline.refute(observer, judge.equality)
    finally:
        observer.close()
    if refuted is not None:
        call = "" if refuted.index is None else call_text(baseline.inputs[refuted.index])
        return _no(f"an input that is new: {call} {refuted.difference}")
    symbolic, reason = _solved(judge, attempt, untrusted, original, again)
    if reason:
        return replace(_no(reason), symbolic=symbolic)
    try:
        verdict = _measured(judge, attempt, levels, untrusted, len(fresh), tests)
        verdict = replace(verdict, symbolic=symbolic)
        if not verdict.accepted:
            return verdict
        return replace(verdict, first_call=_first_call(judge, attempt, original, levels, verdict))
    except ExecutionError as error:
        return _no(f"it could not be measured: {error}")


def _solved(
    judge: Judge, attempt: Attempt, untrusted: bool, original: Observer, again: Observer
) -> tuple[Symbolic | None, str]:
    """What solving for arguments has shown, and why the candidate is refused for it.

    What it names is called: only a difference that is there then refuses, and is compared first
    with all that is tried after it.
    """
    seconds = judge.config.symbolic_s
    if not seconds:
        return None, ""
    if untrusted:
        words = "a language model wrote it, and the search would run it (--trust-llm)"
        return Symbolic(outcome="not applicable", seconds=seconds, reason=words), ""
    found = difference_by_solving(judge.target, attempt.text, seconds=seconds)
    for call in found.calls:
        try:
            alone = record_baseline([call], original, again, judge.equality, judged=True)
        except BaselineError:
            continue
        observer = judge.watcher(attempt)
        try:
            refuted = alone.refute(observer, judge.equality)
        finally:
            observer.close()
        if refuted is not None:
            judge.baseline.add_first(alone)
            return found, f"an input that was solved for: {call_text(call)} {refuted.difference}"
    if found.outcome == "difference" and not found.calls:
        return found, f"a solver says that it differs, for what is no plain value: {found.reason}"
    if found.outcome == "difference":
        words = f"a difference that does not show when they are called: {found.reason}"
        return replace(found, outcome="no difference found", reason=words), ""
    return found, ""


def _first_call(
    judge: Judge, attempt: Attempt, original: Observer, levels: Sequence[Level], verdict: Verdict
) -> FirstCall | None:
    top = verdict.levels[-1]
    observer = judge.watcher(attempt)
    try:
        return costly_start(original, observer, levels[-1].inputs, top.before_s - top.after_s)
    finally:
        observer.close()


def _no(reason: str) -> Verdict:
    return Verdict(accepted=False, reason=reason)


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return " | ".join(lines[-3:])


def _measured(
    judge: Judge,
    attempt: Attempt,
    levels: Sequence[Level],
    untrusted: bool,
    fresh: int,
    tests: str,
) -> Verdict:
    config = judge.config
    found: list[LevelTimes] = []
    reason = ""
    notes: list[str] = []
    memory = (0.0, 0.0)
    gain: Gain | None = None
    for level in levels[::-1]:  # the largest first: without a gain there the rest is no matter
        top = level is levels[-1]
        decides = top or level.name != "as known" or level.seconds >= _SMALL_S * len(level.inputs)
        budget_s = _TOP_S if top else _OTHER_S if decides else _TOLD_S
        comparison, gain_here, memory_here = _compare(
            judge, attempt, level, untrusted, top, budget_s
        )
        starved = comparison.pairs < _FEW_PAIRS and comparison.ratio >= config.min_gain
        if top and starved and gain_here.low < config.min_gain:
            # Others had the processor: a gain that is there needs more time to show.
            comparison, gain_here, memory_here = _compare(
                judge, attempt, level, untrusted, top, _PATIENCE * budget_s
            )
        if top:
            gain, memory = gain_here, memory_here
        if comparison.note and decides:
            notes.append(f"{level.name}: {comparison.note}")
        found.insert(0, _times(level, comparison, decides))
        if top and gain_here.low < config.min_gain:
            reason = (
                f"it {gain_here.summary()} at {level.name}: the lower end is below"
                f" {config.min_gain:g}"
            )
        elif decides and comparison.high < 1 / config.max_regress:
            reason = (
                f"it is slower at {level.name}: {comparison.ratio:.3g} x"
                f" [{comparison.low:.3g}, {comparison.high:.3g}]"
            )
        most_mib = config.max_memory * memory[0] + _FREE_MIB
        if top and not reason and config.objective != "memory" and memory[1] > most_mib:
            start_mib = _start_mib(judge, attempt, levels, untrusted)
            told = f"it takes {memory[1]:.1f} MiB at {level.name}, the original {memory[0]:.1f} MiB"
            if memory[1] - start_mib > most_mib:
                reason = told
            else:
                notes.append(f"{told}; {start_mib:.1f} MiB of it whatever the size")
        if reason:
            break
    return Verdict(
        accepted=not reason,
        reason=reason,
        gain=gain,
        levels=found,
        memory_mib=memory,
        fresh_inputs=fresh,
        tests=tests,
        note="; ".join(notes),
    )


def _start_mib(judge: Judge, attempt: Attempt, levels: Sequence[Level], untrusted: bool) -> float:
    """Memory that a text needs also for inputs that are far smaller; 0 where there are none."""
    small = levels[0]
    if _SMALLER * small.size > levels[-1].size:
        return 0.0
    program = judge.target.program(attempt.text)
    with judge.timer(program, encode_inputs(small.inputs), trusted=not untrusted) as timer:
        return timer.peak_mib()


def _compare(
    judge: Judge, attempt: Attempt, level: Level, untrusted: bool, top: bool, budget_s: float
) -> tuple[Comparison, Gain, tuple[float, float]]:
    """Times in pairs; the gain, and MiB of the original and the candidate, at the top alone."""
    encoded = encode_inputs(level.inputs)
    target = judge.target
    objective = judge.config.objective
    clock = objective if objective in TIMES else "cpu"
    old = judge.timer(target.program(), encoded, trusted=not untrusted)
    with old, judge.timer(target.program(attempt.text), encoded, trusted=not untrusted) as new:
        decisive = top and objective in TIMES
        until = judge.config.min_gain if decisive else 1 / judge.config.max_regress
        comparison = compare_timers(old, new, clock=clock, budget_s=budget_s, until=until)
        gain = gain_of_time(clock, comparison)
        if top and objective not in TIMES:
            gain = counted(objective, old, new, level.inputs)
        memory = (old.peak_mib(), new.peak_mib()) if top else (0.0, 0.0)
        if gain.objective == "memory":
            memory = (gain.before, gain.after)
    return comparison, gain, memory


def _times(level: Level, comparison: Comparison, decides: bool) -> LevelTimes:
    return LevelTimes(
        name=level.name,
        size=level.size,
        before_s=comparison.a_s,
        after_s=comparison.b_s,
        ratio=comparison.ratio,
        low=comparison.low,
        high=comparison.high,
        decides=decides,
    )


def exponents(levels: Sequence[LevelTimes]) -> tuple[float, float] | None:
    """How time grows with size, before and after; None with too few sizes."""
    some = [one for one in levels if one.name != "as known" and one.size > 0]
    if len({one.size for one in some}) < 3:
        return None
    sizes = [one.size for one in some]
    before = growth(sizes, [one.before_s for one in some])
    return before.exponent, growth(sizes, [one.after_s for one in some]).exponent
