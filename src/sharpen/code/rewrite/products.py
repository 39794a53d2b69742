"""Loops that multiply whole numbers: ``math.prod``, and ``math.factorial`` for 1, 2, ..., n.

The factorial is multiplied in pairs of numbers of like length, which takes O(n log^3 n) steps
instead of O(n^2) (Borwein, "On the complexity of calculating factorials", 1985).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads
from sharpen.code.rewrite.reductions import guarded, over_part, single_loops

__all__ = ["PRODUCT_LOOP"]


def _find(code: Code) -> Iterator[Change]:
    for loop in single_loops(code):
        found = code.match_any_block(("p_ *= X", "p_ = p_ * X", "p_ = X * p_"), loop.body)
        if not found:
            continue
        p, item = found["p_"], found["X"]
        if p in loads([loop.iter, item]):
            continue
        if not code.kinds.variable(p).only(int) or not code.type(item).only(int):
            continue
        if not code.effects.is_steady(p) or not code.is_bound_before(p, loop):
            continue
        part = over_part(code, loop, item)
        prod, imports = code.library("math", "prod")
        if part is not None:
            edit = guarded(code, loop, f"{p} *= {prod}({part[0]})", part[1])
        else:
            factor = _factor(code, loop, item)
            if factor is None:
                continue
            name, argument = factor
            function, imports = code.library("math", name)
            edit = code.replace([loop], [f"{p} *= {function}({argument})"])
        if edit is not None:
            yield Change(f"multiplies {p} by all numbers at once", (edit,), imports)


def _factor(code: Code, loop: ast.For, item: ast.expr) -> tuple[str, str] | None:
    """The function and its argument for a loop that multiplies all numbers of a range."""
    assert isinstance(loop.target, ast.Name)
    target = loop.target.id
    if not (isinstance(item, ast.Name) and item.id == target):
        return None
    if not code.type(loop.iter).only(range) or not code.effects.is_total(loop.iter):
        return None
    if not code.is_unread(target, [loop]):
        return None
    found = code.match_any(("range(1, n_ + 1)", "range(2, n_ + 1)"), loop.iter)
    if found and code.names.builtin("max"):
        return "factorial", f"max({found['n_']}, 0)"
    return "prod", code.text(loop.iter)


PRODUCT_LOOP = Rewriter(
    name="product-loop",
    summary="a loop that multiplies whole numbers: `math.prod`, `math.factorial`",
    risk="types",
    find=_find,
    example=(
        """\
def factorial_of(n):
    product = 1
    for i in range(2, n + 1):
        product *= i
    return product
""",
        """\
import math


def factorial_of(n):
    product = 1
    product *= math.factorial(max(n, 0))
    return product
""",
    ),
)
