"""Powers: by repeated squaring instead of one factor after another.

``pow(a, b, m)`` takes O(log b) products of numbers below m (Knuth, The Art of Computer Programming,
volume 2, 4.6.3); ``a ** b % m`` makes a number of b digits first, a loop takes b rounds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads

__all__ = ["MODULAR_POWER", "POWER_LOOP"]


def _simple(code: Code, *nodes: ast.expr) -> bool:
    return all(code.type(n).only(int) and code.effects.is_total(n) for n in nodes)


def _find_modular(code: Code) -> Iterator[Change]:
    if not code.names.builtin("pow"):
        return
    for node in code.expressions():
        found = code.match_any(("A ** B % M", "pow(A, B) % M"), node)
        if found and _simple(code, found["A"], found["B"], found["M"]):
            text = f"(pow($a, $b, $m) if $b >= 0 and $m else {ast.unparse(node)})"
            yield Change(
                "takes the remainder while it raises to a power",
                (code.swap(node, text, a=found["A"], b=found["B"], m=found["M"]),),
            )


MODULAR_POWER = Rewriter(
    name="modular-power",
    summary="`a ** b % m`: `pow` with three arguments",
    risk="types",
    find=_find_modular,
    example=(
        """\
def power_of(a, b, m):
    return a ** b % m
""",
        """\
def power_of(a, b, m):
    return (pow(a, b, m) if b >= 0 and m else a ** b % m)
""",
    ),
)

_PRODUCTS = ("r_ = r_ * A % M", "r_ = A * r_ % M", "r_ = (r_ * A) % M")


def _find_loops(code: Code) -> Iterator[Change]:
    if not code.names.builtin("pow"):
        return
    for loop in code.statements():
        if not (isinstance(loop, ast.For) and isinstance(loop.target, ast.Name)):
            continue
        bounds = code.match("range(N)", loop.iter)
        found = code.match_any_block(_PRODUCTS, loop.body) if not loop.orelse else None
        if not found or not bounds or not code.is_unread(loop.target.id, [loop]):
            continue
        result, n = found["r_"], bounds["N"]
        parts = (found["A"], found["M"], n)
        if (
            not _simple(code, *parts)
            or not code.kinds.variable(result).only(int)
            or loads(parts) & {result, loop.target.id}
            or not code.is_bound_before(result, loop)
            or not code.effects.is_steady(result)
        ):
            continue
        line = f"    {result} = {result} * pow($a % $m, $n, $m) % $m"
        edit = code.replace(
            [loop],
            [
                code.line("if $n > 0:", {"n": n}),
                code.line(line, {"a": found["A"], "m": found["M"], "n": n}),
            ],
        )
        if edit is not None:
            yield Change("raises to the power by repeated squaring", (edit,))


POWER_LOOP = Rewriter(
    name="power-loop",
    summary="a loop of products with remainders: `pow` with three arguments",
    risk="types",
    find=_find_loops,
    example=(
        """\
def power_modulo(a, n, m):
    result = 1
    for _ in range(n):
        result = result * a % m
    return result
""",
        """\
def power_modulo(a, n, m):
    result = 1
    if n > 0:
        result = result * pow(a % m, n, m) % m
    return result
""",
    ),
)
