"""Comprehensions that look for equal values: the table of a hash join (see ``joins.py``).

The last ``for`` of ``[(x, y) for x in xs for y in ys if x == y]`` runs over those items alone that
a table has for the value of ``x``. Also for ``any(x == y for ...)``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.linear import conjuncts
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.source import Edit
from sharpen.code.rewrite.tables import Outer, find_equation, inner_loop, outer_loop

__all__ = ["COMPREHENSION_JOIN"]

_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


def _find(code: Code) -> Iterator[Change]:
    for node in code.expressions():
        if isinstance(node, _Comprehension) and not any(g.is_async for g in node.generators):
            change = _join(code, node)
            if change is not None:
                yield change


def _tested_element(code: Code, node: _Comprehension) -> ast.expr | None:
    """The element of ``any(...)`` that is itself the condition."""
    call = code.effects.parent(node)
    if (
        isinstance(node, ast.GeneratorExp)
        and isinstance(call, ast.Call)
        and code.names.stands_for(call.func) == "any"
        and not node.generators[-1].ifs
    ):
        return node.elt
    return None


def _join(code: Code, node: _Comprehension) -> Change | None:
    generators, last = node.generators, node.generators[-1]
    outer = Outer(None, None, None)
    if len(generators) > 1:
        outer = outer_loop(code, generators[-2].target, generators[-2].iter)
    inner = inner_loop(code, last.target, last.iter, outer)
    if inner is None:
        return None
    element = _tested_element(code, node)
    parts = [p for test in last.ifs for p in conjuncts(test)] or (
        conjuncts(element) if element is not None else []
    )
    if not parts:
        return None
    at = code.steady_from(parts[0], inner.box)
    if at is None or inner.variables & binds(g.target for g in generators[:-1]):
        return None
    changed = binds([at, *[g.target for g in generators[:-1]]]) - inner.variables
    found = find_equation(code, inner, parts, [at], changed)
    if found is None:
        return None
    equation, rest = found
    probe = loads([equation.probe])
    if any(not code.effects.keeps([node], n) for n in probe & code.names.local - changed):
        return None
    read = (loads([equation.key]) | {inner.box}) & code.names.local - inner.variables
    if not all(code.is_bound_before(n, at) for n in read):
        return None
    by_key = code.names.fresh(f"{inner.box}_by_key")
    place = inner.index or (code.names.fresh("place") if inner.behind else None)
    item = inner.item
    target = (
        f"{place}, {code.text(item)}"
        if place is not None and item is not None
        else place or code.text(last.target)
    )
    if place is not None and item is not None:
        over = f"enumerate({inner.box})"
    else:
        over = f"range(len({inner.box}))" if item is None else inner.box
    one = f"({target})" if "," in target and not target.startswith("(") else target
    build = [
        f"{by_key} = {{}}",
        f"for {target} in {over}:",
        f"    {by_key}.setdefault({ast.unparse(equation.key)}, []).append({one})",
    ]
    if not all(code.is_unread(v, [node]) for v in inner.variables):
        return None
    conditions = [_operand(x) for x in rest]
    if inner.behind:
        conditions.insert(0, f"{place} > {outer.index}")
    tail = " if " + " and ".join(conditions) if conditions else ""
    hits = f"for {target} in {by_key}.get({ast.unparse(equation.probe)}, ()){tail}"
    return _write(code, node, at, build, hits, element is not None)


def _operand(node: ast.expr) -> str:
    text = ast.unparse(node)
    return f"({text})" if isinstance(node, (ast.BoolOp, ast.IfExp, ast.Lambda)) else text


def _write(
    code: Code, node: _Comprehension, at: ast.stmt, build: list[str], hits: str, tested: bool
) -> Change | None:
    first = [
        f"for {code.text(g.target)} in {ast.unparse(g.iter)}"
        + "".join(f" if {ast.unparse(c)}" for c in g.ifs)
        for g in node.generators[:-1]
    ]
    fors = " ".join([*first, hits])
    if isinstance(node, ast.DictComp):
        text = f"{{{code.text(node.key)}: {code.text(node.value)} {fors}}}"
    else:
        element = "True" if tested else code.text(node.elt)
        brackets = {ast.ListComp: "[]", ast.SetComp: "{}", ast.GeneratorExp: "()"}[type(node)]
        text = f"{brackets[0]}{element} {fors}{brackets[1]}"
    edit = code.before(at, build)
    if edit is None:
        return None
    start, end = code.source.span(node)
    return Change(
        "looks equal values up in a table instead of comparing all pairs",
        (edit, Edit(start, end, text)),
    )


COMPREHENSION_JOIN = Rewriter(
    name="comprehension-join",
    summary="a comprehension that looks for equal values: a table of them",
    risk="types",
    find=_find,
    example=(
        """\
def pairs_of(xs, ys):
    return [(x, y) for x in xs for y in ys if x == y + 1]
""",
        """\
def pairs_of(xs, ys):
    ys_by_key = {}
    for y in ys:
        ys_by_key.setdefault(y + 1, []).append(y)
    return [(x, y) for x in xs for y in ys_by_key.get(x, ())]
""",
    ),
)
