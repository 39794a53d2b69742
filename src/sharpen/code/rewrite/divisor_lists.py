"""Comprehensions and loops over the divisors of a number: a list of them, made up to the root.

With ``d`` also ``n // d`` divides ``n``, and one of both is at most the root; the small ones in
order and the large ones in reverse are all divisors in order.

Time O(sqrt n) instead of O(n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.divisors import DIVIDES, in_pairs
from sharpen.code.rewrite.names import binds

__all__ = ["DIVISORS"]

_RANGES = {
    "range(1, n_ + 1)": "",
    "range(1, n_)": "[:-1]",
    "range(1, n_ // 2 + 1)": "[:-1]",
    "range(2, n_ + 1)": "[1:]",
    "range(2, n_)": "[1:-1]",
    "range(2, n_ // 2 + 1)": "[1:-1]",
}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp)
_SIMPLE = (ast.Return, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.If, ast.For)


def _range(code: Code, source: ast.expr, target: ast.expr, test: ast.expr) -> tuple[str, str]:
    """The number whose divisors a range is searched for, and which of them; else empty texts."""
    for pattern, cut in _RANGES.items():
        found, divides = code.match(pattern, source), code.match_any(DIVIDES, test)
        if not (found and divides and isinstance(target, ast.Name)):
            continue
        n = found["n_"]
        fits = divides["i_"] == target.id and ast.unparse(divides["N"]) == n != target.id
        if fits and code.kinds.variable(n).only(int) and code.effects.is_steady(n):
            return n, cut
    return "", ""


def _find(code: Code) -> Iterator[Change]:
    if not (code.names.builtin("max") and code.names.builtin("range")):
        return
    for node in code.expressions():
        if isinstance(node, _COMPREHENSIONS):
            change = _comprehension(code, node)
            if change is not None:
                yield change
    for loop in code.statements():
        if isinstance(loop, ast.For) and not loop.orelse:
            change = _loop(code, loop)
            if change is not None:
                yield change


def _comprehension(
    code: Code, node: ast.ListComp | ast.SetComp | ast.GeneratorExp
) -> Change | None:
    loop = node.generators[0]
    if len(node.generators) != 1 or not loop.ifs or loop.is_async:
        return None
    number, cut = _range(code, loop.iter, loop.target, loop.ifs[0])
    statement, root, above = code.statement(node), node, code.effects.parent(node)
    while isinstance(above, ast.expr | ast.keyword):
        if isinstance(above, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)):
            return None
        root, above = above, code.effects.parent(above)  # type: ignore[assignment]
    if not number or above is not statement or not isinstance(statement, _SIMPLE):
        return None
    if isinstance(node, ast.GeneratorExp) and not code.is_used_up(node):
        return None
    if number in binds([root]) or not code.is_bound_before(number, statement):
        return None
    assert isinstance(loop.target, ast.Name)
    lines, name, imports = _lines(code, number)
    alone = isinstance(node.elt, ast.Name) and node.elt.id == loop.target.id and not loop.ifs[1:]
    conditions = "".join(f" if {code.text(test)}" for test in loop.ifs[1:])
    inside = f"{code.text(node.elt)} for {loop.target.id} in {name}{cut}{conditions}"
    text = f"{name}{cut}" if alone else f"[{inside}]"
    if isinstance(node, ast.SetComp):
        text = f"{{{inside}}}"
    elif isinstance(node, ast.GeneratorExp) and not alone:
        call = code.effects.parent(node)
        text = inside if isinstance(call, ast.Call) and call.args == [node] else f"({inside})"
    edit = code.before(statement, lines)
    if edit is None:
        return None
    return Change(_EXPLAIN, (edit, code.swap(node, text)), imports)


def _loop(code: Code, loop: ast.For) -> Change | None:
    if len(loop.body) != 1 or not isinstance(loop.body[0], ast.If) or loop.body[0].orelse:
        return None
    number, cut = _range(code, loop.iter, loop.target, loop.body[0].test)
    assert isinstance(loop.target, ast.Name) or not number
    if not number or number in binds([loop]) or not code.is_bound_before(number, loop):
        return None
    if not all(code.is_unread(n, [loop]) for n in binds([loop.target])):
        return None
    if isinstance(loop.body[0].body[-1], (ast.Return, ast.Break, ast.Raise)):
        return None  # the first one is asked for
    if cut in ("", "[:-1]") and in_pairs(code, loop, number, with_n=not cut) is not None:
        return None
    lines, name, imports = _lines(code, number)
    block = code.source.block(loop.body[0].body, "    ")
    if block is None:
        return None
    head = f"for {code.text(loop.target)} in {name}{cut}:"
    edit = code.replace([loop], [*lines, head, *block])
    return Change(_EXPLAIN, (edit,), imports) if edit is not None else None


_EXPLAIN = "finds divisors in pairs, of which one is not above the root"


def _lines(code: Code, number: str) -> tuple[list[str], str, tuple[str, ...]]:
    """What makes the list of all divisors of a number in order, and the list's name."""
    root, imports = code.library("math", "isqrt")
    fresh = code.names.fresh
    name, large, one = fresh("divisors"), fresh("large"), fresh("divisor")
    lines = [
        f"{name}, {large} = [], []",
        f"for {one} in range(1, {root}(max({number}, 0)) + 1):",
        f"    if {number} % {one} == 0:",
        f"        {name}.append({one})",
        f"        if {one} * {one} != {number}:",
        f"            {large}.append({number} // {one})",
        f"{name} += reversed({large})",
    ]
    return lines, name, imports


DIVISORS = Rewriter(
    name="divisors",
    summary="a comprehension or loop over the divisors of n: a list of them, up to the root",
    risk="types",
    find=_find,
    example=(
        """\
def divisors_of(n):
    return [d for d in range(1, n + 1) if n % d == 0]
""",
        """\
import math


def divisors_of(n):
    divisors, large = [], []
    for divisor in range(1, math.isqrt(max(n, 0)) + 1):
        if n % divisor == 0:
            divisors.append(divisor)
            if divisor * divisor != n:
                large.append(n // divisor)
    divisors += reversed(large)
    return divisors
""",
    ),
)
