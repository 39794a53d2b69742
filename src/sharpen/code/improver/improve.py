"""The loop: locate, inputs, baseline, profile, propose, gate, measure.

A text is kept only where nothing differs from the original on all inputs that were tried and where
it is faster with certainty; what was not looked at is said.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sharpen.code.improver.config import ImproveConfig
from sharpen.code.improver.corpus import Corpus, collect
from sharpen.code.improver.equality import Equality
from sharpen.code.improver.journal import Attempt, Journal
from sharpen.code.improver.judge import Judge
from sharpen.code.improver.levels import Level, levels_of
from sharpen.code.improver.objective import said, size_s
from sharpen.code.improver.observer import Watcher
from sharpen.code.improver.patch import unified
from sharpen.code.improver.profile import Profile, take_profile
from sharpen.code.improver.reference import Baseline, BaselineError, record_baseline
from sharpen.code.improver.result import Evidence, ImproveResult, Proof
from sharpen.code.improver.search import Budget, ranked, search_rewrites
from sharpen.code.improver.symbolic import has_solver
from sharpen.code.improver.target import Target, locate
from sharpen.code.improver.testing import (
    TestRun,
    command_of,
    doctest_command,
    find_tests,
    run_tests,
)
from sharpen.code.improver.tradeoffs import Version, trade_offs
from sharpen.code.improver.verdict import Verdict, decide, exponents
from sharpen.code.inputs import Input, read_inputs
from sharpen.code.measure.instructions import has_counter
from sharpen.code.rewrite import Facts, Kind, observe, propose
from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.core.sandbox import SandboxPool

__all__ = ["Prepared", "Steer", "improve", "judge_of", "prepare"]

_LOG = logging.getLogger(__name__)
_FINALISTS = 3
_NOT_CHECKED = (
    "inputs other than those that were tried",
    "what is written to files, sockets and other processes",
    "the order of effects within an iterator, and what happens where it is not used up",
    "threads that call it at the same time",
)

Say = Callable[[str], None]
Steer = Callable[["Prepared", Judge, list[Attempt]], tuple[Attempt, Verdict] | None]
"""Gives what is to be taken, with what was measured of it; None takes nothing."""


@dataclass(slots=True)
class Prepared:
    """A function with all that is known of it before anything is proposed."""

    target: Target
    config: ImproveConfig
    equality: Equality
    corpus: Corpus
    baseline: Baseline
    levels: list[Level]
    facts: Facts
    command: list[str] | None
    profile: Profile | None
    original: Watcher
    again: Watcher


def improve(
    path: str | Path,
    function: str,
    *,
    tests: str | None = None,
    inputs: str | Sequence[Input] | None = None,
    lm: Any = None,
    out: str | Path | None = None,
    config: ImproveConfig | None = None,
    say: Say | None = None,
    steer: Steer | None = None,
    **settings: Any,
) -> ImproveResult:
    """Make a function faster, if that can be done without a difference that shows.

    Args:
        path: the Python file; it is not changed.
        function: ``f`` or ``Class.method``.
        tests: a folder or file for pytest, or a command; see :class:`ImproveConfig`.
        inputs: a file as of ``--inputs``, or calls: arguments by position and by name.
        lm: a language model that may propose, such as ``sharpen.LM(...)``; its code is run in a
            sandbox.
        out: a folder for ``attempts.jsonl``, with which an interrupted run goes on where it was.
        config: settings.
        say: called with a line at each step.
        steer: chooses in place of the search, such as a person does.
        settings: fields of :class:`ImproveConfig`, in place of ``config``.

    Raises:
        UserError: the function or a setting cannot be used.
        BaselineError: the function fails its tests, or does not do the same twice.

    Example:
        >>> from sharpen.code import improve
        >>> improve("examples/code/slow.py", "pairs_with_sum").improved  # doctest: +SKIP
        True
    """
    config = config or ImproveConfig(**settings)
    if tests is not None:
        config = replace(config, tests=tests)
    calls: Sequence[Input] | None = None
    if isinstance(inputs, str):
        config = replace(config, inputs=inputs)
    else:
        calls = inputs
    begin = time.monotonic()
    tell = say or _LOG.info
    with ExitStack() as stack:
        asks = lm is not None or steer is not None
        prepared = prepare(path, function, config, stack, calls=calls, asks=asks, say=tell)
        judge = judge_of(prepared, stack, out=out, sandboxed=lm is not None)
        journal = judge.journal
        budget = Budget(config.budget_s, config.tries)
        candidates: list[Attempt] = []
        if "rewrite" in config.propose:
            candidates = search_rewrites(judge, prepared.facts, budget)
            tell(f"{len(journal.attempts)} rewrites tried, {len(candidates)} seem faster")
        refused: list[str] = []
        if steer is not None:
            chosen, verdict = steer(prepared, judge, candidates) or (None, None)
        else:
            if lm is not None and "llm" in config.propose:
                from sharpen.code.improver.llm import propose_with

                found = propose_with(lm, prepared, judge, budget, candidates, tell)
                candidates = ranked([*candidates, *found])
            chosen, verdict, refused = _choose(prepared, judge, candidates, tell)
        versions = trade_offs(judge, candidates)
        seconds = time.monotonic() - begin
        return _result(prepared, journal, budget, chosen, verdict, refused, versions, seconds)


def prepare(
    path: str | Path,
    function: str,
    config: ImproveConfig,
    stack: ExitStack,
    *,
    calls: Sequence[Input] | None = None,
    asks: bool = True,
    say: Say,
) -> Prepared:
    """Find a function, its inputs and what it does with them.

    Args:
        path: its file.
        function: its dotted path.
        config: settings.
        stack: ends the processes that are started.
        calls: inputs beside those of the settings.
        asks: whether others than rules will propose.
        say: called with a line at each step.

    Raises:
        UserError: it cannot be used, or there are no inputs.
        DependencyNotInstalled: what counts the objective is not here.
        BaselineError: it fails its tests, or does not do the same twice.
    """
    if config.objective == "instructions" and not has_counter():
        raise DependencyNotInstalled(
            "--objective instructions counts with valgrind, which is not on this machine: apt"
            " install valgrind."
        )
    if config.symbolic_s and not has_solver():
        raise DependencyNotInstalled.for_feature("--symbolic", "code-crosshair")
    target = locate(path, function, root=config.root)
    equality = Equality(config.equal)
    given = [*(calls or ()), *(read_inputs(config.inputs) if config.inputs else ())]
    command = _command(target, config)
    run = None
    if command is not None:
        run = _tested(command, target, config)
        say(f"tests pass in {run.seconds:.1f} s; {len(run.records)} calls recorded")
    documented: list[bytes] = []
    if ">>>" in target.text:
        documented = run_tests(
            doctest_command(target), target, record=True, limit_s=config.tests_limit_s
        ).records
    original = stack.enter_context(Watcher(target.program(), 0))
    again = stack.enter_context(Watcher(target.program(), 1))

    def is_tried(known: Sequence[Input]) -> bool:
        # More inputs leave fewer rewrites, so that where there are none now, there will be none.
        facts = _facts(target, known, config, equality)
        return asks or bool(propose(target.text, target.entry, facts))

    corpus = collect(
        target,
        given=given,
        recorded=run.records if run else [],
        refused=run.refused if run else 0,
        wanted=is_tried,
        documented=documented,
        baseline=original,
        seed=config.seed,
    )
    judged = config.equal.startswith("mod")
    baseline = record_baseline(corpus.all, original, again, equality, judged=judged)
    sources = ", ".join(f"{count} from {name}" for name, count in corpus.sources.items())
    say(f"{len(baseline.inputs)} inputs: {sources}, {len(corpus.made)} made up")
    facts = _facts(target, corpus.all, config, equality)
    # Nobody times a function for which there is nothing to try.
    tries = asks or bool(propose(target.text, target.entry, facts))
    levels = levels_of(
        corpus,
        baseline,
        original,
        count=config.levels if tries else 0,
        number=config.seed,
        top_s=size_s(config.objective, config.top_s),
    )
    every = [*corpus.all, *(call for level in levels for call in level.inputs)]
    facts = _facts(target, every, config, equality)
    profile = take_profile(target, levels)
    if profile is not None:
        power = "" if profile.exponent is None else f", time grows with n^{profile.exponent:.2f}"
        say(f"{profile.seconds:.3g} s at {levels[-1].name}{power}\n{profile.table()}")
    return Prepared(
        target, config, equality, corpus, baseline, levels, facts, command, profile, original, again
    )


def _facts(
    target: Target, calls: Sequence[Input], config: ImproveConfig, equality: Equality
) -> Facts:
    return observe(
        target.signature,
        target.plain_inputs([(args, kwargs) for args, kwargs in calls]),
        allow=config.allow,
        close=equality.rounds,
    )


def judge_of(
    prepared: Prepared, stack: ExitStack, *, out: str | Path | None, sandboxed: bool
) -> Judge:
    """What tries texts for a function.

    Args:
        prepared: the function.
        stack: ends the sandboxes.
        out: a folder for what was tried.
        sandboxed: whether a language model's code may come.

    Raises:
        ConfigError: what counts the objective cannot be in a sandbox.
        SandboxUnavailable: that needs a sandbox, which this machine does not have.
        StorageError: the folder cannot be written.
    """
    config = prepared.config
    journal = Journal(None if out is None else Path(out) / "attempts.jsonl", _key(prepared))
    pool = None
    if sandboxed and not config.trust_llm:
        if config.objective == "instructions":
            raise ConfigError(
                "--objective instructions counts outside of the sandbox: give --trust-llm with it,"
                " or --propose rewrite."
            )
        packages = sorted({"numpy", *config.allow})
        pool = stack.enter_context(SandboxPool(1, packages=packages))
    return Judge(
        prepared.target,
        prepared.baseline,
        prepared.levels,
        config,
        prepared.equality,
        journal,
        pool,
    )


def _command(target: Target, config: ImproveConfig) -> list[str] | None:
    if config.tests == "none":
        return None
    if config.tests is not None:
        return command_of(config.tests)
    beside = find_tests(target)
    return None if beside is None else command_of(str(beside))


def _tested(command: list[str], target: Target, config: ImproveConfig) -> TestRun:
    """Run the tests twice, once with the arguments recorded."""
    limit = config.tests_limit_s
    first = run_tests(command, target, record=True, limit_s=limit)
    second = run_tests(command, target, hash_seed=1, limit_s=limit)
    words = " ".join(command)
    if first.passed != second.passed:
        bad = second if first.passed else first
        raise BaselineError(
            f"the tests ({words}) pass in one of two runs: they are flaky, so that they tell"
            f" nothing of a change.\n{bad.output}"
        )
    if not first.passed:
        raise BaselineError(f"the tests ({words}) fail before anything is changed.\n{first.output}")
    return first


def _words(kind: Kind) -> str:
    """Such as ``list of int``."""
    outer = " or ".join(sorted(one.__name__ for one in kind.types))
    inner = f" of {_words(kind.items)}" if kind.items is not None else ""
    return outer + inner + (f" to {_words(kind.values)}" if kind.values is not None else "")


def _key(prepared: Prepared) -> str:
    """What attempts of a run belong to."""
    settings = {k: v for k, v in prepared.config.to_dict().items() if k not in _FREE}
    parts = [prepared.target.digest, prepared.target.entry, repr(sorted(settings.items()))]
    found = blake2b("\n".join(parts).encode(), digest_size=16)
    for data in prepared.baseline.encoded:
        found.update(data)
    return found.hexdigest()


_FREE = ("budget_s", "tries", "min_gain", "max_regress", "max_memory", "tests_limit_s")


def _choose(
    prepared: Prepared, judge: Judge, candidates: list[Attempt], say: Say
) -> tuple[Attempt | None, Verdict | None, list[str]]:
    """The best candidate that the last word accepts; what it was refused for else."""
    refused: list[str] = []
    for attempt in candidates[:_FINALISTS]:
        if attempt.score < 1.0 + (prepared.config.min_gain - 1.0) / 2:
            continue
        told = said(prepared.config.objective, attempt.score)
        say(f"measuring {', '.join(attempt.steps) or attempt.origin}: about {told}")
        verdict = decide(
            judge, attempt, prepared.corpus, prepared.original, prepared.again, prepared.command
        )
        if verdict.accepted:
            return attempt, verdict, refused
        say(f"refused: {verdict.reason}")
        refused.append(verdict.reason)
        judge.journal.add(replace(attempt, verdict="failed", reason=verdict.reason), known=True)
    return None, None, refused


def _symbolic(config: ImproveConfig, verdict: Verdict | None) -> str:
    if not config.symbolic_s:
        return "not asked for"
    found = verdict.symbolic if verdict is not None else None
    return "nothing was accepted" if found is None else found.summary()


def _result(
    prepared: Prepared,
    journal: Journal,
    budget: Budget,
    chosen: Attempt | None,
    verdict: Verdict | None,
    refused: list[str],
    versions: list[Version],
    seconds: float,
) -> ImproveResult:
    target, baseline = prepared.target, prepared.baseline
    compared = len(baseline.inputs)
    if verdict is not None:
        timed = sum(len(one.inputs) for one in prepared.levels)
        compared += verdict.fresh_inputs + timed
    kinds = {name: _words(kind) for name, kind in prepared.facts.arguments.items()}
    evidence = Evidence(
        inputs={**prepared.corpus.sources, "made up": len(prepared.corpus.made)},
        compared=compared,
        equality=prepared.config.equal,
        largest_ulp=prepared.equality.largest,
        seeds=(prepared.config.seed, prepared.config.seed + 7919),
        tests=verdict.tests if verdict is not None else "",
        kinds=kinds,
        dropped={**baseline.dropped, **prepared.corpus.left_out},
        not_checked=_NOT_CHECKED,
        symbolic=_symbolic(prepared.config, verdict),
    )
    tried = len(journal.attempts)
    words = f"{tried} proposals tried, none was right and faster" if tried else "no rule applies"
    why = "; ".join(refused) or words
    top = verdict.levels[-1] if verdict is not None else None
    notes = [budget.stopped, verdict.note if verdict is not None else ""]
    first_call = verdict.first_call if verdict is not None else None
    if first_call is not None:
        notes.append(first_call.summary())
    return ImproveResult(
        target=f"{target.file.name}:{target.entry}",
        improved=chosen is not None,
        speedup=top.ratio if top is not None else 1.0,
        interval=(top.low, top.high) if top is not None else (1.0, 1.0),
        evidence=evidence,
        patch="" if chosen is None else unified(target, chosen.text),
        text=target.text if chosen is None else chosen.text,
        explain="" if chosen is None else chosen.explain,
        risk="" if chosen is None else chosen.risk,
        origin="" if chosen is None else chosen.origin,
        why="" if chosen is not None else why,
        first_call=first_call,
        gain=verdict.gain if verdict is not None else None,
        levels=verdict.levels if verdict is not None else [],
        exponents=exponents(verdict.levels) if verdict is not None else None,
        memory_mib=verdict.memory_mib if verdict is not None else (0.0, 0.0),
        versions=versions,
        profile=prepared.profile,
        attempts=journal.attempts,
        seconds=seconds,
        notes=tuple(filter(None, notes)),
        proof=Proof(
            location=target,
            inputs=baseline.inputs,
            expected=baseline.expected,
            timed=[(one.name, one.inputs) for one in prepared.levels],
            command=prepared.command,
        ),
    )
