"""Greatest common divisors and least common multiples that are searched for: ``math.gcd``, ``lcm``.

Euclid's algorithm (Elements, book 7; Knuth, The Art of Computer Programming, volume 2, 4.5.2) finds
in O(log n) steps what a loop over all numbers finds in O(n). A loop over common multiples begins at
the first one: the next multiple of ``l`` from ``m`` on is ``m + (-m mod l)``.

Only for numbers above 0; for others the loop stays as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds

__all__ = ["COMMON_DIVISOR", "COMMON_MULTIPLE"]

_BOTH = (
    "A % c_ == 0 and B % c_ == 0",
    "not A % c_ and not B % c_",
    "not (A % c_ or B % c_)",
)
_ALL = ("all(x_ % c_ == 0 for x_ in XS)", "all([x_ % c_ == 0 for x_ in XS])")
_DOWN = ("range(min(A, B), 0, -1)", "range(min(XS), 0, -1)", "range(A, 0, -1)")
_UP = ("range(1, min(A, B) + 1)", "range(1, A + 1)")
_SUBTRACT = (
    "while a_ != b_:\n if a_ > b_:\n  a_ -= b_\n else:\n  b_ -= a_",
    "while a_ != b_:\n if a_ > b_:\n  a_ = a_ - b_\n else:\n  b_ = b_ - a_",
    "while a_ != b_:\n if a_ < b_:\n  b_ -= a_\n else:\n  a_ -= b_",
    "while a_ != b_:\n if a_ < b_:\n  b_ = b_ - a_\n else:\n  a_ = a_ - b_",
)


def _are_numbers(code: Code, *nodes: ast.expr) -> bool:
    return all(isinstance(n, ast.Name) and code.type(n).only(int) for n in nodes)


def _divided(code: Code, test: ast.expr) -> tuple[str, str, str] | None:
    """What is tested for common divisors: the divisor, the arguments of gcd and of min."""
    found = code.match_any(_BOTH, test)
    if found and _are_numbers(code, found["A"], found["B"]):
        both = f"{found['A'].id}, {found['B'].id}"
        if found["A"].id != found["B"].id and found["c_"] not in both.split(", "):
            return found["c_"], both, both
        return None
    found = code.match_any(_ALL, test)
    if found and isinstance(found["XS"], ast.Name) and found["x_"] != found["c_"]:
        box = found["XS"]
        if code.type(box).only(list, tuple) and code.items(box).only(int):
            return found["c_"], f"*{box.id}", box.id
    return None


def _positive(code: Code, loop: ast.For, patterns: tuple[str, ...], least: str) -> str | None:
    """The test of whether a loop runs: its range begins, or ends, at the least of the numbers.

    One of two numbers will do as well, for no divisor of it is above it.
    """
    found = code.match_any(patterns, loop.iter)
    if not found:
        return None
    if "XS" in found:
        return f"min({least}) > 0" if ast.unparse(found["XS"]) == least else None
    numbers = [ast.unparse(found[name]) for name in ("A", "B") if name in found]
    if len(numbers) == 2:
        return f"min({least}) > 0" if sorted(numbers) == sorted(least.split(", ")) else None
    return f"{numbers[0]} > 0" if numbers[0] in least.split(", ") and ", " in least else None


def _find_divisors(code: Code) -> Iterator[Change]:
    gcd, imports = code.library("math", "gcd")
    for loop in code.statements():
        lines: list[str] | None = None
        if isinstance(loop, ast.While) and not loop.orelse:
            found = code.match_any(_SUBTRACT, loop)
            block = code.source.block([loop], "    ") if found else None
            if not found or block is None:
                continue
            a, b = found["a_"], found["b_"]
            if code.is_otherwise(loop, "a_ > 0 < b_"):
                continue
            steady = all(code.effects.is_steady(x) for x in (a, b))
            if a != b and steady and all(code.kinds.variable(x).only(int) for x in (a, b)):
                lines = [f"if {a} > 0 < {b}:", f"    {a} = {b} = {gcd}({a}, {b})", "else:"]
                yield Change(_EXPLAIN, (code.exchange([loop], lines + block),), imports)
            continue
        if isinstance(loop, ast.For) and isinstance(loop.target, ast.Name) and not loop.orelse:
            lines = _searched(code, loop, loop.target.id, gcd)
        edit = code.replace([loop], lines)
        if edit is not None:
            yield Change(_EXPLAIN, (edit,), imports)


_EXPLAIN = "takes the greatest common divisor by Euclid's algorithm instead of a search"


def _searched(code: Code, loop: ast.For, target: str, gcd: str) -> list[str] | None:
    """The lines in the place of a loop over all numbers that may be common divisors."""
    if len(loop.body) != 1 or not isinstance(loop.body[0], ast.If) or loop.body[0].orelse:
        return None
    divided, action = _divided(code, loop.body[0].test), loop.body[0].body
    if divided is None or divided[0] != target or not code.effects.is_steady(target):
        return None
    _, numbers, least = divided
    test = _positive(code, loop, _DOWN, least)
    if test is not None:
        leaves = isinstance(action[-1], (ast.Return, ast.Raise, ast.Break))
        if not leaves or any(
            isinstance(n, (ast.Break, ast.Continue)) and n is not action[-1]
            for s in action
            for n in ast.walk(s)
        ):
            return None
        done = action[:-1] if isinstance(action[-1], ast.Break) else action
        block = code.source.block(done, "    ") if done else []
        return (
            None if block is None else [f"if {test}:", f"    {target} = {gcd}({numbers})", *block]
        )
    kept = code.match_block("g_ = c_", action)
    test = _positive(code, loop, _UP, least)
    if kept and kept["c_"] == target and test is not None:
        taken = {target, *least.split(", ")}
        if kept["g_"] not in taken and code.is_unread(target, [loop]):
            return [f"if {test}:", f"    {kept['g_']} = {gcd}({numbers})"]
    return None


COMMON_DIVISOR = Rewriter(
    name="common-divisor",
    summary="a search for the greatest common divisor: `math.gcd`",
    risk="types",
    find=_find_divisors,
    example=(
        """\
def common_divisor(a, b):
    best = 1
    for i in range(1, min(a, b) + 1):
        if a % i == 0 and b % i == 0:
            best = i
    return best
""",
        """\
import math


def common_divisor(a, b):
    best = 1
    if min(a, b) > 0:
        best = math.gcd(a, b)
    return best
""",
    ),
)

_MULTIPLES = (
    "while True:\n if m_ % A == 0 and m_ % B == 0:\n  return R\n m_ += 1",
    "while True:\n if m_ % A == 0 and m_ % B == 0:\n  break\n m_ += 1",
    "while True:\n if m_ % A == 0 and m_ % B == 0:\n  r_ = m_\n  break\n m_ += 1",
    "while not (m_ % A == 0 and m_ % B == 0):\n m_ += 1",
    "while m_ % A != 0 or m_ % B != 0:\n m_ += 1",
    "while m_ % A or m_ % B:\n m_ += 1",
)


def _find_multiples(code: Code) -> Iterator[Change]:
    lcm, imports = code.library("math", "lcm")
    for loop in code.statements():
        if not isinstance(loop, ast.While) or loop.orelse:
            continue
        found = code.match_any(_MULTIPLES, loop)
        if not found or not _are_numbers(code, found["A"], found["B"]):
            continue
        m, a, b = found["m_"], found["A"].id, found["B"].id
        block, i = code.home(loop)
        done = i > 0 and code.match("if A > 0 < B:\n m_ += -m_ % L", block[i - 1])
        if done or {a, b} & binds([loop]) or not code.effects.is_steady(m):
            continue
        if not code.kinds.variable(m).only(int) or not code.is_bound_before(m, loop):
            continue
        edit = code.before(loop, [f"if {a} > 0 < {b}:", f"    {m} += -{m} % {lcm}({a}, {b})"])
        if edit is not None:
            explain = "begins at the first common multiple instead of searching for it"
            yield Change(explain, (edit,), imports)


COMMON_MULTIPLE = Rewriter(
    name="common-multiple",
    summary="a search for the least common multiple: `math.lcm`",
    risk="types",
    find=_find_multiples,
    example=(
        """\
def common_multiple(a, b):
    multiple = max(a, b)
    while True:
        if multiple % a == 0 and multiple % b == 0:
            return multiple
        multiple += 1
""",
        """\
import math


def common_multiple(a, b):
    multiple = max(a, b)
    if a > 0 < b:
        multiple += -multiple % math.lcm(a, b)
    while True:
        if multiple % a == 0 and multiple % b == 0:
            return multiple
        multiple += 1
""",
    ),
)
