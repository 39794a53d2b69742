"""Loops that count the ones in a number's binary form: ``int.bit_count``.

Halving a number above 0 until it is 0 meets each binary digit once, and ``n & n - 1`` takes the
lowest one away (Wegner, "A technique for counting ones in a binary computer", 1960). Both leave 0.
Below 0 such a loop does not end, or does not begin; it stays for that case.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code

__all__ = ["BIT_COUNT"]

_HALVED = ("n_ = n_ // 2", "n_ //= 2", "n_ >>= 1", "n_ = n_ >> 1")
_IS_ODD = ("n_ % 2 == 1", "n_ % 2", "n_ & 1", "n_ & 1 == 1", "n_ % 2 != 0", "n_ & 1 != 0")
_COUNTED = (*(f"if {odd}:\n c_ += 1" for odd in _IS_ODD), "c_ += n_ & 1", "c_ += n_ % 2")
_CLEARED = ("n_ &= n_ - 1", "n_ = n_ & n_ - 1")
_BODIES = (
    *("\n".join(pair) for pair in product(_COUNTED, _HALVED)),
    *("\n".join(pair) for pair in product(_CLEARED, ("c_ += 1",))),
    *("\n".join(pair) for pair in product(("c_ += 1",), _CLEARED)),
)


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.While) or loop.orelse:
            continue
        test = code.match_any(("n_ > 0", "0 < n_", "n_", "n_ != 0"), loop.test)
        found = code.match_any_block(_BODIES, loop.body) if test else None
        if not test or not found or test["n_"] != found["n_"]:
            continue
        n, c = found["n_"], found["c_"]
        whole = all(code.kinds.variable(x).only(int) and code.effects.is_steady(x) for x in (n, c))
        if not whole or n == c or not code.is_bound_before(c, loop):
            continue
        if code.is_otherwise(loop, "n_ > 0"):
            continue
        lines = [f"if {n} > 0:", f"    {c} += {n}.bit_count()", f"    {n} = 0"]
        if not isinstance(loop.test, ast.Compare) or isinstance(loop.test.ops[0], ast.NotEq):
            block = code.source.block([loop], "    ")
            if block is None:
                continue
            edit = code.exchange([loop], [*lines, "else:", *block])
        else:
            replaced = code.replace([loop], lines)
            if replaced is None:
                continue
            edit = replaced
        yield Change(f"counts the ones of {n} with bit_count", (edit,))


BIT_COUNT = Rewriter(
    name="bit-count",
    summary="a loop that counts the ones of a number in binary: `bit_count`",
    risk="types",
    find=_find,
    example=(
        """\
def ones_of(number):
    count = 0
    while number > 0:
        if number % 2 == 1:
            count += 1
        number = number // 2
    return count
""",
        """\
def ones_of(number):
    count = 0
    if number > 0:
        count += number.bit_count()
        number = 0
    return count
""",
    ),
)
