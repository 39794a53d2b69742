"""A list that is emptied from its front, item by item: read in one pass, and emptied at once.

``pop(0)`` moves all items that are left. Nothing of what is done with an item may fail or look at
the list, for it holds other items meanwhile; where another list of the function may be the same
one, that is asked first.

Time O(n) instead of O(n^2).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads

__all__ = ["DRAIN"]

_TESTS = ("xs_", "len(xs_) > 0", "len(xs_)", "len(xs_) != 0")


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.While) or loop.orelse:
            continue
        test = code.match_any(_TESTS, loop.test)
        found = code.match_block("x_ = xs_.pop(0)\nBODY", loop.body)
        if not test or not found or test["xs_"] != found["xs_"]:
            continue
        change = _pass(code, loop, found["xs_"], found["x_"], found["BODY"])
        if change is not None:
            yield change


def _pass(
    code: Code, loop: ast.While, box: str, item: str, action: list[ast.stmt]
) -> Change | None:
    if not code.kinds.variable(box).only(list) or not code.effects.is_steady(box):
        return None
    if item == box or box in loads(action) | binds(action):
        return None
    others: set[str] = set()
    if not all(_is_sure(code, s, others) for s in action):
        return None
    others = {n for n in others if not code.effects.is_private(n)}
    same = " and ".join(f"{box} is not {name}" for name in sorted(others))
    lines = code.fill(
        f"""
for {item} in {box}:
    $action
{box}.clear()
""",
        action=action,
    )
    if lines is None or (others and code.is_otherwise(loop, same)):
        return None
    if not others:
        edit = code.replace([loop], lines)
    else:
        block = code.source.block([loop], "    ")
        if block is None:
            return None
        edit = code.exchange([loop], [f"if {same}:", *("    " + x for x in lines), "else:", *block])
    explain = f"takes all items of {box} in one pass and empties it at once"
    return Change(explain, (edit,)) if edit is not None else None


def _is_sure(code: Code, node: ast.stmt, others: set[str]) -> bool:
    """Whether a statement cannot fail, and changes nothing but locals and lists made here.

    Args:
        code: the function.
        node: the statement.
        others: gets the names of lists that it looks into.
    """
    if isinstance(node, (ast.Pass, ast.Continue)):
        return True
    if isinstance(node, ast.If):
        inside = [*node.body, *node.orelse]
        return _is_sure_value(code, node.test, others) and all(
            _is_sure(code, s, others) for s in inside
        )
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        return isinstance(node.targets[0], ast.Name) and _is_sure_value(code, node.value, others)
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        whole = code.type(node.target).is_integer and code.type(node.value).is_integer
        plain = isinstance(node.op, (ast.Add, ast.Sub, ast.Mult))
        return whole and plain and _is_sure_value(code, node.value, others)
    found = code.match("ys_.append(V)", node)
    return bool(
        found and code.effects.is_private(found["ys_"]) and _is_sure_value(code, found["V"], others)
    )


def _is_sure_value(code: Code, node: ast.expr, others: set[str]) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _is_sure_value(code, node.operand, others)
    found = code.match_any(("V in ys_", "V not in ys_"), node)
    if not found:
        scalar = all(
            code.type(n).is_exact or code.type(n).only(float)
            for n in ast.walk(node)
            if isinstance(n, ast.Name) and n.id in code.names.local
        )
        return scalar and code.effects.is_total(node)
    box, value = found["ys_"], found["V"]
    if box not in code.names.local or not code.kinds.variable(box).only(list, tuple):
        return False
    others.add(box)
    plain = code.type(value).is_plain and code.kinds.items_of(box).is_plain
    return plain and code.effects.is_total(value)


DRAIN = Rewriter(
    name="drain",
    summary="`pop(0)` until a list is empty: one pass, and `clear`",
    risk="types",
    find=_find,
    example=(
        """\
def take_positive(xs):
    out = []
    while xs:
        x = xs.pop(0)
        if x > 0:
            out.append(x)
    return out
""",
        """\
def take_positive(xs):
    out = []
    for x in xs:
        if x > 0:
            out.append(x)
    xs.clear()
    return out
""",
    ),
)
