"""Other forms of what the examples show: rewritten too, and right."""

from __future__ import annotations

from typing import Any

import pytest

from differential import assert_same, closure, drawn_calls, facts_of
from rewriter_examples import entry_of
from sharpen.code.rewrite import propose

VARIANTS: list[tuple[str, str, tuple[Any, ...]]] = [
    (
        "bit-count",
        """\
def count_bits(n):
    count = 2
    while n:
        count += n & 1
        n >>= 1
    return count, n
""",
        (9,),
    ),
    (
        "bit-count",
        """\
def ones_below(n):
    out = []
    for number in range(n):
        count = 0
        while number > 0:
            number = number & number - 1
            count += 1
        out.append(count)
    return out
""",
        (9,),
    ),
    (
        "common-divisor",
        """\
def greatest(numbers):
    for candidate in range(min(numbers), 0, -1):
        if all(number % candidate == 0 for number in numbers):
            return candidate
    raise ValueError("there are no positive numbers")
""",
        ([12, 18],),
    ),
    (
        "common-divisor",
        """\
def greatest(a, b):
    for d in range(a, 0, -1):
        if b % d == 0 and a % d == 0:
            break
    return d
""",
        (12, 18),
    ),
    (
        "common-divisor",
        """\
def greatest(a, b):
    best = 1
    for d in range(1, b + 1):
        if not a % d and not b % d:
            best = d
    return best, a, b
""",
        (12, 18),
    ),
    (
        "common-divisor",
        """\
def by_subtraction(a, b):
    while a != b:
        if a > b:
            a = a - b
        else:
            b = b - a
    return a
""",
        (12, 18),
    ),
    (
        "common-multiple",
        """\
def least(a, b):
    m = a
    while m % a != 0 or m % b != 0:
        m += 1
    return m
""",
        (4, 6),
    ),
    (
        "root",
        """\
def above(n, i):
    while i * i < n:
        i += 1
    return i
""",
        (17, 0),
    ),
    (
        "root",
        """\
def not_above(n, i):
    while i**2 <= n:
        i = i + 1
    return i - 1
""",
        (17, -2),
    ),
    (
        "product-loop",
        """\
def product_of(xs):
    p = 1
    for x in xs:
        p = p * x
    return p
""",
        ([1, 2, 3],),
    ),
    (
        "product-loop",
        """\
def choose(n, k):
    over = 1
    for i in range(n - k + 1, n + 1):
        over *= i
    under = 1
    for i in range(1, k + 1):
        under *= i
    return over // under
""",
        (5, 2),
    ),
]


@pytest.mark.parametrize(
    ("name", "text", "call"), VARIANTS, ids=[f"{v[0]}-{i}" for i, v in enumerate(VARIANTS)]
)
def test_variants_are_rewritten_and_right(name: str, text: str, call: tuple[Any, ...]) -> None:
    entry = entry_of(text)
    facts = facts_of(text, entry, [call])
    assert name in [r.rewriter for r in propose(text, entry, facts)]
    calls = [call, *drawn_calls([call], 5, 40)]
    for rewrite in closure(text, entry, facts, 2, most=8):
        assert_same(text, rewrite.text, entry, calls)
