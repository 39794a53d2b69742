"""The next item that is larger or smaller, looked for in a loop behind each item: a stack.

The stack holds the places whose next larger item has not come yet; an item is the next larger one
of all smaller ones on top of it (Berkman, Schieber and Vishkin, "Optimal doubly logarithmic
parallel algorithms based on finding all nearest smaller values", 1993).

Time O(n) for all items instead of O(n^2); memory O(n). Only for items that are all ``int`` or all
``str``, which are in one order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.tables import sequence_of

__all__ = ["NEXT_BEYOND"]

_SIGNS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Gt: (">", "<"),
    ast.GtE: (">=", "<="),
    ast.Lt: ("<", ">"),
    ast.LtE: ("<=", ">="),
}


def _find(code: Code) -> Iterator[Change]:
    for second in code.statements():
        if isinstance(second, ast.For) and len(second.body) == 1:
            change = _stack(code, second)
            if change is not None:
                yield change


def _stack(code: Code, second: ast.For) -> Change | None:
    found = code.match_any(("range(i_ + 1, N)", "range(1 + i_, N)"), second.iter)
    inside = second.body[0]
    if not found or not isinstance(second.target, ast.Name):
        return None
    if not isinstance(inside, ast.If) or inside.orelse:
        return None
    box, i, j = sequence_of(code, found["N"]), found["i_"], second.target.id
    if box is None or not code.effects.is_index(i, box, second):
        return None
    sign = _sign(code, inside.test, box, i, j)
    items, loop = code.kinds.items_of(box), code.steady_from(second, box)
    if sign is None or not isinstance(loop, ast.For) or not (items.only(int) or items.only(str)):
        return None
    action = inside.body
    if not isinstance(action[-1], (ast.Break, ast.Return, ast.Raise)) or any(
        isinstance(n, (ast.Break, ast.Continue)) and n is not action[-1]
        for s in action
        for n in ast.walk(s)
    ):
        return None
    if not code.is_unread(j, [second]) or j in (i, box) or j in binds(action):
        return None
    done = action[:-1] if isinstance(action[-1], ast.Break) else action
    block = code.source.block(done, "    ") if done else ["    pass"]
    rest = code.source.block(second.orelse, "    ") if second.orelse else []
    if block is None or rest is None:
        return None
    return _write(code, loop, second, box, (i, j), sign, block, rest)


def _sign(code: Code, test: ast.expr, box: str, i: str, j: str) -> str | None:
    """How a later item compares with an item where it is what is looked for."""
    found = isinstance(test, ast.Compare) and len(test.ops) == 1
    if not found or not isinstance(test, ast.Compare) or type(test.ops[0]) not in _SIGNS:
        return None
    one, other = code.match("xs_[j_]", test.left), code.match("xs_[j_]", test.comparators[0])
    if not one or not other or one["xs_"] != box or other["xs_"] != box:
        return None
    signs = _SIGNS[type(test.ops[0])]
    if (one["j_"], other["j_"]) == (j, i):
        return signs[0]
    return signs[1] if (one["j_"], other["j_"]) == (i, j) else None


def _write(
    code: Code,
    loop: ast.For,
    second: ast.For,
    box: str,
    places: tuple[str, str],
    sign: str,
    block: list[str],
    rest: list[str],
) -> Change | None:
    i, j = places
    fresh = code.names.fresh
    table, waiting, place, item = (
        fresh("following"),
        fresh("waiting"),
        fresh("place"),
        fresh("item"),
    )
    build = [
        f"{table} = {{}}",
        f"{waiting} = []",
        f"for {place}, {item} in enumerate({box}):",
        f"    while {waiting} and {item} {sign} {box}[{waiting}[-1]]:",
        f"        {table}[{waiting}.pop()] = {place}",
        f"    {waiting}.append({place})",
    ]
    read = j in loads([second.body[0]]) and any(j in loads([s]) for s in second.body[0].body)  # type: ignore[attr-defined]
    lines = [f"if {i} in {table}:"]
    lines += [f"    {j} = {table}[{i}]"] if read else []
    lines += block
    lines += ["else:", *rest] if rest else []
    edits = (code.before(loop, build), code.replace([second], lines))
    if edits[0] is None or edits[1] is None or not code.names.builtin("enumerate"):
        return None
    return Change(f"finds the next items of {box} beyond each in one pass", (edits[0], edits[1]))


NEXT_BEYOND = Rewriter(
    name="next-beyond",
    summary="a loop that looks for the next larger or smaller item: a stack",
    risk="types",
    find=_find,
    example=(
        """\
def next_larger(xs):
    out = []
    for i in range(len(xs)):
        larger = -1
        for j in range(i + 1, len(xs)):
            if xs[j] > xs[i]:
                larger = xs[j]
                break
        out.append(larger)
    return out
""",
        """\
def next_larger(xs):
    out = []
    following = {}
    waiting = []
    for place, item in enumerate(xs):
        while waiting and item > xs[waiting[-1]]:
            following[waiting.pop()] = place
        waiting.append(place)
    for i in range(len(xs)):
        larger = -1
        if i in following:
            j = following[i]
            larger = xs[j]
        out.append(larger)
    return out
""",
    ),
)
