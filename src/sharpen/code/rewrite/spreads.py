"""The largest difference between an item and the later ones, kept in a loop over those.

Of ``xs[j] - c`` for all ``j`` of a part of a list, the largest is ``max(part) - c``; so the loop is
one call of ``max`` or ``min``, which ``running-extremes`` takes from a table in a next step.

Only for whole numbers, whose differences keep the order exactly.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads
from sharpen.code.rewrite.reductions import EXTREMES
from sharpen.code.rewrite.tables import sequence_of

__all__ = ["SPREAD"]


def _find(code: Code) -> Iterator[Change]:
    if not all(code.names.builtin(n) for n in ("min", "max", "len")):
        return
    for loop in code.statements():
        if isinstance(loop, ast.For) and isinstance(loop.target, ast.Name) and not loop.orelse:
            for what, patterns in EXTREMES.items():
                change = _spread(code, loop, loop.target.id, what, patterns)
                if change is not None:
                    yield change


def _spread(
    code: Code, loop: ast.For, j: str, what: str, patterns: tuple[str, ...]
) -> Change | None:
    found = code.match_any_block(patterns, loop.body)
    value = found["X"] if found else None
    if not found and len(loop.body) == 2:
        made = code.match("v_ = D", loop.body[0])
        found = code.match_any_block(patterns, loop.body[1:])
        named = made and found and isinstance(found["X"], ast.Name) and found["X"].id == made["v_"]
        if not made or not named or not code.is_unread(made["v_"], [loop]):
            return None
        value = made["D"]
    behind = code.match_any(("range(i_ + 1, N)", "range(1 + i_, N)"), loop.iter)
    if not found or value is None or not behind:
        return None
    box, i, best = sequence_of(code, behind["N"]), behind["i_"], found["m_"]
    if box is None or not code.effects.is_index(i, box, loop) or not code.is_unread(j, [loop]):
        return None
    difference = code.match("A - B", value)
    if not difference or not code.kinds.items_of(box).only(int) or j == i:
        return None
    later, other = difference["A"], difference["B"]
    less = code.match("xs_[j_]", later)
    turned = not (less and less["j_"] == j)
    if turned:
        later, other = other, later
    item = code.match("xs_[j_]", later)
    if not item or item["j_"] != j or item["xs_"] != box or loads([other]) & {j, best}:
        return None
    if not code.type(other).only(int) or not code.effects.is_total(other):
        return None
    if not code.kinds.variable(best).only(int) or not code.effects.is_steady(best):
        return None
    if best in (box, i, j) or not code.is_bound_before(best, loop):
        return None
    part = f"{box}[{i} + 1:]"
    opposite = "min" if what == "max" else "max"
    text = f"$c - {opposite}({part})" if turned else f"{what}({part}) - $c"
    line = code.line(f"    {best} = {what}({best}, {text})", {"c": other})
    edit = code.replace([loop], [f"if {i} + 1 < len({box}):", line])
    return Change(f"takes the extreme of {box} before the difference", (edit,)) if edit else None


SPREAD = Rewriter(
    name="spread",
    summary="a loop that keeps the largest difference to the later items: `max`, `min`",
    risk="types",
    find=_find,
    example=(
        """\
def best_profit(prices):
    best = 0
    for i in range(len(prices)):
        for j in range(i + 1, len(prices)):
            profit = prices[j] - prices[i]
            if profit > best:
                best = profit
    return best
""",
        """\
def best_profit(prices):
    best = 0
    for i in range(len(prices)):
        if i + 1 < len(prices):
            best = max(best, max(prices[i + 1:]) - prices[i])
    return best
""",
    ),
)
