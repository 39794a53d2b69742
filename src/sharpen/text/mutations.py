"""Small changes to the source of a function, each a program of its own.

The families are those of mutation analysis (DeMillo, Lipton and Sayward, 1978; Just, 2014), turned
round: a wrong program is often one such change away from a right one (Weimer, Nguyen, Le Goues and
Forrest, *Automatically finding patches using genetic programming*, ICSE 2009).

::

    comparison      < <= > >= == !=, in / not in, is / is not
    arithmetic      + - * / // % **, also in +=
    logic           and / or, not added or removed
    constant        n + 1, n - 1, 0, 1, -n; True / False
    off by one      e + 1 and e - 1: bounds of slices, indexes, arguments of range, what is returned
    name            another variable of the function
    argument        two arguments of a call in the other order
    statement       deleted, moved one up; return, break and continue likewise

Time O(size^2) for all of them.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sharpen.core.errors import DataError

__all__ = ["Mutant", "mutants"]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt, ast.GtE),
    ast.LtE: (ast.Lt, ast.GtE, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt, ast.LtE),
    ast.GtE: (ast.Gt, ast.LtE, ast.Lt),
    ast.Eq: (ast.NotEq, ast.GtE, ast.LtE),
    ast.NotEq: (ast.Eq, ast.Gt, ast.Lt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add, ast.Mult),
    ast.Mult: (ast.Div, ast.Add, ast.Pow, ast.FloorDiv),
    ast.Div: (ast.Mult, ast.FloorDiv, ast.Mod),
    ast.FloorDiv: (ast.Div, ast.Mod, ast.Mult),
    ast.Mod: (ast.FloorDiv, ast.Mult, ast.Div),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
_RANK = {
    kind: rank
    for rank, kind in enumerate(
        (
            *("comparison", "arithmetic", "constant", "off by one"),
            *("logic", "name", "argument", "statement"),
        )
    )
}

Change = Callable[[ast.AST], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A changed program."""

    source: str
    """Its text."""

    line: int
    """The changed line of the original, from 1."""

    kind: str
    """The family of the change."""


def mutants(source: str) -> list[Mutant]:
    """All programs that are one change away, each once, likeliest families first.

    Args:
        source: of a function; statements at the top level beside it are left alone.

    Raises:
        DataError: it is no Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise DataError(f"the source cannot be parsed: {error}") from None
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    seen = {ast.unparse(tree)}
    found = []
    for place, node in enumerate(ast.walk(tree)):
        for kind, change in _changes(node, functions):
            changed = copy.deepcopy(tree)
            target = next(n for k, n in enumerate(ast.walk(changed)) if k == place)
            change(target)
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text not in seen:
                seen.add(text)
                found.append(Mutant(source=text, line=getattr(node, "lineno", 1), kind=kind))
    found.sort(key=lambda m: _RANK[m.kind])
    return found


def _changes(node: ast.AST, functions: list[Any]) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            for other in _COMPARISONS.get(type(op), ()):
                yield "comparison", _set_item("ops", k, other())
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        for swap in _ARITHMETIC.get(type(node.op), ()):
            yield "arithmetic", _set("op", swap())
        if isinstance(node, ast.BinOp):
            yield "argument", _swap_sides
    elif isinstance(node, ast.BoolOp):
        yield "logic", _set("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.Constant):
        for value in _constants(node.value):
            yield "constant", _set("value", value)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for name in _variables(functions, node):
            yield "name", _set("id", name)
    elif isinstance(node, ast.Call):
        for k in range(len(node.args) - 1):
            yield "argument", _swap_items("args", k)
    yield from _parts(node)
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(block, list) and not isinstance(node, ast.Module):
            yield from _statements(field, block)


def _parts(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Changes of an expression by what it is used for."""
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        if isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not):
            yield "logic", _set("test", node.test.operand)
        else:
            yield "logic", _set("test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Slice):
        for field in ("lower", "upper"):
            bound = getattr(node, field)
            if bound is not None:
                yield from _off_by_one(field)
                yield "arithmetic", _set(field, ast.UnaryOp(ast.USub(), bound))
        if node.step is None:
            yield "constant", _set("step", ast.UnaryOp(ast.USub(), ast.Constant(1)))
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Constant):
        yield from _off_by_one("slice")
    if isinstance(node, ast.Return) and node.value is not None:
        yield from _off_by_one("value")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        for k in range(len(node.args)):
            for sign in (ast.Add, ast.Sub):
                yield "off by one", _plus_one_item("args", k, sign)
        if len(node.args) == 1:
            yield "off by one", _set("args", [ast.Constant(1), *node.args])


def _statements(field: str, block: list[ast.stmt]) -> Iterator[tuple[str, Change]]:
    first = 0
    if block and isinstance(block[0], ast.Expr) and isinstance(block[0].value, ast.Constant):
        first = 1  # a docstring stays
    for k in range(first, len(block)):
        yield "statement", _delete(field, k)
        if k > first:
            yield "statement", _swap_items(field, k - 1)


def _constants(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [v for v in dict.fromkeys((value + 1, value - 1, 0, 1, -value)) if v != value]
    if isinstance(value, float):
        return [v for v in (value + 1, value - 1, value * 2, value / 2, -value) if v != value]
    return []


def _variables(functions: list[Any], node: ast.Name) -> list[str]:
    """Other variables of the function that the name stands in, in order of appearance."""
    for function in functions:
        inside = list(ast.walk(function))
        if any(n is node for n in inside):
            arguments = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
            assigned = [
                n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            ]
            own = dict.fromkeys([*arguments, *assigned])
            return [name for name in own if name != node.id] if node.id in own else []
    return []


def _set(field: str, value: Any) -> Change:
    return lambda node: setattr(node, field, copy.deepcopy(value))


def _set_item(field: str, k: int, value: Any) -> Change:
    return lambda node: getattr(node, field).__setitem__(k, copy.deepcopy(value))


def _swap_sides(node: ast.AST) -> None:
    assert isinstance(node, ast.BinOp)
    node.left, node.right = node.right, node.left


def _swap_items(field: str, k: int) -> Change:
    def change(node: ast.AST) -> None:
        items = getattr(node, field)
        items[k], items[k + 1] = items[k + 1], items[k]

    return change


def _delete(field: str, k: int) -> Change:
    def change(node: ast.AST) -> None:
        items = getattr(node, field)
        del items[k]
        if not items and field == "body":
            items.append(ast.Pass())

    return change


def _off_by_one(field: str) -> Iterator[tuple[str, Change]]:
    for sign in (ast.Add, ast.Sub):
        yield "off by one", _plus_one(field, sign)


def _plus_one(field: str, sign: type[ast.operator]) -> Change:
    return lambda node: setattr(
        node, field, ast.BinOp(getattr(node, field), sign(), ast.Constant(1))
    )


def _plus_one_item(field: str, k: int, sign: type[ast.operator]) -> Change:
    def change(node: ast.AST) -> None:
        items = getattr(node, field)
        items[k] = ast.BinOp(items[k], sign(), ast.Constant(1))

    return change
