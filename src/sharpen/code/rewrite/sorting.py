"""Sorting where less is asked for.

``sorted(xs)[:k]`` needs the k least only (a heap: Williams, Algorithm 232, 1964; O(n log k));
``append`` and ``sort`` in a loop is an insertion at the right place.

Only for items of which equal ones cannot be told apart: all ``int``, or all ``str``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads, same_scope
from sharpen.code.rewrite.types import Type

__all__ = ["INSORT", "PARTIAL_SORT", "is_ordered"]


_READERS = frozenset({"len", "sum", "min", "max", "sorted", "list", "tuple", "set", "any", "all"})


def is_ordered(items: Type) -> bool:
    """Whether items can be put in order, and equal ones cannot be told apart."""
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
        if not is_ordered(code.items(found["XS"])):
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
    if not code.effects.is_private(name) or not is_ordered(code.kinds.items_of(name)):
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
