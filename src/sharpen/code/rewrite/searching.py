"""Loops that search, and loops that only pass items on: what the containers do themselves.

``for x in xs: if x == v: return True`` is ``if v in xs: return True``, in C. ``in`` also takes an
object for equal to itself, so both agree only where every value equals itself (no NaN). A loop that
puts each item into a set or list is ``update`` or ``extend``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.reductions import over_part
from sharpen.code.rewrite.types import MAPPINGS

__all__ = ["PASS_ON", "SEARCH_LOOP"]

_BOXES = frozenset({list, tuple, set, frozenset, range}) | MAPPINGS


def _find_searches(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not (isinstance(loop, ast.For) and isinstance(loop.target, ast.Name)) or loop.orelse:
            continue
        found = code.match_block("if L == R:\n BODY", loop.body)
        if not found or not isinstance(loop.iter, (ast.Name, ast.Subscript, ast.Call)):
            continue
        item = loop.target.id
        for one, value in ((found["L"], found["R"]), (found["R"], found["L"])):
            if item in loads([one]) and item not in loads([value]):
                box = _box(code, loop, one, value)
                change = _search(code, loop, item, value, found["BODY"], box) if box else None
                if change is not None:
                    yield change
                break
    for node in code.expressions():
        found = code.match("any(x_ == V for x_ in XS)", node)
        if (
            found
            and found["x_"] not in loads([found["V"]])
            and _agree(code, found["XS"], found["V"])
        ) and code.effects.is_total(found["V"]):
            yield Change(
                "lets the container look for the value",
                (code.swap(node, "($v in $xs)", v=found["V"], xs=found["XS"]),),
            )


def _agree(code: Code, box: ast.expr, value: ast.expr) -> bool:
    """Whether ``in`` finds what a comparison of all items finds."""
    if code.type(box).only(str):
        return code.is_char(value)
    plain = code.type(box).within(_BOXES) and code.items(box).is_exact
    return plain and code.type(value).is_exact


def _box(code: Code, loop: ast.For, one: ast.expr, value: ast.expr) -> str | None:
    """The text of what is searched, where a loop compares ``one`` of each round with a value."""
    if not isinstance(loop.iter, ast.Call):
        assert isinstance(loop.target, ast.Name)
        whole = isinstance(one, ast.Name) and one.id == loop.target.id
        return code.text(loop.iter) if whole and _agree(code, loop.iter, value) else None
    if not (code.type(one).is_exact and code.type(value).is_exact):
        return None
    part = over_part(code, loop, one)
    return part[0] if part is not None and part[1] is None else None


def _search(
    code: Code, loop: ast.For, item: str, value: ast.expr, action: list[ast.stmt], box: str
) -> Change | None:
    if not code.effects.is_total(value):
        return None
    if not code.is_unread(item, [loop]) or item in loads(action):
        return None
    done = action
    if isinstance(action[-1], ast.Break) and len(action) > 1:
        done = action[:-1]
    elif not isinstance(action[-1], (ast.Return, ast.Raise)) and not code.match_block(
        "f_ = V", action
    ):
        return None
    flag = action[0] if len(action) == 1 and isinstance(action[0], ast.Assign) else None
    if flag and (not isinstance(flag.value, ast.Constant) or binds(action) & loads([value])):
        return None
    if any(isinstance(n, (ast.Break, ast.Continue)) for s in done for n in ast.walk(s)):
        return None
    block = code.source.block(done, "    ")
    if block is None:
        return None
    head = code.line("if $v in $xs:", {"v": value, "xs": box})
    edit = code.replace([loop], [head, *block])
    return Change("lets the container look for the value", (edit,)) if edit is not None else None


SEARCH_LOOP = Rewriter(
    name="search-loop",
    summary="a loop that looks for an equal item: `in`",
    risk="types",
    find=_find_searches,
    example=(
        """\
def find_in_rows(rows, value):
    for row in rows:
        for cell in row:
            if cell == value:
                return True
    return False
""",
        """\
def find_in_rows(rows, value):
    for row in rows:
        if value in row:
            return True
    return False
""",
    ),
)

_PASSED = {"xs_.append(x_)": ("extend", list), "xs_.add(x_)": ("update", set)}


def _find_passed(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not (isinstance(loop, ast.For) and isinstance(loop.target, ast.Name)) or loop.orelse:
            continue
        for pattern, (method, kind) in _PASSED.items():
            found = code.match_block(pattern, loop.body)
            if not found or found["x_"] != loop.target.id:
                continue
            box = found["xs_"]
            hashable = kind is list or code.items(loop.iter).is_hashable
            if (
                code.kinds.variable(box).only(kind)
                and hashable
                and code.type(loop.iter).within(_BOXES | {str, bytes})
                and code.effects.is_private(box)
                and box not in loads([loop.iter])
                and code.effects.is_pure_expression(loop.iter)
                and code.is_unread(loop.target.id, [loop])
                and code.is_bound_before(box, loop)
            ):
                line = code.line(f"{box}.{method}($xs)", {"xs": loop.iter})
                edit = code.replace([loop], [line])
                if edit is not None:
                    yield Change(f"gives {box} all items at once", (edit,))


PASS_ON = Rewriter(
    name="pass-on",
    summary="a loop that adds each item to a list or set: `extend`, `update`",
    risk="types",
    find=_find_passed,
    example=(
        """\
def points_of(begin, end):
    points = {0}
    for point in range(begin, end):
        points.add(point)
    return len(points)
""",
        """\
def points_of(begin, end):
    points = {0}
    points.update(range(begin, end))
    return len(points)
""",
    ),
)
