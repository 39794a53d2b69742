"""Lists that lose or gain items at the front: a double-ended queue.

``xs.pop(0)`` and ``xs.insert(0, x)`` move all other items; ``collections.deque`` does not. Only for
lists made in the function that nobody else holds, and for which nothing is done that a deque
does otherwise (slices, ``+``, comparison, printing).

Time O(1) for each call instead of O(n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.private_lists import in_place_of_lists
from sharpen.code.rewrite.source import Edit

__all__ = ["DEQUE"]

_READERS = frozenset({"len", "sum", "min", "max", "sorted", "any", "all", "list", "tuple", "set"})
_SAME = frozenset({"append", "extend", "clear", "remove", "count", "reverse", "index"})


def _find(code: Code) -> Iterator[Change]:
    return in_place_of_lists(
        code,
        ("collections", "deque"),
        _use,
        explain="makes {} a queue that is open at both ends, so that no items are moved",
    )


def _use(
    code: Code, name: str, node: ast.Name, parent: ast.AST | None
) -> tuple[Sequence[Edit], bool] | None:
    """What changes where the list is used; None where a deque does not do the same."""
    if isinstance(parent, ast.Attribute):
        call = code.effects.parent(parent)
        assert isinstance(call, ast.Call)
        edits = _call(code, name, parent.attr, call)
        return None if edits is None else (edits, bool(edits))
    if isinstance(parent, ast.Return):
        return (code.swap(node, f"list({name})"),), False
    return ((), False) if _is_alike(code, node, parent) else None


def _call(code: Code, name: str, method: str, call: ast.Call) -> tuple[Edit, ...] | None:
    if call.keywords:
        return None
    first = call.args[0] if call.args else None
    front = isinstance(first, ast.Constant) and type(first.value) is int and first.value == 0
    if method == "pop" and front and len(call.args) == 1:
        return (code.swap(call, f"{name}.popleft()"),)
    if method == "insert" and front and len(call.args) == 2:
        return (code.swap(call, f"{name}.appendleft($x)", x=call.args[1]),)
    if method == "pop" and not call.args:
        return ()
    return () if method in _SAME and (method != "index" or len(call.args) == 1) else None


def _is_alike(code: Code, node: ast.Name, parent: ast.AST | None) -> bool:
    if isinstance(parent, ast.Subscript):
        return not isinstance(parent.slice, ast.Slice) and code.type(parent.slice).is_integer
    if isinstance(parent, ast.Call):
        what = code.names.stands_for(parent.func)
        above = code.effects.parent(parent)
        if what in ("enumerate", "zip"):
            return isinstance(above, ast.For) and code.effects.keeps(above.body, node.id)
        return what in _READERS
    if isinstance(parent, ast.For):
        return parent.iter is node and code.effects.keeps(parent.body, node.id)
    if isinstance(parent, ast.Compare):
        return parent.left is not node and all(
            isinstance(o, (ast.In, ast.NotIn)) for o in parent.ops
        )
    if isinstance(parent, ast.AugAssign):
        return isinstance(parent.op, ast.Add) and parent.target is node
    if isinstance(parent, ast.UnaryOp):
        return True
    if isinstance(parent, ast.comprehension):
        whole = code.effects.parent(parent)
        return whole is not None and code.effects.keeps([whole], node.id)
    return isinstance(parent, (ast.While, ast.If))


DEQUE = Rewriter(
    name="deque",
    summary="`pop(0)` and `insert(0, x)` of a list: a queue that is open at both ends",
    risk="types",
    find=_find,
    example=(
        """\
def rotated(xs, k):
    out = list(xs)
    for _ in range(k):
        out.append(out.pop(0))
    return out
""",
        """\
import collections


def rotated(xs, k):
    out = collections.deque(list(xs))
    for _ in range(k):
        out.append(out.popleft())
    return list(out)
""",
    ),
)
