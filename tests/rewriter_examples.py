"""Arguments for the functions that the rewriters show as examples."""

from __future__ import annotations

import ast
from typing import Any

ARGUMENTS: dict[str, tuple[Any, ...]] = {
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
    "find_in_rows": ([[1, 2], [3]], 3),
    "points_of": (2, 5),
    "lines_with": (["a b", "b"], ["b", "a"]),
    "common_friends": ({"a": ["b", "c"], "b": ["c"]}, "a", "b"),
    "smaller_behind": ([3, 1, 2],),
    "is_anagram": ("aab", "aba"),
    "stretches": ([1, -1, 2], 1),
    "letters_of": ("aab",),
    "close_pairs": ([1.5, 2.0, 2.25], 0.5),
    "common": ([1, 2], [2, 3]),
    "unique": ([1, 2],),
    "ones_of": (13,),
    "common_divisor": (12, 18),
    "common_multiple": (4, 6),
    "whole_root": (17,),
    "factorial_of": (5,),
    "window_maxima": ([1, 3, 2, 0, 5], 2),
    "divisors_of": (12,),
    "vowels_in": ("aeb",),
    "places_of": ("aeaea", "aea"),
    "next_larger": ([1, 3, 2, 0, 5],),
    "has_pair": ([1, 2], 3),
}


def entry_of(text: str) -> str:
    return next(n.name for n in ast.parse(text).body if isinstance(n, ast.FunctionDef))
