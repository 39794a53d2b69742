"""Every rewriter does what its example says."""

from __future__ import annotations

import ast
import re

import pytest

from differential import assert_same, drawn_calls, facts_of
from sharpen.code.rewrite import REWRITERS, Rewriter, propose

ARGUMENTS = {
    "fibonacci": (3,),
    "names_of": ([(1, 7), (2, 8)], [(7, "a"), (8, "b")]),
    "pairs_of": ([1, 2], [2, 1]),
    "pairs_with_sum": ([1, 2, 3], 4),
    "repeated": ([1, 2, 1],),
    "first_only": ([1, 2, 1],),
    "rotated": ([1, 2, 1], 2),
    "is_prime": (15,),
    "count_divisors": (12,),
    "balance_point": ([1, -1],),
    "running_maxima": ([1, -1],),
    "total_of": ([1, -1],),
    "ones": ([1, -1],),
    "largest": ([1, -1],),
    "has_negative": ([1, -1],),
    "shares": ([1, -1],),
    "inversions": ([1, -1],),
    "row_sum": (b"\x01\x05abc", 1, 3),
    "extrema": (bytes(range(20)), 3, 3, 5),
    "three_least": ([3, 1, 2],),
    "numbers_below": ([3, 1, 2],),
    "medians": ([3, 1, 2],),
    "in_order": ([3, 1, 2],),
    "joined": ([[3], [1, 2]],),
    "flat": ([[3], [1, 2]],),
    "squares_of_even": ([3, 1, 2],),
    "tally": ([3, 1, 3],),
    "power_of": (3, 4, 5),
    "power_modulo": (3, 4, 5),
    "positions": ([3, -1, 2],),
    "widest": ([[3], [1, 2]],),
    "in_order_of": ([3, 1],),
    "without": ([3, 1, 3], 3),
    "common": ([1, 2], [2, 3]),
    "unique": ([1, 2],),
    "has_pair": ([1, 2], 3),
}


def entry_of(text: str) -> str:
    return next(n.name for n in ast.parse(text).body if isinstance(n, ast.FunctionDef))


@pytest.mark.parametrize("rewriter", REWRITERS, ids=lambda r: r.name)
def test_the_example_is_rewritten_as_it_says(rewriter: Rewriter) -> None:
    before, after = rewriter.example
    entry = entry_of(before)
    facts = facts_of(before, entry, [ARGUMENTS[entry]], allow=rewriter.needs)
    found = [r for r in propose(before, entry, facts) if r.rewriter == rewriter.name]
    assert [r.text for r in found] == [after]
    assert found[0].risk == rewriter.risk
    assert re.fullmatch(r"[a-z].*[^.]", found[0].explain)
    calls = drawn_calls([ARGUMENTS[entry]], 1, 120)
    assert assert_same(before, after, entry, calls) > 60


def test_names_are_unlike() -> None:
    assert len({r.name for r in REWRITERS}) == len(REWRITERS)
    assert all(re.fullmatch(r"[a-z0-9-]+", r.name) for r in REWRITERS)
