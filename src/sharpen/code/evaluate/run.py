"""Evaluate programs: whether they are right, and how fast."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sharpen._version import __version__
from sharpen.code.evaluate.config import EvalConfig
from sharpen.code.evaluate.journal import Journal
from sharpen.code.evaluate.levels import Pools, Verdict, judge, prepare
from sharpen.code.evaluate.passing import by_tests
from sharpen.code.evaluate.report import metrics_of
from sharpen.code.evaluate.samples import Samples
from sharpen.code.problems import Problem
from sharpen.core.config import digest
from sharpen.core.errors import ConfigError, Interrupted
from sharpen.core.files import atomic_write_json
from sharpen.core.sandbox import SandboxPool

__all__ = ["evaluate"]

FORMAT = 1


def evaluate(
    problems: Sequence[Problem],
    samples: Samples,
    config: EvalConfig | None = None,
    *,
    out: str | Path | None = None,
    packages: Sequence[str] = (),
    on_problem: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    r"""Run programs on the inputs or the tests of their problems.

    Problems that have levels are timed on inputs of growing size, as in ENAMEL; where there are
    tests, programs have to pass them. Programs run in sandboxes.

    Args:
        problems: which ones; those without samples are left out.
        samples: by the problem's name, programs.
        config: settings.
        out: where the report goes; beside it a journal lets an evaluation that was ended go on.
        packages: installed packages that programs may import.
        on_problem: called with the name of each problem that is done.

    Returns:
        ``metrics`` (by name, ``value`` with ``low`` and ``high``), ``problems`` (by name, what came
        of each program), ``config`` and ``versions``.

    Raises:
        ConfigError: there is nothing to evaluate, or a k is beyond the number of samples.
        ExecutionError: a problem's own solution fails.
        SandboxUnavailable: this machine has no sandbox.
        Interrupted: the user stopped it.

    Example:
        >>> from sharpen.code.evaluate import EvalConfig, evaluate
        >>> from sharpen.code.problems import load_problems
        >>> one = [p for p in load_problems("own") if p.name == "spread"]
        >>> code = "def spread(xs):\n    return max(xs) - min(xs)\n"
        >>> found = evaluate(one, {"spread": [code]}, EvalConfig(clock="opcodes"))
        >>> found["metrics"]["pass@1"]["value"]
        1.0
    """
    config = config or EvalConfig()
    asked = [p for p in problems if samples.get(p.name)]
    if not asked:
        raise ConfigError("there are no samples for any of the problems.")
    fewest = min(len(samples[p.name]) for p in asked)
    if min(config.k) > fewest:
        raise ConfigError(
            f"k={min(config.k)} needs more samples than the {fewest} of a problem: give --k up to"
            f" {fewest}."
        )
    target = None if out is None else Path(out)
    journal = Journal(None if target is None else target.with_name(target.name + ".journal"))
    found: dict[str, Any] = {}
    keys = {p.name: _key(p, samples[p.name], config) for p in asked}
    waiting = []
    for problem in asked:
        known = journal.get(keys[problem.name])
        if known is None:
            waiting.append(problem)
        else:
            found[problem.name] = known
            if on_problem is not None:
                on_problem(problem.name)
    try:
        with ExitStack() as stack:
            if waiting:
                executor = stack.enter_context(ThreadPoolExecutor(config.jobs))
                # Closed before the threads are waited for, which ends what they are at.
                pools = Pools(
                    stack.enter_context(SandboxPool(config.jobs)),
                    stack.enter_context(SandboxPool(config.jobs, packages=packages)),
                )
                work = {
                    executor.submit(_one, p, samples[p.name], config, pools): p for p in waiting
                }
                stack.callback(_cancel, list(work))
                for future in as_completed(work):
                    name = work[future].name
                    found[name] = future.result()
                    journal.add(keys[name], found[name])
                    if on_problem is not None:
                        on_problem(name)
    except KeyboardInterrupt:
        journal.close(done=False)
        kept = f"{len(found)} of {len(asked)} problems are done"
        again = "; the same command goes on" if target is not None else ""
        raise Interrupted(f"{kept}{again}.") from None
    except BaseException:
        journal.close(done=False)
        raise
    ordered = {p.name: found[p.name] for p in asked}
    report = {
        "format": FORMAT,
        "metrics": metrics_of(ordered, config.k, config.clock),
        "samples": sum(len(samples[p.name]) for p in asked),
        "suspicious": sum(bool(s) for one in ordered.values() for s in one.get("suspicious", [])),
        "config": asdict(config),
        "versions": {"sharpen": __version__, "python": platform.python_version()},
        "problems": ordered,
    }
    if target is not None:
        atomic_write_json(target, report)
    journal.close(done=True)
    return report


def _cancel(work: list[Future[Any]]) -> None:
    for future in work:
        future.cancel()


def _key(problem: Problem, programs: Sequence[str], config: EvalConfig) -> str:
    settings = {k: v for k, v in asdict(config).items() if k not in ("jobs", "k")}
    return digest([problem.to_dict(), list(programs), settings])


def _one(
    problem: Problem, programs: Sequence[str], config: EvalConfig, pools: Pools
) -> dict[str, Any]:
    """What came of the programs of a problem, as lists."""
    if not problem.levels:
        if problem.tests is None:
            raise ConfigError(f"problem {problem.name} has neither levels nor tests.")
        return by_tests(problem, programs, config, pools.theirs)
    prepared = prepare(problem, config, pools)
    tested = by_tests(problem, programs, config, pools.theirs) if problem.tests else None
    verdicts = [
        judge(problem, program, prepared, config, pools)
        if tested is None or tested["passed"][i]
        else Verdict(passed=False, why=tested["why"][i])
        for i, program in enumerate(programs)
    ]
    found: dict[str, Any] = {
        name: [getattr(v, name) for v in verdicts]
        for name in ("passed", "efficiency", "times", "why", "suspicious")
    }
    return {**found, "reference": prepared.times, "limit": prepared.limit, "slow": prepared.slow}
