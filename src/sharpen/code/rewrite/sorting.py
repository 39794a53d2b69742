"""Sorting where less is asked for, and sorts written by hand.

``sorted(xs)[:k]`` needs the k least only (a heap: Williams, Algorithm 232, 1964; O(n log k));
``append`` and ``sort`` in a loop is an insertion at the right place; a bubble or exchange sort
(O(n^2)) is ``list.sort``.

Only for items of which equal ones cannot be told apart: all ``int``, or all ``str``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads, same_scope
from sharpen.code.rewrite.types import Type

__all__ = ["HAND_SORT", "INSORT", "PARTIAL_SORT"]


_READERS = frozenset({"len", "sum", "min", "max", "sorted", "list", "tuple", "set", "any", "all"})


def _is_ordered(items: Type) -> bool:
    return items.only(int) or items.only(str)


def _find_partial(code: Code) -> Iterator[Change]:
    for node in code.expressions():
        found = code.match_any(("sorted(XS)[K]", "sorted(XS)[:K]"), node)
        down = (
            None
            if found
            else code.match_any(
                ("sorted(XS, reverse=True)[K]", "sorted(XS, reverse=True)[:K]"), node
            )
        )
        found = found or down
        if not found or not isinstance(node, ast.Subscript):
            continue
        if not _is_ordered(code.items(found["XS"])):
            continue
        name = "nlargest" if down else "nsmallest"
        part = isinstance(node.slice, ast.Slice)
        try:
            k = ast.literal_eval(found["K"])
        except ValueError:
            continue
        if type(k) is not int or not ((part and 0 <= k <= 16) or (not part and k in (0, -1))):
            continue
        if k == -1:
            name = "nlargest" if name == "nsmallest" else "nsmallest"
        heap, imports = code.library("heapq", name)
        text = f"{heap}({k}, $xs)" if part else f"{heap}(1, $xs)[0]"
        yield Change(
            "finds the few items that are asked for without sorting all",
            (code.swap(node, text, xs=found["XS"]),),
            imports,
        )


PARTIAL_SORT = Rewriter(
    name="partial-sort",
    summary="the first or last items of a sorted list: a heap",
    risk="types",
    find=_find_partial,
    example=(
        """\
def three_least(xs):
    return sorted(xs)[:3]
""",
        """\
import heapq


def three_least(xs):
    return heapq.nsmallest(3, xs)
""",
    ),
)


def _find_insort(code: Code) -> Iterator[Change]:
    for block in code.blocks():
        for i in range(len(block) - 1):
            found = code.match_block("xs_.append(X)\nxs_.sort()", block[i : i + 2])
            if found and _is_kept_sorted(code, found["xs_"]):
                insort, imports = code.library("bisect", "insort")
                line = code.line(f"{insort}({found['xs_']}, $x)", {"x": found["X"]})
                edit = code.replace(block[i : i + 2], [line])
                if edit is not None:
                    explain = "puts a new item where it belongs instead of sorting again"
                    yield Change(explain, (edit,), imports)


def _is_kept_sorted(code: Code, name: str) -> bool:
    """Whether a private list starts empty, and is only added to where it is sorted at once."""
    if not code.effects.is_private(name) or not _is_ordered(code.kinds.items_of(name)):
        return False
    for node in same_scope(code.function.body):
        if not (isinstance(node, ast.Name) and node.id == name):
            continue
        parent = code.effects.parent(node)
        if isinstance(parent, (ast.Assign, ast.AnnAssign)):
            if not isinstance(parent.value, ast.List) or parent.value.elts:
                return False
        elif isinstance(parent, ast.Attribute):
            if parent.attr == "append" and not _is_sorted_next(code, parent, name):
                return False
            if parent.attr not in ("append", "sort", "pop", "remove", "index", "count", "clear"):
                return False
            call = code.effects.parent(parent)
            if parent.attr == "sort" and isinstance(call, ast.Call) and call.keywords:
                return False
        elif isinstance(parent, ast.Call):
            if code.names.stands_for(parent.func) not in _READERS:
                return False
        elif isinstance(parent, ast.AugAssign) or (
            isinstance(parent, ast.Subscript) and not isinstance(parent.ctx, ast.Load)
        ):
            return False
    return True


def _is_sorted_next(code: Code, method: ast.Attribute, name: str) -> bool:
    statement = code.statement(method)
    if statement is None:
        return False
    block, i = code.home(statement)
    found = code.match_block("xs_.append(X)\nxs_.sort()", block[i : i + 2])
    return found is not None and name not in loads([found["X"]])


INSORT = Rewriter(
    name="insort",
    summary="`append` and `sort` in a loop: insertion at the right place",
    risk="types",
    find=_find_insort,
    example=(
        """\
def medians(xs):
    seen = []
    out = []
    for x in xs:
        seen.append(x)
        seen.sort()
        out.append(seen[len(seen) // 2])
    return out
""",
        """\
import bisect


def medians(xs):
    seen = []
    out = []
    for x in xs:
        bisect.insort(seen, x)
        out.append(seen[len(seen) // 2])
    return out
""",
    ),
)

_BUBBLE = (
    "for i_ in range(N):\n for j_ in range(M):\n  if xs_[j_] > xs_[j_ + 1]:\n"
    "   xs_[j_], xs_[j_ + 1] = xs_[j_ + 1], xs_[j_]",
    "for i_ in range(N):\n for j_ in range(0, M):\n  if xs_[j_] > xs_[j_ + 1]:\n"
    "   xs_[j_], xs_[j_ + 1] = xs_[j_ + 1], xs_[j_]",
    "for i_ in range(N):\n for j_ in range(M):\n  if xs_[j_ + 1] < xs_[j_]:\n"
    "   xs_[j_], xs_[j_ + 1] = xs_[j_ + 1], xs_[j_]",
)
_EXCHANGE = (
    "for i_ in range(N):\n for j_ in range(i_ + 1, M):\n  if xs_[j_] < xs_[i_]:\n"
    "   xs_[i_], xs_[j_] = xs_[j_], xs_[i_]",
    "for i_ in range(N):\n for j_ in range(i_ + 1, M):\n  if xs_[i_] > xs_[j_]:\n"
    "   xs_[i_], xs_[j_] = xs_[j_], xs_[i_]",
)


def _find_hand_sorts(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For):
            continue
        bubble = code.match_any(_BUBBLE, loop)
        found = bubble or code.match_any(_EXCHANGE, loop)
        if not found:
            continue
        box, i, j = found["xs_"], found["i_"], found["j_"]
        if not code.kinds.variable(box).only(list) or not _is_ordered(code.kinds.items_of(box)):
            continue
        if len({box, i, j}) < 3 or not all(code.is_unread(n, [loop]) for n in (i, j)):
            continue
        n, m = _sizes(code, found["N"], box), found["M"]
        inner = _sizes(code, m, box)
        whole = inner == 0 if bubble is None else inner == 1 or _shrinks(code, m, box, i)
        full = n in (0, 1) and whole
        edit = code.replace([loop], [f"{box}.sort()"]) if full else None
        if edit is not None:
            yield Change(f"sorts {box} with list.sort", (edit,))


def _sizes(code: Code, node: ast.expr, box: str) -> int | None:
    """How much less than the length of a list a number is."""
    less = 0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        if not (isinstance(node.right, ast.Constant) and node.right.value == 1):
            return None
        node, less = node.left, 1
    if isinstance(node, ast.Name):
        return less if _names_length(code, node, box) else None
    return less if code.effects.is_length(node, box) else None


def _names_length(code: Code, node: ast.Name, box: str) -> bool:
    """Whether a variable was bound to the length of a list that only its own sort changes."""
    at = code.statement(node)
    while at is not None:
        block, i = code.home(at)
        for before in reversed(block[:i]):
            found = code.match("n_ = len(xs_)", before)
            if found and found["n_"] == node.id and found["xs_"] == box:
                return True
            if binds([before]) & {node.id, box} or not code.effects.keeps([before], box):
                return False
        above = code.effects.parent(at)
        at = above if isinstance(above, (ast.For, ast.While, ast.If)) else None
    return False


def _shrinks(code: Code, node: ast.expr, box: str, i: str) -> bool:
    """Whether a number is ``len(xs) - i - 1``."""
    found = code.match_any(("N - 1 - i_", "N - i_ - 1"), node)
    return bool(found and found["i_"] == i and _sizes(code, found["N"], box) == 0)


HAND_SORT = Rewriter(
    name="hand-sort",
    summary="a bubble or exchange sort: `sort`",
    risk="types",
    find=_find_hand_sorts,
    example=(
        """\
def in_order(numbers):
    out = list(numbers)
    for i in range(len(out)):
        for j in range(len(out) - 1 - i):
            if out[j] > out[j + 1]:
                out[j], out[j + 1] = out[j + 1], out[j]
    return out
""",
        """\
def in_order(numbers):
    out = list(numbers)
    out.sort()
    return out
""",
    ),
)
