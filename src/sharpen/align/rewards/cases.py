"""What a program is judged by: the function asked for, inputs, what is expected, a reference.

A row says it in its keys, either of its own::

    entry       the function's name
    inputs      arguments of each call, a list each
    expected    what each call should give; without it, what ``reference`` gives
    tests       assert-style tests, in place of inputs and expected or beside them
    reference   a right program, whose time is the measure

or names a problem of ``sharpen.code``: ``problem``, its set in ``problems`` (default ``own``) and
the ``level`` of its inputs (default 1). Programs that read standard input are judged by
:mod:`sharpen.align.rewards.scripts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sharpen.code.problems import Problem, load_problems
from sharpen.core.config import digest
from sharpen.core.errors import DataError, ExecutionError, did_you_mean
from sharpen.core.sandbox import Call, Job, Limits, Result, SandboxPool
from sharpen.core.sandbox.job import EncodedCall

__all__ = ["TRUSTED_S", "Case", "case_key", "make_case"]

_KEYS = ("entry", "inputs", "expected", "tests", "prompt", "reference")
_SCRIPT = ("stdin", "reference", "language")
_NAMED = ("problem", "problems", "level")
TRUSTED_S = 60.0
"""Processor time that a reference may take."""


@dataclass(slots=True, kw_only=True)
class Case:
    """A function to write and how it is judged."""

    entry: str
    calls: Sequence[EncodedCall] = ()
    expected: Sequence[Any] | None = None
    tests: str | None = None
    prompt: str = ""
    """Helpers of the tests."""

    reference: str | None = None
    once: Result | None = None
    """A timed call of the reference with each input; None until it is taken."""

    load_s: float | None = None
    """Processor time of a job that only loads the reference; None until it is measured."""


def case_key(meta: Mapping[str, Any]) -> str:
    """A digest of what a row says about judging.

    Raises:
        DataError: it says nothing, or what it says is no plain data.
    """
    names = _SCRIPT if "stdin" in meta else _NAMED if "problem" in meta else _KEYS
    found = {name: meta[name] for name in names if name in meta}
    if not {"problem", "entry", "stdin"} & set(found):
        raise DataError(
            "the row has neither 'entry' (with 'inputs' or 'tests') nor 'problem' nor 'stdin', so"
            " its programs cannot be judged."
        )
    try:
        return digest(found)
    except (TypeError, ValueError) as error:
        raise DataError(f"the row's inputs or outputs are no plain data: {error}.") from None


def make_case(meta: Mapping[str, Any], ours: SandboxPool) -> Case:
    """The case of a row.

    Args:
        meta: the row's keys.
        ours: where generators of inputs and references run.

    Raises:
        DataError: a key is missing or of another type, or there is no such problem.
        ExecutionError: the reference or the generator fails.
    """
    case = _named(meta, ours) if "problem" in meta else _given(meta)
    if case.expected is None and case.calls:
        case.expected = _expected(case, ours)
    return case


def _given(meta: Mapping[str, Any]) -> Case:
    entry = meta.get("entry")
    if not isinstance(entry, str) or not entry.isidentifier():
        raise DataError(f"'entry' must be the name of a function, got {entry!r:.60}.")
    texts: dict[str, str | None] = {}
    for name in ("tests", "reference", "prompt"):
        value = meta.get(name)
        if value is not None and not isinstance(value, str):
            raise DataError(f"'{name}' must be text, got {value!r:.60}.")
        texts[name] = value
    inputs, expected = meta.get("inputs") or [], meta.get("expected")
    if not isinstance(inputs, (list, tuple)) or not all(
        isinstance(one, (list, tuple)) for one in inputs
    ):
        raise DataError("'inputs' must be a list with the arguments of each call in a list.")
    if not inputs and texts["tests"] is None:
        raise DataError("a row with 'entry' needs 'inputs' or 'tests'.")
    if expected is not None and len(expected) != len(inputs):
        raise DataError(f"{len(inputs)} 'inputs' and {len(expected)} 'expected' must be as many.")
    if inputs and expected is None and texts["reference"] is None and texts["tests"] is None:
        raise DataError("a row with 'inputs' needs 'expected', 'tests' or 'reference'.")
    return Case(
        entry=entry,
        calls=[Call(one).encoded() for one in inputs],
        expected=expected,
        tests=texts["tests"],
        prompt=texts["prompt"] or "" if texts["tests"] is not None else "",
        reference=texts["reference"],
    )


@lru_cache(maxsize=8)
def _problems(name: str) -> dict[str, Problem]:
    return {problem.name: problem for problem in load_problems(name)}


def _named(meta: Mapping[str, Any], ours: SandboxPool) -> Case:
    known = _problems(str(meta.get("problems", "own")))
    problem = known.get(str(meta["problem"]))
    if problem is None:
        near = did_you_mean(str(meta["problem"]), known)
        raise DataError(f"there is no problem '{meta['problem']}'.{near}")
    if problem.checker is not None:
        raise DataError(f"the problem '{problem.name}' has a checker of its own: not supported.")
    if not problem.levels:
        return Case(
            entry=problem.entry,
            tests=problem.tests,
            prompt=problem.prompt,
            reference=problem.reference,
        )
    level = int(meta.get("level", min(1, len(problem.levels) - 1)))
    inputs = problem.inputs(level, pool=None if problem.trusted else ours)
    return Case(
        entry=problem.entry,
        calls=[Call(one).encoded() for one in inputs],
        reference=problem.reference,
    )


def _expected(case: Case, ours: SandboxPool) -> Sequence[Any] | None:
    if case.reference is None:
        return None
    job = Job(
        source=case.reference,
        entry=case.entry,
        inputs=case.calls,
        limits=Limits(cpu_s=TRUSTED_S),
    )
    result = ours.run(job)
    if not result.ok:
        raise ExecutionError(f"the reference of '{case.entry}' fails: {result.summary()}")
    return result.outputs
