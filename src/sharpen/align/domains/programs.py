"""A language of small programs on strings of digits, which is compiled to Python and really runs.

A program is a word of one to eight letters; each changes the string, one after the other::

    r  reverse                          i  add 1 to each digit, 9 becomes 0
    s  sort                             n  nine minus each digit
    t  leave out the first digit        c  running sums, their last digits
    l  leave out the last digit         p  put the last digit first; fails where there is none
    d  the string twice

A capital does the same in a slower way, digit by digit. So there are right programs of different
costs for every task, and programs that fail, all known exactly. Since only letters of this table
are compiled, running a program here is as safe as the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from sharpen.code.measure.timing import count_opcodes
from sharpen.core.errors import DataError
from sharpen.core.sandbox.inside.codec import encode

__all__ = [
    "FAST",
    "MOST_LETTERS",
    "Ending",
    "cost",
    "is_program",
    "pessimized",
    "python_source",
    "run_program",
    "run_tests",
]

MOST_LETTERS = 8

_UP = 'str.maketrans("0123456789", "1234567890")'
_NINE = 'str.maketrans("0123456789", "9876543210")'
_STEPS: dict[str, str] = {
    "r": "s = s[::-1]",
    "s": 's = "".join(sorted(s))',
    "t": "s = s[1:]",
    "l": "s = s[:-1]",
    "d": "s = s + s",
    "i": f"s = s.translate({_UP})",
    "n": f"s = s.translate({_NINE})",
    "c": 's = "".join(str(n % 10) for n in accumulate(map(int, s)))',
    "p": "s = s[-1] + s[:-1]",
    "R": 'out = ""\nfor digit in s:\n    out = digit + out\ns = out',
    "S": (
        'out = ""\nfor digit in "0123456789":\n    for one in s:\n'
        "        if one == digit:\n            out += one\ns = out"
    ),
    "T": 'out = ""\nfor at, digit in enumerate(s):\n    if at > 0:\n        out += digit\ns = out',
    "L": (
        'out = ""\nfor at, digit in enumerate(s):\n    if at < len(s) - 1:\n'
        "        out += digit\ns = out"
    ),
    "D": 'out = ""\nfor time in range(2):\n    for digit in s:\n        out += digit\ns = out',
    "I": 'out = ""\nfor digit in s:\n    out += str((int(digit) + 1) % 10)\ns = out',
    "N": 'out = ""\nfor digit in s:\n    out += str(9 - int(digit))\ns = out',
    "C": (
        'out = ""\nfor end in range(1, len(s) + 1):\n    total = 0\n'
        "    for digit in s[:end]:\n        total += int(digit)\n    out += str(total % 10)\n"
        "s = out"
    ),
    "P": "out = s[-1]\nfor at in range(len(s) - 1):\n    out += s[at]\ns = out",
}
FAST = "rstldincp"
"""The letters of the fast ways."""

_NEUTRAL = ("rr", "nn", "RR", "NN", "Rr", "nN")
"""Words that change nothing, at a price."""

Ending = Literal["compile", "error", "wrong", "correct"]


def is_program(text: str) -> bool:
    """Whether a text is a program."""
    return 1 <= len(text) <= MOST_LETTERS and all(letter in _STEPS for letter in text)


def python_source(program: str) -> str:
    """A program as the Python function ``f(s)``.

    Raises:
        DataError: it is no program.

    Examples:
        >>> print(python_source("rt"))
        def f(s):
            s = s[::-1]
            s = s[1:]
            return s
        <BLANKLINE>
    """
    if not is_program(program):
        raise DataError(
            f"{program!r:.40} is no program: one to {MOST_LETTERS} letters of {FAST} or capitals."
        )
    lines = [line for letter in program for line in _STEPS[letter].splitlines()]
    head = "from itertools import accumulate\n\n\n" if "c" in program else ""
    body = "".join(f"    {line}\n" for line in lines)
    return f"{head}def f(s):\n{body}    return s\n"


@lru_cache(maxsize=65_536)
def _compiled(program: str) -> Callable[[str], str]:
    names: dict[str, Callable[[str], str]] = {}
    exec(compile(python_source(program), "<program>", "exec"), names)
    return names["f"]


def run_program(program: str, text: str) -> str:
    """What a program makes of a string of digits.

    Raises:
        DataError: it is no program.
        IndexError: it puts the last digit of nothing first.

    Examples:
        >>> run_program("ri", "129")
        '032'
    """
    return _compiled(program)(text)


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of a program on some tests."""

    ending: Ending
    passed: float
    """Share of the tests."""


def run_tests(program: str, tests: Sequence[Sequence[str]]) -> Tested:
    """Run a text that may be a program on inputs, and compare.

    Args:
        program: any text; space around it does not count.
        tests: inputs and what is expected of them.
    """
    program = program.strip()
    if not is_program(program):
        return Tested("compile", 0.0)
    passed, failed = 0, False
    for given, expected in tests:
        try:
            passed += run_program(program, given) == expected
        except IndexError:
            failed = True
    share = passed / max(len(tests), 1)
    return Tested("error" if failed else "correct" if passed == len(tests) else "wrong", share)


@lru_cache(maxsize=65_536)
def cost(program: str, inputs: tuple[str, ...]) -> int:
    """Instructions of Python's interpreter on some inputs together; the same in every run.

    Raises:
        DataError: it is no program.
        IndexError: it fails on one.
    """
    return sum(count_opcodes(_compiled(program), [encode([[one], {}]) for one in inputs]))


def pessimized(program: str, random: np.random.Generator, *, changes: int = 2) -> str:
    """The same function at a higher cost: slower ways of its steps, or words that change nothing.

    Args:
        program: what is made slower.
        random: draws the changes.
        changes: how many, as far as the length allows.
    """
    letters = list(program)
    for _ in range(changes):
        fast = [i for i, letter in enumerate(letters) if letter in FAST]
        room = len(letters) + 2 <= MOST_LETTERS
        if fast and (not room or random.random() < 0.5):
            at = int(random.choice(fast))
            letters[at] = letters[at].upper()
        elif room:
            at = int(random.integers(len(letters) + 1))
            letters[at:at] = str(random.choice(_NEUTRAL))
    return "".join(letters)
