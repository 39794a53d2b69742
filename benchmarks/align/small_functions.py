"""Small functions in the style of HumanEval: a signature, a sentence, and calls with outputs.

Each item is written here as a sentence and an expression; the outputs of its calls come from the
expression. Families hold several items that differ by a constant or an operation, so that items are
held out by family: nothing that is judged was trained on in another guise.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

__all__ = ["rows"]

_NUMBERS: dict[str, list[tuple[str, str]]] = {
    "sum": [("Return the sum of x and {k}.", "x + {k}")],
    "difference": [("Return x minus {k}.", "x - {k}")],
    "product": [("Return x multiplied by {k}.", "x * {k}")],
    "remainder": [("Return the remainder of x divided by {k}.", "x % {k}")],
    "power": [("Return the square of x.", "x * x"), ("Return the cube of x.", "x ** 3")],
    "parity": [
        ("Return True if x is even, else False.", "x % 2 == 0"),
        ("Return True if x is odd, else False.", "x % 2 == 1"),
    ],
    "sign": [
        ("Return True if x is positive, else False.", "x > 0"),
        ("Return True if x is negative, else False.", "x < 0"),
    ],
    "absolute": [("Return the absolute value of x.", "abs(x)")],
    "larger": [
        ("Return the larger of x and {k}.", "max(x, {k})"),
        ("Return the smaller of x and {k}.", "min(x, {k})"),
    ],
    "multiple": [("Return True if x is a multiple of {k}, else False.", "x % {k} == 0")],
    "digits": [
        ("Return the sum of the digits of the absolute value of x.", "sum(map(int, str(abs(x))))")
    ],
    "as text": [("Return x as a string.", "str(x)")],
}
_LISTS: dict[str, list[tuple[str, str]]] = {
    "total": [("Return the sum of all numbers in the list x.", "sum(x)")],
    "extreme": [
        ("Return the largest number in the list x.", "max(x)"),
        ("Return the smallest number in the list x.", "min(x)"),
    ],
    "count": [("Return how many numbers are in the list x.", "len(x)")],
    "end": [
        ("Return the first number of the list x.", "x[0]"),
        ("Return the last number of the list x.", "x[-1]"),
    ],
    "order": [
        ("Return the list x in ascending order.", "sorted(x)"),
        ("Return the list x in descending order.", "sorted(x, reverse=True)"),
    ],
    "reversed": [("Return the list x in reverse order.", "x[::-1]")],
    "added": [
        ("Return a list with {k} added to each number of the list x.", "[n + {k} for n in x]")
    ],
    "scaled": [
        ("Return a list with each number of the list x multiplied by {k}.", "[n * {k} for n in x]")
    ],
    "chosen": [
        ("Return a list of the even numbers in the list x.", "[n for n in x if n % 2 == 0]"),
        ("Return a list of the positive numbers in the list x.", "[n for n in x if n > 0]"),
        (
            "Return a list of the numbers in the list x that are larger than {k}.",
            "[n for n in x if n > {k}]",
        ),
    ],
    "counted": [
        ("Return how many numbers in the list x are even.", "sum(n % 2 == 0 for n in x)"),
        ("Return how many numbers in the list x are negative.", "sum(n < 0 for n in x)"),
    ],
    "squares": [
        ("Return the sum of the squares of the numbers in the list x.", "sum(n * n for n in x)")
    ],
    "member": [("Return True if {k} is in the list x, else False.", "{k} in x")],
    "spread": [
        (
            "Return the difference between the largest and the smallest number of the list x.",
            "max(x) - min(x)",
        )
    ],
}
_TEXTS: dict[str, list[tuple[str, str]]] = {
    "case": [
        ("Return the string x in upper case.", "x.upper()"),
        ("Return the string x in lower case.", "x.lower()"),
    ],
    "length": [("Return the number of characters in the string x.", "len(x)")],
    "backwards": [("Return the string x reversed.", "x[::-1]")],
    "letter": [
        ("Return the first character of the string x.", "x[0]"),
        ("Return the last character of the string x.", "x[-1]"),
    ],
    "repeated": [("Return the string x repeated {k} times.", "x * {k}")],
    "words": [
        ("Return the list of words in the string x.", "x.split()"),
        ("Return the number of words in the string x.", "len(x.split())"),
    ],
    "vowels": [
        ("Return the number of vowels in the lower-case string x.", "sum(c in 'aeiou' for c in x)")
    ],
    "without spaces": [("Return the string x without spaces.", "x.replace(' ', '')")],
    "begins": [
        ("Return True if the string x starts with the letter 'a', else False.", "x.startswith('a')")
    ],
    "palindrome": [
        ("Return True if the string x is the same backwards, else False.", "x == x[::-1]")
    ],
    "joined": [("Return the string x followed by an exclamation mark.", "x + '!'")],
}
_WORDS = ["a", "apple", "banana", "level", "noon", "tree", "river", "open", "sky", "kayak", "green"]


def _number(chance: random.Random) -> int:
    return chance.randint(-30, 30)


def _list(chance: random.Random) -> list[int]:
    return [chance.randint(-20, 20) for _ in range(chance.randint(1, 7))]


def _text(chance: random.Random) -> str:
    return " ".join(chance.sample(_WORDS, chance.randint(1, 3)))


_KINDS: tuple[tuple[str, dict[str, list[tuple[str, str]]], Callable[[random.Random], Any]], ...] = (
    ("int", _NUMBERS, _number),
    ("list[int]", _LISTS, _list),
    ("str", _TEXTS, _text),
)


def rows(*, held_out: bool, constants: int = 4) -> list[dict[str, Any]]:
    """Prompts with what judges their programs; one family in three is held out."""
    found = []
    for kind, families, draw in _KINDS:
        for number, (family, items) in enumerate(families.items()):
            if (number % 3 == 2) != held_out:
                continue
            for at, (sentence, expression) in enumerate(items):
                for k in range(2, 2 + constants) if "{k}" in sentence else (0,):
                    found.append(_row(kind, family, at, sentence, expression, k, draw))
    return found


def _row(
    kind: str,
    family: str,
    at: int,
    sentence: str,
    expression: str,
    k: int,
    draw: Callable[[random.Random], Any],
) -> dict[str, Any]:
    chance = random.Random(f"{kind} {family} {at} {k}")
    calls = [draw(chance) for _ in range(8)]
    body = expression.format(k=k) if "{k}" in sentence else expression
    shown = calls[0]
    value = eval(body, {"x": shown})
    text = sentence.format(k=k)
    prompt = (
        "Complete this Python function. Answer with the function alone.\n\n"
        f"def solve(x: {kind}):\n"
        f'    """{text}\n\n    >>> solve({shown!r})\n    {value!r}\n    """\n'
    )
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "entry": "solve",
        "inputs": [[one] for one in calls],
        "expected": [eval(body, {"x": one}) for one in calls],
        "family": f"{kind}: {family}",
    }
