"""Loops over indexes that only look at items: loops over the items.

``for i in range(len(xs)): ... xs[i] ...`` indexes the list each time; ``for x in xs`` and
``for i, x in enumerate(xs)`` do not. The list must stay as it is during the loop.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.source import Edit

__all__ = ["ITEM_LOOP"]


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not (isinstance(loop, ast.For) and isinstance(loop.target, ast.Name)):
            continue
        found = code.match_any(("range(N)", "range(0, N)"), loop.iter)
        if not found:
            continue
        index = loop.target.id
        for box in sorted(code.names.local):
            change = _over(code, loop, index, found["N"], box)
            if change is not None:
                yield change


def _over(code: Code, loop: ast.For, index: str, length: ast.expr, box: str) -> Change | None:
    if not code.kinds.variable(box).only(list, tuple, str):
        return None
    if not code.effects.is_length(length, box) or not code.is_unread(index, [loop]):
        return None
    first = loop.body[0]
    if not code.effects.is_index(index, box, first):
        return None
    reads: list[ast.expr] = []
    others = False
    taken: set[int] = set()
    for statement in loop.body:
        for node in ast.walk(statement):
            if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
                return None
            found = code.match("xs_[i_]", node) if isinstance(node, ast.Subscript) else None
            if (
                found
                and found["xs_"] == box
                and found["i_"] == index
                and isinstance(node, ast.expr)
            ):
                reads.append(node)
                taken.update(id(n) for n in ast.walk(node))
    for statement in loop.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id == index and id(node) not in taken:
                others = True
    if not reads:
        return None
    item = code.names.fresh(_one_of(box))
    head = f"{index}, {item}" if others else item
    over = f"enumerate({box})" if others else box
    if not code.names.builtin("enumerate"):
        return None
    edits: list[Edit] = [code.swap(loop.target, head), code.swap(loop.iter, over)]
    edits += [code.swap(node, item) for node in reads]
    return Change(f"runs over the items of {box} instead of their indexes", tuple(edits))


def _one_of(box: str) -> str:
    """A name for one of several."""
    if len(box) > 3 and box.endswith("s") and not box.endswith("ss"):
        return box[:-1]
    return "item"


ITEM_LOOP = Rewriter(
    name="item-loop",
    summary="a loop over the indexes of a list that reads its items: over the items",
    risk="types",
    find=_find,
    example=(
        """\
def positions(numbers):
    out = []
    for i in range(len(numbers)):
        if numbers[i] > 0:
            out.append(i)
    return out
""",
        """\
def positions(numbers):
    out = []
    for i, number in enumerate(numbers):
        if number > 0:
            out.append(i)
    return out
""",
    ),
)
