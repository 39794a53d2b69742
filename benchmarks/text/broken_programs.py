"""Problems of HumanEval, broken by one change each, with the examples that their text shows."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.text.code_runner import Runner, arguments_of

from sharpen.code.problems import Problem, load_problems
from sharpen.text.mutations import mutants

_BETWEEN = re.compile(r"\)?`?\s*(?:==?>?|=>|-+>|➞|returns?:?|should (?:be|return)|\n\s*)\s*")

__all__ = ["Broken", "broken_problems"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A wrong program."""

    name: str
    source: str
    """One change away from the reference."""

    kind: str
    """The family of that change."""

    entry: str
    """The function's name."""

    examples: list[tuple[list[Any], Any]]
    """Pairs of arguments and value, from the problem's text."""

    test: str
    """The hidden tests."""


def broken_problems(runner: Runner, *, seed: int, limit: int | None = None) -> list[Broken]:
    """For each problem whose text has examples, the reference after one random change.

    The change fails a hidden test and an example. Problems of which no change does are left out.
    """
    found: list[Broken] = []
    for k, problem in enumerate(load_problems("humaneval")):
        if limit is not None and len(found) >= limit:
            break
        reference = problem.reference
        examples = _examples_of(problem)
        if not examples:
            continue
        told = runner.examples(reference, problem.entry, examples)
        examples = [one for one, said in zip(examples, told, strict=True) if said["right"]]
        assert problem.tests is not None
        if not examples or not runner.passes(reference, problem.tests, problem.entry):
            continue
        candidates = mutants(reference)
        order = np.random.default_rng([seed, k]).permutation(len(candidates))
        for place in order:
            mutant = candidates[place]
            told = runner.examples(mutant.source, problem.entry, examples)
            seen = all(one["right"] for one in told)
            if not seen and not runner.passes(mutant.source, problem.tests, problem.entry):
                found.append(
                    Broken(
                        name=problem.name,
                        source=mutant.source,
                        kind=mutant.kind,
                        entry=problem.entry,
                        examples=examples,
                        test=problem.tests,
                    )
                )
                break
    return found


def _examples_of(problem: Problem) -> list[tuple[list[Any], Any]]:
    """Calls with their values in the docstring of the problem's function."""
    tree = ast.parse(problem.prompt + "    pass\n")
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    (function,) = [n for n in functions if n.name == problem.entry]
    text = ast.get_docstring(function) or ""
    calls = re.finditer(rf"\b{re.escape(problem.entry)}\(", text)
    found: dict[str, tuple[list[Any], Any]] = {}
    for call in calls:
        source = _longest(text[call.start() :], ")", "eval")
        if source is None:
            continue
        rest = text[call.start() + len(source) :]
        between = _BETWEEN.match(rest)
        value = _longest(rest[between.end() :].split("\n")[0], "", "literal") if between else None
        arguments = arguments_of(source, problem.entry)
        if value is not None and arguments is not None:
            found.setdefault(source, (arguments, ast.literal_eval(value)))
    return list(found.values())


def _longest(text: str, ends: str, kind: str) -> str | None:
    """The longest beginning of a text that is a literal; or the shortest that is a whole call."""
    places = [k + 1 for k, c in enumerate(text[:400]) if not ends or c == ends]
    for end in places if ends else reversed(places):
        part = text[:end]
        try:
            if kind == "literal":
                ast.literal_eval(part.strip())
            else:
                ast.parse(part, mode="eval")
        except (SyntaxError, ValueError, MemoryError):
            continue
        return part.strip()
    return None
