"""Lists of which only matters what is in them, and how often: a table of counts.

``if x in left: left.remove(x)`` searches the list twice and moves the items behind. Where a private
list is only asked what it holds and how much, and only what was found is removed, a
``collections.Counter`` holds the same multiset (Knuth, The Art of Computer Programming, volume 2,
4.6.3, exercise 19). Equal values must be one key.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.private_lists import in_place_of_lists
from sharpen.code.rewrite.source import Edit

__all__ = ["BAG"]


def _find(code: Code) -> Iterator[Change]:
    return in_place_of_lists(
        code,
        ("collections", "Counter"),
        _use,
        explain="keeps how often values are in {} instead of the values",
        may=lambda name: code.kinds.items_of(name).is_exact,
    )


def _use(
    code: Code, name: str, node: ast.Name, parent: ast.AST | None
) -> tuple[list[Edit], bool] | None:
    edit: Edit | None = None
    if isinstance(parent, ast.Compare):
        edit = _membership(code, name, node, parent)
    elif isinstance(parent, ast.Attribute):
        edit = _step(code, name, parent)
    elif isinstance(parent, ast.Call) and code.names.stands_for(parent.func) == "len":
        edit = code.swap(parent, f"{name}.total()")
    removes = isinstance(parent, ast.Attribute) and parent.attr == "remove"
    return None if edit is None else ([edit], removes)


def _membership(code: Code, name: str, node: ast.Name, parent: ast.Compare) -> Edit | None:
    if len(parent.ops) != 1 or parent.left is node or not code.type(parent.left).is_exact:
        return None
    if not isinstance(parent.left, (ast.Name, ast.Constant)):
        return None
    if isinstance(parent.ops[0], ast.In):
        return code.swap(parent, f"{name}[$x] > 0", x=parent.left)
    return code.swap(parent, f"{name}[$x] == 0", x=parent.left)


def _step(code: Code, name: str, method: ast.Attribute) -> Edit | None:
    """``append``, or ``remove`` of what has just been found."""
    call = code.effects.parent(method)
    statement = code.effects.parent(call) if call is not None else None
    if not isinstance(call, ast.Call) or not isinstance(statement, ast.Expr):
        return None
    if len(call.args) != 1 or call.keywords or not code.type(call.args[0]).is_exact:
        return None
    if method.attr == "append":
        return code.replace([statement], [code.line(f"{name}[$x] += 1", {"x": call.args[0]})])
    above = code.effects.parent(statement)
    if method.attr != "remove" or not isinstance(above, ast.If) or above.body[0] is not statement:
        return None
    found = code.match("X in xs_", above.test)
    if not found or found["xs_"] != name or ast.unparse(found["X"]) != ast.unparse(call.args[0]):
        return None
    return code.replace([statement], [code.line(f"{name}[$x] -= 1", {"x": call.args[0]})])


BAG = Rewriter(
    name="bag",
    summary="a list that values are looked up in and removed from: a table of counts",
    risk="types",
    find=_find,
    example=(
        """\
def is_anagram(a, b):
    left = list(b)
    for x in a:
        if x in left:
            left.remove(x)
        else:
            return False
    return len(left) == 0
""",
        """\
import collections


def is_anagram(a, b):
    left = collections.Counter(list(b))
    for x in a:
        if left[x] > 0:
            left[x] -= 1
        else:
            return False
    return left.total() == 0
""",
    ),
)
