"""The problems of our own: slow and fast solutions agree, and the fast ones do less."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from sharpen.code.measure.timing import count_opcodes
from sharpen.code.problems import Problem, load_problems
from sharpen.core.sandbox.inside.codec import encode
from sharpen.core.sandbox.job import same

PROBLEMS = load_problems("own")
# What they save is in C, which instructions of the interpreter do not show.
SAVED_IN_C = {
    *("brackets_match", "first_repeated", "flatten", "largest_k", "reverse_words"),
    *("trapped_water", "window_sums", "without_value", "zeros_to_end"),
}
cases = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)


def function(source: str, entry: str) -> Any:
    names: dict[str, Any] = {"__name__": "solution"}
    exec(compile(source, "<solution>", "exec", dont_inherit=True), names)
    return names[entry]


def test_there_are_enough_with_and_without_head_room() -> None:
    assert len(PROBLEMS) >= 60
    assert sum(p.slow is None for p in PROBLEMS) >= 10
    assert len({p.name for p in PROBLEMS}) == len(PROBLEMS)


@cases
def test_solutions_agree_and_repeat(problem: Problem) -> None:
    fast = function(problem.reference, problem.entry)
    slow = function(problem.slow, problem.entry) if problem.slow else fast
    for seed in (None, random.Random(problem.name).randrange(10**6)):
        for level in range(len(problem.levels)):
            given = {} if seed is None else {"seed": seed}
            count = problem.counts[level] if level < 2 else 1
            for args in problem.inputs(level, count=count, **given):
                encode(list(args), strict=True)  # it can go into a sandbox
                outputs = [f(*copy.deepcopy(args)) for f in (fast, slow, fast)]
                encode(outputs[0], strict=True)
                assert same(outputs[0], outputs[1]), args
                assert same(outputs[0], outputs[2])


@pytest.mark.slow
@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.slow], ids=lambda p: p.name)
def test_references_do_less(problem: Problem) -> None:
    args = problem.inputs(len(problem.levels) - 2, count=1)[0]
    data = [encode((args, {}))]
    assert problem.slow is not None
    fast, slow = (
        count_opcodes(function(source, problem.entry), data)[0]
        for source in (problem.reference, problem.slow)
    )
    if problem.name not in SAVED_IN_C:
        assert slow >= 1.1 * fast


@cases
def test_prompts_ask_for_the_function(problem: Problem) -> None:
    names: dict[str, Any] = {}
    exec(compile(problem.prompt, "<prompt>", "exec", dont_inherit=True), names)
    asked = names[problem.entry]
    assert asked.__doc__
    assert function(problem.reference, problem.entry).__doc__ == asked.__doc__
    if problem.slow:
        assert f"def {problem.entry}(" in problem.slow
        assert f"{problem.entry}_slow" not in problem.slow
