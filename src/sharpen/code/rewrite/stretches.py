"""Stretches of a list with a given sum: a table of the sums of its beginnings.

With ``S[k] = xs[0] + ... + xs[k - 1]``, the stretch from i to j has the sum ``S[j + 1] - S[i]``; so
for each end one asks how many beginnings had the sum ``S[j + 1] - target``. Whole numbers only.

Time O(n) instead of O(n^2); memory O(n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads
from sharpen.code.rewrite.tables import outer_loop, sequence_of

__all__ = ["STRETCHES"]

_BODIES = (
    "s_ = 0\nfor j_ in range(i_, N):\n s_ += xs_[j_]\n if s_ == V:\n  c_ += 1",
    "s_ = 0\nfor j_ in range(i_, N):\n s_ = s_ + xs_[j_]\n if s_ == V:\n  c_ += 1",
    "s_ = 0\nfor x_ in xs_[i_:]:\n s_ += x_\n if s_ == V:\n  c_ += 1",
)


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For) or loop.orelse or not isinstance(loop.target, ast.Name):
            continue
        found = code.match_any_block(_BODIES, loop.body)
        outer = outer_loop(code, loop.target, loop.iter)
        if not found or outer.index != found["i_"] or outer.box != found["xs_"]:
            continue
        box, value, count, total = found["xs_"], found["V"], found["c_"], found["s_"]
        whole = code.match_any(("range(N)", "range(0, N)"), loop.iter)
        if "N" in found and sequence_of(code, found["N"]) != box:
            continue
        if not whole or sequence_of(code, whole["N"]) != box:
            continue
        names = [total, found["i_"], found.get("j_"), found.get("x_")]
        bound = {n for n in names if n is not None}
        if (
            not code.kinds.variable(box).only(list, tuple)
            or not code.kinds.items_of(box).is_integer
            or not code.type(value).is_integer
            or not code.effects.is_total(value)
            or loads([value]) & (bound | {count, box})
            or not code.kinds.variable(count).is_integer
            or not code.effects.is_steady(count)
            or len(bound | {count, box}) < len(bound) + 2
            or not code.effects.keeps([loop], box)
            or not code.is_bound_before(count, loop)
            or not all(code.is_unread(n, [loop]) for n in bound)
        ):
            continue
        item, beginnings = code.names.fresh("item"), code.names.fresh("beginnings")
        edit = code.replace(
            [loop],
            [
                f"{beginnings} = {{0: 1}}",
                f"{total} = 0",
                f"for {item} in {box}:",
                f"    {total} += {item}",
                code.line(f"    {count} += {beginnings}.get({total} - $v, 0)", {"v": value}),
                f"    {beginnings}[{total}] = {beginnings}.get({total}, 0) + 1",
            ],
        )
        if edit is not None:
            yield Change("counts stretches by the sums of their beginnings", (edit,))


STRETCHES = Rewriter(
    name="stretches",
    summary="counting the stretches of a list with a given sum: a table of sums",
    risk="types",
    find=_find,
    example=(
        """\
def stretches(xs, target):
    count = 0
    for i in range(len(xs)):
        total = 0
        for j in range(i, len(xs)):
            total += xs[j]
            if total == target:
                count += 1
    return count
""",
        """\
def stretches(xs, target):
    count = 0
    beginnings = {0: 1}
    total = 0
    for item in xs:
        total += item
        count += beginnings.get(total - target, 0)
        beginnings[total] = beginnings.get(total, 0) + 1
    return count
""",
    ),
)
