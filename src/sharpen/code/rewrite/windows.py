"""The least or largest item of each window of a list, asked for in a loop: a monotonic queue.

The queue holds the places of those items of the window that no later one of it is beyond, so that
its first is the extreme of the window (Douglas, "Running max/min calculation using a pruned ordered
list", 1996). A window that leaves the list is asked for as before.

Time O(1) for each window instead of its length, on average; memory O(n). Only for items of which
equal ones cannot be told apart: all ``int``, or all ``str``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.pattern import Match

__all__ = ["WINDOW_EXTREMES"]

_WINDOWS = {
    "xs_[AT:AT + K]": "{i}",
    "xs_[AT:K + AT]": "{i}",
    "xs_[AT - K + 1:AT + 1]": "{i} - {k} + 1",
}
_SHORT = 8  # windows of fewer items are as fast as a look into a table


def _is_width(code: Code, node: ast.expr, at: ast.stmt) -> bool:
    """Whether an expression is the same whole number from a statement on."""
    if isinstance(node, ast.Constant):
        return type(node.value) is int and node.value >= _SHORT
    return (
        isinstance(node, ast.Name)
        and code.type(node).is_integer
        and code.effects.keeps([at], node.id)
        and code.is_bound_before(node.id, at)
    )


def _find(code: Code) -> Iterator[Change]:
    for node in code.expressions():
        if not (isinstance(node, ast.Call) and len(node.args) == 1):
            continue
        what = code.names.stands_for(node.func)
        if what not in ("min", "max") or any(k.arg != "default" for k in node.keywords):
            continue
        for pattern, start in _WINDOWS.items():
            found = code.match(pattern, node.args[0])
            change = _queue(code, node, what, start, found) if found else None
            if change is not None:
                yield change


def _queue(code: Code, node: ast.Call, what: str, start: str, found: Match) -> Change | None:
    box, width, index = found["xs_"], found["K"], found["AT"]
    at, items = code.steady_from(node, box), code.kinds.items_of(box)
    if at is None or not code.kinds.variable(box).only(list, tuple):
        return None
    if not (items.only(int) or items.only(str)) or not isinstance(index, ast.Name):
        return None
    if not code.type(index).is_integer:
        return None
    above = code.effects.parent(node)
    if isinstance(above, ast.IfExp) and above.orelse is node:
        return None  # a window that leaves the list
    if not _is_width(code, width, at):
        return None
    deque, imports = code.library("collections", "deque")
    table, waiting = code.names.fresh(f"{box}_windows"), code.names.fresh("waiting")
    place, item, k = code.names.fresh("place"), code.names.fresh("item"), code.text(width)
    beyond = ">=" if what == "max" else "<="
    build = [
        f"{table} = []",
        f"{waiting} = {deque}()",
        f"for {place}, {item} in enumerate({box} if {k} > 0 else ()):",
        f"    while {waiting} and {item} {beyond} {box}[{waiting}[-1]]:",
        f"        {waiting}.pop()",
        f"    {waiting}.append({place})",
        f"    if {waiting}[0] <= {place} - {k}:",
        f"        {waiting}.popleft()",
        f"    if {place} >= {k} - 1:",
        f"        {table}.append({box}[{waiting}[0]])",
    ]
    first = start.format(i=index.id, k=k)
    text = f"({table}[{first}] if 0 <= {first} < len({table}) else $old)"
    edit = code.before(at, build)
    if edit is None or not (code.names.builtin("len") and code.names.builtin("enumerate")):
        return None
    largest = "largest" if what == "max" else "least"
    return Change(
        f"finds the {largest} items of all windows of {box} in one pass",
        (edit, code.swap(node, text, old=node)),
        imports,
    )


WINDOW_EXTREMES = Rewriter(
    name="window-extremes",
    summary="`min` or `max` of each window of a list: a monotonic queue",
    risk="types",
    find=_find,
    example=(
        """\
def window_maxima(xs, k):
    out = []
    for i in range(len(xs) - k + 1):
        out.append(max(xs[i : i + k]))
    return out
""",
        """\
import collections


def window_maxima(xs, k):
    out = []
    xs_windows = []
    waiting = collections.deque()
    for place, item in enumerate(xs if k > 0 else ()):
        while waiting and item >= xs[waiting[-1]]:
            waiting.pop()
        waiting.append(place)
        if waiting[0] <= place - k:
            waiting.popleft()
        if place >= k - 1:
            xs_windows.append(xs[waiting[0]])
    for i in range(len(xs) - k + 1):
        out.append((xs_windows[i] if 0 <= i < len(xs_windows) else max(xs[i : i + k])))
    return out
""",
    ),
)
