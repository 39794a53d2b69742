"""Tasks of small programs: two examples are shown, a program that does the same is asked for.

A prompt reads ``3129>9213 4095>5904=`` and a completion ``r``. The row also has more tests than the
prompt shows. Every task is fair: of all programs of its length or less, those that agree with the
examples agree with the tests too. The solution is the shortest there is. Whether a row is of the
training or of the test split is decided by its prompt, so that no seed mixes them.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from sharpen.align.domains.programs import FAST, cost, pessimized, run_program, run_tests
from sharpen.core.errors import ConfigError

__all__ = ["KINDS", "program_rows"]

KINDS = ("prompt", "completion", "preference", "label", "ranked")
_SHOWN, _HIDDEN = 2, 6
_DIGITS = 4
_TEST_SHARE = 5  # one prompt in so many


def program_rows(
    count: int,
    *,
    kind: str = "completion",
    split: Literal["train", "test"] = "train",
    letters: int = 1,
    slow: bool = False,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of tasks, in the formats of :mod:`sharpen.align.rows`.

    Args:
        count: how many.
        kind: ``prompt``; ``completion`` with a solution; ``preference``: a solution and a wrong
            program; ``label``: one of both; ``ranked``: a solution, a slow one, a wrong program,
            one that fails and a text that is none, with scores.
        split: rows of the two never share a prompt.
        letters: a program has so many at most; 1 to 3.
        slow: solutions are slow ones, as for learning to be fast.
        seed: of the draws.

    Returns:
        Rows with ``prompt``, the keys of their kind, ``tests`` (inputs and outputs, those of the
        prompt first) and ``solution``, the shortest program.

    Raises:
        ConfigError: a setting is out of range.

    Examples:
        >>> row = program_rows(1, seed=3)[0]
        >>> from sharpen.align.domains.programs import run_tests
        >>> run_tests(row["completion"], row["tests"]).ending
        'correct'
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r} of program rows: {', '.join(KINDS)}.")
    if count < 1 or not 1 <= letters <= 3 or split not in ("train", "test"):
        raise ConfigError(
            f"count={count} must be at least 1, letters={letters} from 1 to 3, split={split!r}"
            " train or test."
        )
    random = np.random.default_rng((seed, split == "test", letters))
    found: list[dict[str, Any]] = []
    for task in _tasks(random, split, letters):
        solution = task["solution"]
        if slow:
            solution = pessimized(solution, random, changes=int(random.integers(1, 4)))
        found.append(_AS_KIND[kind](task, solution, random, letters))
        if len(found) == count:
            break
    return found


def _tasks(random: np.random.Generator, split: str, letters: int) -> Iterator[dict[str, Any]]:
    words = _words(letters)
    while True:
        program = str(random.choice(words))
        inputs = [_digits(random) for _ in range(_SHOWN + _HIDDEN)]
        try:
            tests = [[one, run_program(program, one)] for one in inputs]
        except IndexError:
            continue
        prompt = " ".join(f"{a}>{b}" for a, b in tests[:_SHOWN]) + "="
        is_test = zlib.crc32(prompt.encode()) % _TEST_SHARE == 0
        if is_test != (split == "test"):
            continue
        fit = [word for word in words if run_tests(word, tests[:_SHOWN]).ending == "correct"]
        if all(run_tests(word, tests).ending == "correct" for word in fit):
            yield {"prompt": prompt, "tests": tests, "solution": fit[0]}


@lru_cache(maxsize=4)
def _words(letters: int) -> tuple[str, ...]:
    """Programs of up to so many letters, the shortest first."""
    return tuple(
        "".join(word)
        for length in range(1, letters + 1)
        for word in itertools.product(FAST, repeat=length)
    )


def _digits(random: np.random.Generator) -> str:
    return "".join(str(digit) for digit in random.integers(0, 10, _DIGITS))


def _wrong(task: dict[str, Any], random: np.random.Generator, letters: int) -> str:
    words = _words(letters)
    while True:
        word = str(random.choice(words))
        if run_tests(word, task["tests"]).ending == "wrong":
            return word


def _completion(
    task: dict[str, Any], solution: str, random: np.random.Generator, letters: int
) -> dict[str, Any]:
    return {**task, "completion": solution}


def _preference(
    task: dict[str, Any], solution: str, random: np.random.Generator, letters: int
) -> dict[str, Any]:
    return {**task, "chosen": solution, "rejected": _wrong(task, random, letters)}


def _label(
    task: dict[str, Any], solution: str, random: np.random.Generator, letters: int
) -> dict[str, Any]:
    good = bool(random.random() < 0.5)
    completion = solution if good else _wrong(task, random, letters)
    return {**task, "completion": completion, "label": good}


def _ranked(
    task: dict[str, Any], solution: str, random: np.random.Generator, letters: int
) -> dict[str, Any]:
    inputs = tuple(given for given, _ in task["tests"])
    slower = pessimized(task["solution"], random)
    ratio = cost(task["solution"], inputs) / cost(slower, inputs)
    responses = [
        task["solution"],
        slower,
        _wrong(task, random, letters),
        "l" * (max(map(len, inputs)) + 1) + "p",
        "9=",
    ]
    rest = {key: value for key, value in task.items() if key != "prompt"}
    return {
        **rest,
        "query": task["prompt"],
        "responses": responses,
        "scores": [1.0, round(0.5 + 0.5 * ratio, 4), -0.3, -0.6, -1.0],
    }


_Make = Callable[[dict[str, Any], str, np.random.Generator, int], dict[str, Any]]
_AS_KIND: dict[str, _Make] = {
    "prompt": lambda task, *_: task,
    "completion": _completion,
    "preference": _preference,
    "label": _label,
    "ranked": _ranked,
}
