"""Expressions that a test and what follows it both evaluate: once.

Common subexpression elimination (Cocke, 1970): ``if sum(part) > best: best = sum(part)``. The
expression must change nothing, and nothing that it reads may change in between. In a test it is
only taken from where it is always evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads, same_scope
from sharpen.code.rewrite.source import Edit
from sharpen.code.rewrite.types import HASHABLE

__all__ = ["COMMON_SUBEXPRESSION"]


def _find(code: Code) -> Iterator[Change]:
    for statement in code.statements():
        if isinstance(statement, ast.If):
            seen: set[str] = set()
            for node in _always(statement.test):
                text = ast.unparse(node)
                if text not in seen and _is_costly(node):
                    seen.add(text)
                    change = _once(code, statement, node, text)
                    if change is not None:
                        yield change


def _always(node: ast.expr) -> Iterator[ast.expr]:
    """The expressions that a test always evaluates, the first before all others."""
    yield node
    if isinstance(node, ast.Compare):
        yield from _always(node.left)
        yield from _always(node.comparators[0])
    elif isinstance(node, ast.BoolOp):
        yield from _always(node.values[0])
    elif isinstance(node, ast.BinOp):
        yield from _always(node.left)
        yield from _always(node.right)
    elif isinstance(node, ast.UnaryOp):
        yield from _always(node.operand)


def _is_costly(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) or (
        isinstance(node, ast.BinOp) and any(isinstance(n, ast.Call) for n in ast.walk(node))
    )


def _once(code: Code, statement: ast.If, node: ast.expr, text: str) -> Change | None:
    if not code.effects.is_pure_expression(node) or not code.type(node).within(HASHABLE):
        return None
    read = loads([node]) & code.names.local
    if not all(code.effects.keeps([statement], n) for n in read if not _is_plain(code, n)):
        return None
    if read & {
        n.id
        for n in same_scope(statement.body)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }:
        return None
    again = [
        n
        for n in same_scope(statement.body)
        if isinstance(n, ast.expr) and ast.unparse(n) == text and not _is_nested(code, n)
    ]
    calls = [n for n in ast.walk(statement.test) if isinstance(n, ast.Call)]
    if not again or not all(code.effects.is_pure_call(c) for c in calls):
        return None
    name = code.names.fresh("value")
    edits: list[Edit] = [code.swap(node, f"({name} := {text})")]
    edits += [code.swap(n, name) for n in again]
    return Change(f"evaluates {text if len(text) < 50 else 'an expression'} once", tuple(edits))


def _is_plain(code: Code, name: str) -> bool:
    return code.kinds.variable(name).within(HASHABLE) and code.effects.is_steady(name)


def _is_nested(code: Code, node: ast.AST) -> bool:
    """Whether a comprehension or lambda stands around an expression."""
    at = code.effects.parent(node)
    while at is not None and not isinstance(at, ast.stmt):
        if isinstance(at, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            return True
        at = code.effects.parent(at)
    return False


COMMON_SUBEXPRESSION = Rewriter(
    name="common-subexpression",
    summary="an expression that a test and what follows it evaluate: once",
    risk="types",
    find=_find,
    example=(
        """\
def widest(rows):
    best = 0
    for row in rows:
        if sum(row) > best:
            best = sum(row)
    return best
""",
        """\
def widest(rows):
    best = 0
    for row in rows:
        if (value := sum(row)) > best:
            best = value
    return best
""",
    ),
)
