"""Loops over all possible divisors of a number: those up to its root are enough.

With ``d`` also ``n // d`` divides ``n``, and one of both is at most the root. So the least divisor
above 1 is at most the root, if there is one below ``n``; and all divisors come in such pairs.

Time O(sqrt n) instead of O(n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds
from sharpen.code.rewrite.source import Edit

__all__ = ["DIVIDES", "DIVISOR_PAIRS", "LEAST_DIVISOR", "in_pairs"]

_TO_N = ("range(2, N)", "range(2, N - 1)", "range(2, N + 1)", "range(2, N // 2 + 1)")
DIVIDES = ("N % i_ == 0", "not N % i_", "0 == N % i_")
_DIVIDES_NOT = ("N % i_ != 0", "N % i_", "N % i_ > 0", "0 != N % i_")


def _root(code: Code, number: ast.expr) -> tuple[str, tuple[str, ...]]:
    root, imports = code.library("math", "isqrt")
    return f"{root}(max({code.text(number)}, 0)) + 1", imports


def _is_number(code: Code, node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and code.type(node).only(int)


def _find_least(code: Code) -> Iterator[Change]:
    if not code.names.builtin("max"):
        return
    for statement in code.statements():
        if isinstance(statement, ast.For) and isinstance(statement.target, ast.Name):
            found = code.match_any(_TO_N[:2] + _TO_N[3:], statement.iter)
            if found and _is_number(code, found["N"]) and _stops(code, statement, found["N"]):
                yield _bounded(code, statement.iter, found["N"])
    for node in code.expressions():
        change = _any_or_all(code, node)
        if change is not None:
            yield change


def _bounded(code: Code, loop: ast.expr, number: ast.expr) -> Change:
    root, imports = _root(code, number)
    return Change(
        "looks for divisors up to the root alone, for above it there is none without one below",
        (code.swap(loop, f"range(2, {root})"),),
        imports,
    )


def _stops(code: Code, loop: ast.For, number: ast.expr) -> bool:
    """Whether a loop does nothing but leave at the first divisor of a number."""
    if len(loop.body) != 1 or not isinstance(loop.body[0], ast.If) or loop.body[0].orelse:
        return False
    test, action = loop.body[0].test, loop.body[0].body
    found = code.match_any(DIVIDES, test)
    assert isinstance(loop.target, ast.Name)
    assert isinstance(number, ast.Name)
    if not found or found["i_"] != loop.target.id or ast.unparse(found["N"]) != number.id:
        return False
    if not isinstance(action[-1], (ast.Return, ast.Break, ast.Raise)):
        return False
    return loop.target.id != number.id and code.is_unread(loop.target.id, [loop])


def _any_or_all(code: Code, node: ast.expr) -> Change | None:
    """``any(n % i == 0 for i in range(2, n))`` and ``all(n % i != 0 ...)``."""
    if not (isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords):
        return None
    what = code.names.stands_for(node.func)
    inside = node.args[0]
    if what not in ("any", "all") or not isinstance(inside, (ast.GeneratorExp, ast.ListComp)):
        return None
    if len(inside.generators) != 1 or inside.generators[0].ifs:
        return None
    loop = inside.generators[0]
    found = code.match_any(_TO_N[:2] + _TO_N[3:], loop.iter)
    tested = code.match_any(DIVIDES if what == "any" else _DIVIDES_NOT, inside.elt)
    if not found or not tested or not isinstance(loop.target, ast.Name):
        return None
    number = found["N"]
    if (
        tested["i_"] != loop.target.id
        or not _is_number(code, number)
        or ast.unparse(tested["N"]) != ast.unparse(number)
        or ast.unparse(number) == loop.target.id
    ):
        return None
    return _bounded(code, loop.iter, number)


LEAST_DIVISOR = Rewriter(
    name="least-divisor",
    summary="a search for any divisor up to n: up to the root of n",
    risk="types",
    find=_find_least,
    example=(
        """\
def is_prime(n):
    for i in range(2, n):
        if n % i == 0:
            return False
    return n > 1
""",
        """\
import math


def is_prime(n):
    for i in range(2, math.isqrt(max(n, 0)) + 1):
        if n % i == 0:
            return False
    return n > 1
""",
    ),
)

_ALL = {"range(1, N + 1)": True, "range(1, N)": False}


def _find_pairs(code: Code) -> Iterator[Change]:
    if not code.names.builtin("max"):
        return
    for loop in code.statements():
        if not (
            isinstance(loop, ast.For) and isinstance(loop.target, ast.Name) and not loop.orelse
        ):
            continue
        for pattern, with_n in _ALL.items():
            found = code.match(pattern, loop.iter)
            if found and _is_number(code, found["N"]):
                change = in_pairs(code, loop, found["N"].id, with_n)
                if change is not None:
                    yield change


def in_pairs(code: Code, loop: ast.For, number: str, with_n: bool) -> Change | None:
    """Count, or sum up, or list divisors: each with the one that it makes the number with."""
    assert isinstance(loop.target, ast.Name)
    i = loop.target.id
    found = None
    for test in DIVIDES:
        found = found or code.match_block(f"for i_ in R:\n if {test}:\n  BODY", [loop])
    if not found or found["i_"] != i or ast.unparse(found["N"]) != number or i == number:
        return None
    if not code.is_unread(i, [loop]) or number in binds([loop]):
        return None
    action = found["BODY"]
    root, imports = code.library("math", "isqrt")
    head = f"for {i} in range(1, {root}(max({number}, 0)) + 1):"
    other = code.names.fresh("other")
    pair = f"{other} != {i}" if with_n else f"{other} != {i} and {other} != {number}"
    own = "" if with_n else f"if {i} != {number}:"
    changed = code.match_any_block(("c_ += 1", "c_ += i_"), action)
    lines: list[str] | None = None
    if changed and code.kinds.variable(changed["c_"]).only(int) and changed.get("i_", i) == i:
        c = changed["c_"]
        if c in (i, number) or not code.is_bound_before(c, loop):
            return None
        one, two = ("1", "1") if "i_" not in changed else (i, other)
        first = [f"        {c} += {one}"]
        if own:
            first = [f"        {own}", f"            {c} += {one}"]
        lines = [
            head,
            f"    if {number} % {i} == 0:",
            f"        {other} = {number} // {i}",
            *first,
            f"        if {pair}:",
            f"            {c} += {two}",
        ]
    listed = code.match_block("xs_.append(i_)", action)
    if listed and listed["i_"] == i and code.effects.is_private(listed["xs_"]):
        if not code.kinds.variable(listed["xs_"]).only(list):
            return None
        box, rest = listed["xs_"], code.names.fresh("large")
        first = [f"        {box}.append({i})"]
        if own:
            first = [f"        {own}", f"            {box}.append({i})"]
        lines = [
            f"{rest} = []",
            head,
            f"    if {number} % {i} == 0:",
            f"        {other} = {number} // {i}",
            *first,
            f"        if {pair}:",
            f"            {rest}.append({other})",
            f"{box}.extend(reversed({rest}))",
        ]
    edit: Edit | None = code.replace([loop], lines)
    if edit is None:
        return None
    return Change("takes divisors in pairs, of which one is not above the root", (edit,), imports)


DIVISOR_PAIRS = Rewriter(
    name="divisor-pairs",
    summary="counting, summing or listing the divisors of n: in pairs up to the root",
    risk="types",
    find=_find_pairs,
    example=(
        """\
def count_divisors(n):
    count = 0
    for i in range(1, n + 1):
        if n % i == 0:
            count += 1
    return count
""",
        """\
import math


def count_divisors(n):
    count = 0
    for i in range(1, math.isqrt(max(n, 0)) + 1):
        if n % i == 0:
            other = n // i
            count += 1
            if other != i:
                count += 1
    return count
""",
    ),
)
