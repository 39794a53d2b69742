"""Loops in loops that look for equal values: a hash join.

``for x in xs: for y in ys: if x == y: ...`` compares all pairs. A table of where each value stands
in ``ys``, built once, gives the same pairs in the same order (a hash join; Knuth, The Art of
Computer Programming, volume 3, 6.4), and so it does for ``x + y == target`` and other sums of whole
numbers. Where the second loop starts behind the first (``range(i + 1, n)``, ``xs[i + 1:]``), each
place leaves the table when the first loop comes to it.

Time O(n + m + pairs found) instead of O(n m); memory O(m).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.linear import Equation, conjuncts, put_names
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.source import Edit
from sharpen.code.rewrite.tables import (
    Inner,
    Outer,
    find_equation,
    inner_loop,
    inner_loop_behind,
    outer_loop,
)

__all__ = ["HASH_JOIN", "INDEXED_LOOP"]


def _find_behind(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For) or loop.orelse:
            continue
        for i, second in enumerate(loop.body):
            if isinstance(second, ast.For) and not second.orelse:
                change = _join_behind(code, loop, i, second)
                if change is not None:
                    yield change


def _condition(body: list[ast.stmt]) -> tuple[ast.expr, list[ast.stmt]] | None:
    """The test that all of a loop's body is under, and what is done where it holds."""
    if len(body) == 1 and isinstance(body[0], ast.If) and not body[0].orelse:
        return body[0].test, body[0].body
    return None


def _is_probe(code: Code, probe: ast.expr, second: ast.For) -> bool:
    """Whether an expression has one value during a loop."""
    read = loads([probe])
    return not read & binds([second]) and all(
        code.effects.keeps(second.body, n) for n in read & code.names.local
    )


def _join_behind(code: Code, loop: ast.For, at: int, second: ast.For) -> Change | None:
    outer = outer_loop(code, loop.target, loop.iter)
    inner = inner_loop(code, second.target, second.iter, outer)
    condition = _condition(second.body)
    if inner is None or condition is None or not inner.behind or outer.index is None:
        return None
    test, action = condition
    changed = binds([loop.target, *loop.body]) - inner.variables
    found = find_equation(code, inner, conjuncts(test), [loop], changed)
    if found is None or not _is_probe(code, found[0].probe, second):
        return None
    if not all(code.is_unread(v, [second]) for v in inner.variables):
        return None
    if inner.variables & (binds([*loop.body[:at], *second.body]) | binds([loop.target])) or (
        outer.index in binds(loop.body)
    ):
        return None
    read = (loads([found[0].key]) | {inner.box}) & code.names.local - inner.variables
    if not all(code.is_bound_before(n, loop) for n in read):
        return None
    return _write_behind(code, loop, outer, inner, found, second, action)


def _write_behind(
    code: Code,
    loop: ast.For,
    outer: Outer,
    inner: Inner,
    found: tuple[Equation, list[ast.expr]],
    second: ast.For,
    action: list[ast.stmt],
) -> Change | None:
    (equation, rest), box = found, inner.box
    table = code.names.fresh("later")
    used = loads([*action, *rest])
    by_value = inner.index is None or inner.index not in used | loads([equation.key])
    item = inner.item.id if isinstance(inner.item, ast.Name) else None
    if by_value and item is None:
        by_value = False
    place = inner.index or code.names.fresh("place")
    if by_value:
        assert item is not None
        key, target, over = ast.unparse(equation.key), item, f"reversed({box})"
    else:
        names = {item: f"{box}[{place}]"} if item else {}
        key, target = put_names(equation.key, **names), place
        over = f"range(len({box}) - 1, -1, -1)"
    build = [
        f"{table} = {{}}",
        f"for {target} in {over}:",
        f"    {table}.setdefault({key}, []).append({target})",
    ]
    names = {inner.index: outer.index or ""} if inner.index else {}
    if item:
        names[item] = outer.item or f"{box}[{outer.index}]"
    gone = f"{table}[{put_names(equation.key, **names)}].pop()"
    hits = f"{table}.get({ast.unparse(equation.probe)}, ())"
    edits = [code.before(loop, build), code.before(loop.body[0], [gone])]
    edits.append(
        _write_inner(
            code,
            second,
            target,
            f"reversed({hits})",
            hits,
            rest,
            action,
            [f"{item} = {box}[{place}]"] if item in used and not by_value else [],
        )
    )
    return _change(edits)


def _write_inner(
    code: Code,
    second: ast.For,
    target: str,
    over: str,
    hits: str,
    rest: list[ast.expr],
    action: list[ast.stmt],
    first: list[str],
) -> Edit | None:
    """The second loop over what the table gives; its length where they are only counted."""
    count = code.match_block("c_ += 1", action)
    if (
        count
        and not rest
        and code.kinds.variable(count["c_"]).is_integer
        and code.is_bound_before(count["c_"], second)
    ):
        return code.replace([second], [f"{count['c_']} += len({hits})"])
    lines = [f"for {target} in {over}:", *("    " + x for x in first)]
    shift = "    "
    if rest:
        lines.append("    if " + " and ".join(_operand(code, x) for x in rest) + ":")
        shift = "        "
    body = code.source.block(action, shift)
    return None if body is None else code.replace([second], lines + body)


def _operand(code: Code, node: ast.expr) -> str:
    text = code.text(node) if code.effects.parent(node) else ast.unparse(node)
    return f"({text})" if isinstance(node, (ast.BoolOp, ast.IfExp, ast.Lambda)) else text


def _change(edits: list[Edit | None]) -> Change | None:
    if any(e is None for e in edits):
        return None
    return Change(
        "looks equal values up in a table instead of comparing all pairs",
        tuple(e for e in edits if e is not None),
    )


HASH_JOIN = Rewriter(
    name="hash-join",
    summary="a loop over the items behind those of another that looks for pairs: a table",
    risk="types",
    find=_find_behind,
    example=(
        """\
def pairs_with_sum(xs, target):
    out = []
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] + xs[j] == target:
                out.append((xs[i], xs[j]))
    return out
""",
        """\
def pairs_with_sum(xs, target):
    out = []
    later = {}
    for j in range(len(xs) - 1, -1, -1):
        later.setdefault(xs[j], []).append(j)
    for i in range(len(xs)):
        later[xs[i]].pop()
        for j in reversed(later.get(target - xs[i], ())):
            out.append((xs[i], xs[j]))
    return out
""",
    ),
)


def _find_indexed(code: Code) -> Iterator[Change]:
    for second in code.statements():
        if isinstance(second, ast.For) and not second.orelse:
            change = _index(code, second)
            if change is not None:
                yield change


def _tests(body: list[ast.stmt]) -> list[ast.expr] | None:
    """The tests that all of a loop's body is under: of ``if`` and ``elif`` without ``else``."""
    found = []
    for statement in body:
        if not isinstance(statement, ast.If):
            return None
        found.append(statement.test)
        if statement.orelse:
            more = _tests(statement.orelse)
            if more is None or len(statement.orelse) != 1:
                return None
            found += more
    return found


def _index(code: Code, second: ast.For) -> Change | None:
    """Run over those items alone for which one of the conditions can hold."""
    inner = inner_loop(code, second.target, second.iter, Outer(None, None, None))
    inner = inner or inner_loop_behind(code, second.target, second.iter)
    tests = _tests(second.body)
    if inner is None or not tests or (inner.behind and _condition(second.body) is None):
        return None
    loop = code.steady_from(second, inner.box)
    if not isinstance(loop, (ast.For, ast.While)):
        return None
    changed = binds([loop]) - inner.variables
    equations: list[Equation] = []
    rest: list[ast.expr] = []
    for test in tests:
        found = find_equation(code, inner, conjuncts(test), [loop], changed)
        if found is None:
            return None
        equations.append(found[0])
        rest = found[1]
    probe = ast.unparse(equations[0].probe)
    if any(ast.unparse(e.probe) != probe for e in equations):
        return None
    if not _is_probe(code, equations[0].probe, second):
        return None
    variables = inner.variables
    if variables & binds(second.body) or not all(code.is_unread(v, [second]) for v in variables):
        return None
    read = {n for e in equations for n in loads([e.key])} & code.names.local - variables
    if not all(code.is_bound_before(n, loop) for n in read):
        return None
    return _write_index(code, loop, inner, second, equations, rest)


def _write_index(
    code: Code,
    loop: ast.stmt,
    inner: Inner,
    second: ast.For,
    equations: list[Equation],
    rest: list[ast.expr],
) -> Change | None:
    table = code.names.fresh(f"{inner.box}_by_key")
    target, over = code.text(second.target), code.text(second.iter)
    first: list[str] = []
    if inner.behind:
        over = f"range(len({inner.box}))"
        place = inner.index or code.names.fresh("place")
        first = [f"{place} > {inner.after}"]
        if inner.index is None:
            target, over = f"({place}, {target})", f"enumerate({inner.box})"
    item = f"({target})" if isinstance(second.target, ast.Tuple) and target[0] != "(" else target
    keys = sorted({ast.unparse(e.key) for e in equations})
    build = [f"{table} = {{}}", f"for {target} in {over}:"]
    if len(keys) == 1:
        build.append(f"    {table}.setdefault({keys[0]}, []).append({item})")
    else:
        key = code.names.fresh("key")
        build.append(f"    for {key} in {{{', '.join(keys)}}}:")
        build.append(f"        {table}.setdefault({key}, []).append({item})")
    hits = f"{table}.get({ast.unparse(equations[0].probe)}, ())"
    condition = _condition(second.body)
    if condition is not None:
        tests = [*(ast.parse(x, mode="eval").body for x in first), *rest]
        edit = _write_inner(code, second, target, hits, hits, tests, condition[1], [])
        return _change([code.before(loop, build), edit])
    return _change([code.before(loop, build), code.swap(second.iter, hits)])


INDEXED_LOOP = Rewriter(
    name="indexed-loop",
    summary="a loop in a loop that uses items with an equal value alone: a table of them",
    risk="types",
    find=_find_indexed,
    example=(
        """\
def names_of(orders, customers):
    out = []
    for order, customer in orders:
        for number, name in customers:
            if number == customer:
                out.append((order, name))
    return out
""",
        """\
def names_of(orders, customers):
    out = []
    customers_by_key = {}
    for number, name in customers:
        customers_by_key.setdefault(number, []).append((number, name))
    for order, customer in orders:
        for number, name in customers_by_key.get(customer, ()):
            out.append((order, name))
    return out
""",
    ),
)
