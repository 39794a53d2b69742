"""Numbers added to ranges of a list, item by item: a list of differences.

Adding ``v`` to ``xs[a:b]`` changes two of the differences between neighbours, at ``a`` and ``b``;
the sums of all differences up to each place are what was added there (the inverse of prefix sums).
A range that might leave the list keeps its loop.

Time O(1) for each range instead of its length. Only for whole numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads

__all__ = ["RANGE_ADD"]

_ADDED = ("xs_[i_] += V", "xs_[i_] = xs_[i_] + V", "xs_[i_] -= V")


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For) or loop.orelse or len(loop.body) != 1:
            continue
        second = loop.body[0]
        if isinstance(second, ast.For) and isinstance(second.target, ast.Name):
            change = _differences(code, loop, second, second.target.id)
            if change is not None and not second.orelse:
                yield change


def _differences(code: Code, loop: ast.For, second: ast.For, place: str) -> Change | None:
    found, bounds = (
        code.match_any_block(_ADDED, second.body),
        code.match("range(A, B)", second.iter),
    )
    if not found or not bounds or found["i_"] != place:
        return None
    box, value, low, high = found["xs_"], found["V"], bounds["A"], bounds["B"]
    if not code.effects.is_private(box) or not code.kinds.variable(box).only(list):
        return None
    numbers = [value, low, high]
    if not code.kinds.items_of(box).only(int) or code.in_try(loop):
        return None
    if not all(code.type(n).only(int) and code.effects.is_total(n) for n in numbers):
        return None
    if {box, place} & (loads([*numbers, loop.iter]) | binds([loop.target])):
        return None
    if not code.is_unread(place, [second]) or not code.effects.is_pure_expression(loop.iter):
        return None
    sign = ("+", "-")
    if isinstance(second.body[0], ast.AugAssign) and isinstance(second.body[0].op, ast.Sub):
        sign = ("-", "+")
    accumulate, imports = code.library("itertools", "accumulate")
    steps, step = code.names.fresh("steps"), code.names.fresh("step")
    lines = code.fill(
        f"""
{steps} = [0] * (len({box}) + 1)
for $target in $iter:
    if 0 <= $low < $high <= len({box}):
        {steps}[$low] {sign[0]}= $value
        {steps}[$high] {sign[1]}= $value
    else:
        $second
for {place}, {step} in enumerate({accumulate}({steps}[:-1])):
    {box}[{place}] += {step}
""",
        target=code.text(loop.target),
        iter=loop.iter,
        low=low,
        high=high,
        value=value,
        second=[second],
    )
    edit = code.replace([loop], lines)
    if edit is None or not all(code.names.builtin(n) for n in ("len", "enumerate")):
        return None
    explain = f"adds to ranges of {box} at their ends, and sums up once"
    return Change(explain, (edit,), imports)


RANGE_ADD = Rewriter(
    name="range-add",
    summary="adding numbers to ranges of a list: differences, summed up once",
    risk="types",
    find=_find,
    example=(
        """\
def after_changes(n, changes):
    out = [0] * n
    for begin, end, value in changes:
        for i in range(begin, end):
            out[i] += value
    return out
""",
        """\
import itertools


def after_changes(n, changes):
    out = [0] * n
    steps = [0] * (len(out) + 1)
    for begin, end, value in changes:
        if 0 <= begin < end <= len(out):
            steps[begin] += value
            steps[end] -= value
        else:
            for i in range(begin, end):
                out[i] += value
    for i, step in enumerate(itertools.accumulate(steps[:-1])):
        out[i] += step
    return out
""",
    ),
)
