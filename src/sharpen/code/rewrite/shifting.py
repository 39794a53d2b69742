"""Loops that move the items of a list by one place: a slice in the place of another.

``for i in range(len(xs) - 1, 0, -1): xs[i] = xs[i - 1]`` moves each item up, the last first, so
that none is lost; ``for i in range(len(xs) - 1): xs[i] = xs[i + 1]`` moves each down. ``xs[1:] =
xs[:-1]`` and ``xs[:-1] = xs[1:]`` do it in C. Where the loop ends at a variable, it may lie below
0, where a slice means another place, and the loop stays as the other case.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds
from sharpen.code.rewrite.reductions import guarded, single_loops

__all__ = ["SHIFT"]

_UP, _DOWN = "xs_[i_] = xs_[i_ - 1]", "xs_[i_] = xs_[i_ + 1]"
_DOWN_BEFORE = "xs_[i_ - 1] = xs_[i_]"


def _find(code: Code) -> Iterator[Change]:
    for loop in single_loops(code):
        if not isinstance(loop.target, ast.Name):
            continue
        index = loop.target.id
        made = _moved(code, loop, index)
        if made is None or not code.is_unread(index, [loop]):
            continue
        line, test = made
        edit = guarded(code, loop, line, test)
        if edit is not None:
            yield Change("moves the items of a list by one place in one step", (edit,))


def _moved(code: Code, loop: ast.For, index: str) -> tuple[str, str | None] | None:
    """The line that does what a loop does, and a condition for it."""
    step = loop.body[0]
    found, bounds = code.match(_UP, step), code.match("range(N - 1, K, -1)", loop.iter)
    if found and bounds and _is_list(code, found["xs_"], found["i_"], index, bounds["N"]):
        box, low = found["xs_"], _low(code, bounds["K"], index)
        if low == "0":
            return f"{box}[1:] = {box}[:-1]", None
        if low is not None:
            return f"{box}[{low} + 1:] = {box}[{low}:-1]", f"{low} >= 0"
        return None
    for pattern, whole, part in (
        (_DOWN, "range(N - 1)", "range(K, N - 1)"),
        (_DOWN_BEFORE, "range(1, N)", "range(K + 1, N)"),
    ):
        found = code.match(pattern, step)
        bounds = code.match(whole, loop.iter) or code.match(part, loop.iter)
        if found and bounds and _is_list(code, found["xs_"], found["i_"], index, bounds["N"]):
            box, low = found["xs_"], "0"
            if "K" in bounds:
                given = _low(code, bounds["K"], index)
                if given is None:
                    return None
                low = given
            if low == "0":
                return f"{box}[:-1] = {box}[1:]", None
            return f"{box}[{low}:-1] = {box}[{low} + 1:]", f"{low} >= 0"
    return None


def _is_list(code: Code, box: str, i: str, index: str, length: ast.expr) -> bool:
    return (
        i == index
        and code.kinds.variable(box).only(list)
        and box in code.names.local
        and (code.effects.is_length(length, box) or _has_length(code, length, box))
    )


def _low(code: Code, node: ast.expr, index: str) -> str | None:
    """Where the items that are moved begin: 0, or a variable that is a whole number."""
    if isinstance(node, ast.Constant):
        return "0" if type(node.value) is int and node.value == 0 else None
    if not isinstance(node, ast.Name) or node.id == index:
        return None
    whole = code.type(node).is_integer and node.id in code.names.local
    return node.id if whole and node.id not in code.names.captured else None


def _has_length(code: Code, length: ast.expr, box: str) -> bool:
    """Whether a variable holds the length of a list of which only items are changed after that."""
    body = code.function.body
    if not isinstance(length, ast.Name) or box in code.names.captured:
        return False
    known = [one for one in body if length.id in binds([one])]
    made = [one for one in body if box in binds([one])]
    if len(known) != 1 or not made or body.index(made[-1]) >= body.index(known[0]):
        return False
    found = code.match("n_ = len(xs_)", known[0])
    if not found or found["xs_"] != box or not code.effects.is_steady(length.id):
        return False
    last = made[-1]
    if not isinstance(last, ast.Assign) or not code.effects.is_new(last.value):
        return False
    return all(_keeps_length(code, node, made) for node in code.effects.uses(box))


def _keeps_length(code: Code, node: ast.Name, made: list[ast.stmt]) -> bool:
    """Whether a use of a list leaves its length alone and gives it to nobody who could not."""
    parent = code.effects.parent(node)
    if isinstance(parent, ast.Subscript) and parent.value is node:
        changes = isinstance(parent.ctx, ast.Del) or (
            isinstance(parent.slice, ast.Slice) and isinstance(parent.ctx, ast.Store)
        )
        return not changes
    if isinstance(parent, ast.Call):
        return code.names.stands_for(parent.func) == "len"
    if isinstance(parent, ast.Assign):
        return isinstance(node.ctx, ast.Store) and parent in made
    return isinstance(parent, ast.Return)


SHIFT = Rewriter(
    name="shift",
    summary="a loop that moves the items of a list by one place: a slice in the place of another",
    risk="types",
    find=_find,
    example=(
        """\
def pushed(xs, x):
    out = list(xs)
    for i in range(len(out) - 1, 0, -1):
        out[i] = out[i - 1]
    if out:
        out[0] = x
    return out
""",
        """\
def pushed(xs, x):
    out = list(xs)
    out[1:] = out[:-1]
    if out:
        out[0] = x
    return out
""",
    ),
)
