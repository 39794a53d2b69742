"""Sorts written by hand: ``list.sort``.

Bubble, exchange, selection and insertion sort (Knuth, The Art of Computer Programming, volume 3,
5.2.1 to 5.2.3) take O(n^2) comparisons, ``list.sort`` O(n log n), in C. All of them leave the items
in order, and of items that are all ``int``, or all ``str``, equal ones cannot be told apart.

The variables that the sort counts with must not be read after it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds
from sharpen.code.rewrite.pattern import Match
from sharpen.code.rewrite.sorting import is_ordered

__all__ = ["HAND_SORT"]


@dataclass(frozen=True)
class _Form:
    """How a sort is written.

    Args:
        text: patterns of its statements; ``N`` and ``M`` are where its loops end.
        outer: how much less than the list's length ``N`` may be.
        inner: the same for ``M``; one more where it shrinks by the outer loop's variable.
    """

    text: tuple[str, ...]
    outer: tuple[int, ...]
    inner: int = 0


_SWAPS = (
    "xs_[j_], xs_[j_ + 1] = xs_[j_ + 1], xs_[j_]",
    "xs_[j_ + 1], xs_[j_] = xs_[j_], xs_[j_ + 1]",
)
_BACK_SWAPS = (
    "xs_[j_ - 1], xs_[j_] = xs_[j_], xs_[j_ - 1]",
    "xs_[j_], xs_[j_ - 1] = xs_[j_ - 1], xs_[j_]",
)
_OUTER_SWAPS = (
    "xs_[i_], xs_[j_] = xs_[j_], xs_[i_]",
    "xs_[j_], xs_[i_] = xs_[i_], xs_[j_]",
)
_BUBBLE = tuple(
    f"for i_ in range(N):\n for j_ in range({start}M):\n  if {test}:\n   {swap}"
    for start in ("", "0, ")
    for test in ("xs_[j_] > xs_[j_ + 1]", "xs_[j_ + 1] < xs_[j_]")
    for swap in _SWAPS
)
_EXCHANGE = tuple(
    f"for i_ in range(N):\n for j_ in range(i_ + 1, M):\n  if {test}:\n   {swap}"
    for test in ("xs_[j_] < xs_[i_]", "xs_[i_] > xs_[j_]")
    for swap in _OUTER_SWAPS
)
_SELECTION = tuple(
    f"for i_ in range(N):\n k_ = i_\n for j_ in range(i_ + 1, M):\n  if {test}:\n   k_ = j_\n"
    f" {swap}"
    for test in ("xs_[j_] < xs_[k_]", "xs_[k_] > xs_[j_]")
    for swap in (
        "xs_[i_], xs_[k_] = xs_[k_], xs_[i_]",
        "xs_[k_], xs_[i_] = xs_[i_], xs_[k_]",
    )
)
_INSERTION = tuple(
    f"for i_ in range({start}N):\n c_ = xs_[i_]\n k_ = i_\n"
    f" while k_ > 0 and {test}:\n  xs_[k_] = xs_[k_ - 1]\n  k_ -= 1\n xs_[k_] = c_"
    for start in ("", "1, ")
    for test in ("xs_[k_ - 1] > c_", "c_ < xs_[k_ - 1]")
) + tuple(
    f"for i_ in range(1, N):\n c_ = xs_[i_]\n k_ = i_ - 1\n"
    f" while {test}:\n  xs_[k_ + 1] = xs_[k_]\n  k_ -= 1\n xs_[k_ + 1] = c_"
    for test in (
        "k_ >= 0 and xs_[k_] > c_",
        "k_ >= 0 and c_ < xs_[k_]",
        "k_ > -1 and xs_[k_] > c_",
    )
)
_FORMS = (
    _Form(_BUBBLE, (0, 1), 1),
    _Form(_EXCHANGE, (0, 1)),
    _Form(_SELECTION, (0, 1)),
    _Form(_INSERTION, (0,)),
)
_UNTIL_SORTED = tuple(
    f"while s_:\n s_ = False\n for j_ in range({over}):\n"
    f"  if {test}:\n   {swap}\n   s_ = True{step}"
    for begin, test, swaps in (
        ("1, N", "xs_[j_ - 1] > xs_[j_]", _BACK_SWAPS),
        ("N - 1", "xs_[j_] > xs_[j_ + 1]", _SWAPS),
    )
    for swap in swaps
    for over, step in ((begin, ""), (f"{begin} - p_", "\n p_ += 1"))
)


def _find(code: Code) -> Iterator[Change]:
    for block in code.blocks():
        for at, statement in enumerate(block):
            if isinstance(statement, ast.For):
                box = _by_rounds(code, statement)
            elif isinstance(statement, ast.While):
                box = _until_sorted(code, statement, block[:at])
            else:
                continue
            edit = code.replace([statement], [f"{box}.sort()"]) if box is not None else None
            if edit is not None:
                yield Change(f"sorts {box} with list.sort", (edit,))


def _by_rounds(code: Code, loop: ast.For) -> str | None:
    """The list that a loop in a loop sorts."""
    for form in _FORMS:
        found = code.match_any(form.text, loop)
        if not found or not _is_sortable(code, loop, found):
            continue
        box = found["xs_"]
        if _sizes(code, found["N"], box) not in form.outer:
            return None
        if "M" in found:
            inner = _sizes(code, found["M"], box)
            shrinks = form.inner == 1 and _shrinks(code, found["M"], box, found["i_"])
            if inner != form.inner and not shrinks:
                return None
        return str(box)
    return None


def _until_sorted(code: Code, loop: ast.While, before: list[ast.stmt]) -> str | None:
    """The list that a loop sorts that ends after a round without an exchange."""
    found = code.match_any(_UNTIL_SORTED, loop)
    if not found or not _is_sortable(code, loop, found):
        return None
    starts = {found["s_"]: "s_ = True", **({found["p_"]: "p_ = 0"} if "p_" in found else {})}
    for name, pattern in starts.items():
        bound = [one for one in before if name in binds([one])]
        if not bound or code.match(pattern, bound[-1]) is None:
            return None
    return str(found["xs_"]) if _sizes(code, found["N"], found["xs_"]) == 0 else None


def _is_sortable(code: Code, loop: ast.For | ast.While, found: Match) -> bool:
    box = found["xs_"]
    if not code.kinds.variable(box).only(list) or not is_ordered(code.kinds.items_of(box)):
        return False
    names = [one for key, one in found.items() if key.endswith("_")]
    counting = [one for one in names if one != box]
    return len(set(names)) == len(names) and all(
        one in code.names.local and _is_unread(code, one, loop) for one in counting
    )


def _is_unread(code: Code, name: str, loop: ast.For | ast.While) -> bool:
    """Whether nothing but the loop, and what gives it a value before, knows a variable."""
    if name in code.names.captured or not code.effects.is_steady(name):
        return False
    inside = {id(node) for node in ast.walk(loop)}
    return all(
        id(node) in inside or isinstance(node.ctx, ast.Store) for node in code.effects.uses(name)
    ) or code.is_unread(name, [loop])


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
    summary="a bubble, exchange, selection or insertion sort: `sort`",
    risk="types",
    find=_find,
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
