"""The largest or least item taken out again and again: the list is sorted once.

``m = max(xs); xs.remove(m)`` in a loop is a selection sort, O(n) for each item. From a list in
order the same items come with ``pop``. Only for items of which equal ones cannot be told apart (all
``int``, or all ``str``), and where nothing else asks for the order of the list.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code

__all__ = ["SELECTION"]

_NOT_EMPTY = ("xs_", "len(xs_) > 0", "len(xs_)", "xs_ and T", "len(xs_) > 0 and T")


def _find(code: Code) -> Iterator[Change]:
    for block in code.blocks():
        for i in range(len(block) - 1):
            for what in ("max", "min"):
                found = code.match_block(f"m_ = {what}(xs_)\nxs_.remove(m_)", block[i : i + 2])
                if found and found["m_"] != found["xs_"]:
                    change = _sort(code, block[i : i + 2], what, found["m_"], found["xs_"])
                    if change is not None:
                        yield change


def _sort(code: Code, pair: list[ast.stmt], what: str, item: str, box: str) -> Change | None:
    items = code.kinds.items_of(box)
    if not code.effects.is_private(box) or not code.kinds.variable(box).only(list):
        return None
    if not (items.only(int) or items.only(str)) or code.in_try(pair[0]):
        return None
    loop = _loop(code, pair, box)
    if loop is None:
        return None
    line = f"{item} = {box}.pop()"
    if not _is_guarded(code, pair, box):
        line += f" if {box} else {what}({box})"
    order = f"{box}.sort()" if what == "max" else f"{box}.sort(reverse=True)"
    edits = (code.before(loop, [order]), code.replace(pair, [line]))
    if edits[0] is None or edits[1] is None:
        return None
    return Change(f"sorts {box} once instead of searching it each time", (edits[0], edits[1]))


def _loop(code: Code, pair: list[ast.stmt], box: str) -> ast.stmt | None:
    """The loop around, next to which the list is made, if nothing else depends on its order."""
    made: ast.stmt | None = None
    for node in code.effects.uses(box):
        parent = code.effects.parent(node)
        statement = code.statement(node)
        if statement in pair:
            continue
        if isinstance(node.ctx, ast.Store):
            if made is not None or isinstance(parent, ast.AugAssign):
                return None
            made = statement
        elif isinstance(parent, ast.Call):
            if code.names.stands_for(parent.func) != "len":
                return None
        elif not isinstance(parent, (ast.While, ast.If, ast.BoolOp, ast.UnaryOp)) or (
            isinstance(parent, ast.BoolOp) and not _is_test(code, parent)
        ):
            return None
    loops = code.loops(pair[0])
    if made is None or not loops:
        return None
    block, at = code.home(made)
    return next((loop for loop in loops if loop in block[at:]), None)


def _is_test(code: Code, node: ast.BoolOp) -> bool:
    """Whether an expression only decides what is done next."""
    return isinstance(code.effects.parent(node), (ast.While, ast.If))


def _is_guarded(code: Code, pair: list[ast.stmt], box: str) -> bool:
    """Whether the list has items for sure where one is taken."""
    above = code.effects.parent(pair[0])
    if isinstance(above, ast.While) and above.body[0] is pair[0]:
        found = code.match_any(_NOT_EMPTY, above.test)
        return bool(found and found["xs_"] == box)
    return False


SELECTION = Rewriter(
    name="selection",
    summary="`max` or `min` and `remove` in a loop: sorted once",
    risk="types",
    find=_find,
    example=(
        """\
def largest_items(numbers, k):
    left = list(numbers)
    out = []
    while left and len(out) < k:
        biggest = max(left)
        left.remove(biggest)
        out.append(biggest)
    return out
""",
        """\
def largest_items(numbers, k):
    left = list(numbers)
    out = []
    left.sort()
    while left and len(out) < k:
        biggest = left.pop()
        out.append(biggest)
    return out
""",
    ),
)
