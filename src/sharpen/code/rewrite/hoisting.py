"""Expressions that are the same in each round of a loop: evaluated once before it.

Loop-invariant code motion (Aho, Lam, Sethi, Ullman, Compilers, 9.5): the expression must change
nothing, be unable to fail (the loop may have no round), and read only what the loop leaves as it
is. A new list or set is only moved where nobody could change it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.source import Edit
from sharpen.code.rewrite.types import HASHABLE, ITERATORS

__all__ = ["HOIST"]

_READERS = frozenset({"len", "sum", "min", "max", "sorted", "enumerate", "zip", "any", "all"})
_NAMES = {"len": "length", "re.compile": "pattern", "sorted": "in_order", "sum": "total"}


def _find(code: Code) -> Iterator[Change]:
    groups: dict[tuple[str, ast.stmt], list[ast.expr]] = {}
    for node in code.expressions():
        if not isinstance(node, (ast.Call, ast.Subscript, ast.List, ast.Set, ast.Dict)):
            continue
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            continue
        at = _loop(code, node)
        if at is not None:
            groups.setdefault((ast.unparse(node), at), []).append(node)
    for (text, at), nodes in groups.items():
        name = code.names.fresh(_name(code, nodes[0]))
        edits: list[Edit | None] = [code.before(at, [f"{name} = {text}"])]
        edits += [code.swap(node, name) for node in nodes]
        if all(edits):
            yield Change(
                f"evaluates {text if len(text) < 40 else 'an expression'} once, before the loop",
                tuple(e for e in edits if e is not None),
            )


def _name(code: Code, node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        what = code.names.stands_for(node.func)
        if what == "len" and isinstance(node.args[0], ast.Name):
            return f"{node.args[0].id}_length"
        if what in _NAMES:
            return _NAMES[what]
    return "fixed"


def _loop(code: Code, node: ast.expr) -> ast.stmt | None:
    """The outermost loop that an expression can be moved before."""
    if isinstance(node, (ast.List, ast.Set, ast.Dict)):
        parent = code.effects.parent(node)
        constant = all(isinstance(n, ast.Constant) for n in _leaves(node))
        if not constant or not isinstance(parent, ast.Compare) or len(list(_leaves(node))) < 3:
            return None
    elif not (_is_compiled(code, node) or code.effects.is_total(node)):
        return None
    if code.type(node).may_be(ITERATORS) and not _is_compiled(code, node):
        return None
    if not _is_only_read(code, node):
        return None
    read = loads([node]) & code.names.local
    if not all(code.effects.is_steady(n) for n in read):
        return None
    found: ast.stmt | None = None
    for loop in code.loops(node):
        if read & binds([loop]) or not all(code.effects.keeps([loop], n) for n in read):
            break
        found = loop
    if found is None or (
        isinstance(code.effects.parent(node), ast.Call) and _is_loop_head(code, node)
    ):
        return None
    if not all(code.is_bound_before(n, found) for n in read) or _is_lazy(code, node):
        return None
    return found


def _leaves(node: ast.expr) -> Iterator[ast.AST]:
    return (n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.expr_context))


def _is_lazy(code: Code, node: ast.expr) -> bool:
    """Whether an expression reads names of a comprehension or lambda around it."""
    at = code.effects.parent(node)
    while at is not None and not isinstance(at, ast.stmt):
        if isinstance(at, (ast.Lambda, ast.GeneratorExp)):
            return True
        if isinstance(at, (ast.ListComp, ast.SetComp, ast.DictComp)) and loads([node]) & binds(
            [g.target for g in at.generators]
        ):
            return True
        at = code.effects.parent(at)
    return False


def _is_loop_head(code: Code, node: ast.expr) -> bool:
    """Whether it only stands in the head of an outermost ``for``, where it is evaluated once."""
    return not code.loops(node)


def _is_compiled(code: Code, node: ast.expr) -> bool:
    """``re.compile`` of a constant that is a pattern."""
    if not (isinstance(node, ast.Call) and code.names.stands_for(node.func) == "re.compile"):
        return False
    if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Constant):
        return False
    pattern = node.args[0].value
    if not isinstance(pattern, (str, bytes)):
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError):
        return False
    return True


def _is_only_read(code: Code, node: ast.expr) -> bool:
    """Whether the value of an expression cannot be changed, or is not where it stands."""
    if _is_compiled(code, node) or code.type(node).within(HASHABLE):
        return True
    parent = code.effects.parent(node)
    if isinstance(parent, ast.Compare):
        return parent.left is not node and isinstance(parent.ops[0], (ast.In, ast.NotIn))
    if isinstance(parent, ast.Call):
        return code.names.stands_for(parent.func) in _READERS and node in parent.args
    if isinstance(parent, ast.Subscript):
        return parent.value is node and isinstance(parent.ctx, ast.Load)
    return isinstance(parent, ast.For) and parent.iter is node


HOIST = Rewriter(
    name="hoist",
    summary="an expression that is the same in each round of a loop: evaluated once",
    risk="types",
    find=_find,
    example=(
        """\
def shares(xs):
    out = []
    for x in xs:
        out.append((x, sum(xs)))
    return out
""",
        """\
def shares(xs):
    out = []
    total = sum(xs)
    for x in xs:
        out.append((x, total))
    return out
""",
    ),
)
