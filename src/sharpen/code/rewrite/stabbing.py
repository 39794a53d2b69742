"""Intervals that hold a point, counted or looked for in a loop: two binary searches.

Of intervals that are not empty, those that hold ``p`` are those that begin up to ``p`` less those
that end before it: every one that has ended has begun. Both numbers are places in a sorted list
(Knuth, The Art of Computer Programming, volume 3, 6.2.1).

Time O(log n) for each point instead of O(n); memory O(n). Only for whole numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.linear import conjuncts
from sharpen.code.rewrite.names import binds, loads

__all__ = ["INTERVALS"]

_UP = (ast.Lt, ast.LtE)
_DOWN = {ast.Gt: ast.Lt, ast.GtE: ast.LtE}


@dataclass(frozen=True, slots=True)
class _Inside:
    """``begin op point op end``; an operator is strict or not."""

    begin: str
    end: str
    point: ast.expr
    after: bool
    before: bool


def _links(test: ast.expr) -> list[tuple[ast.expr, bool, ast.expr]] | None:
    """A conjunction of comparisons as ``low < high`` or ``low <= high``."""
    found = []
    for part in conjuncts(test):
        if not isinstance(part, ast.Compare):
            return None
        nodes = [part.left, *part.comparators]
        for i, op in enumerate(part.ops):
            low, high = nodes[i], nodes[i + 1]
            kind = _DOWN.get(type(op), type(op))
            if kind is not type(op):
                low, high = high, low
            if kind not in _UP:
                return None
            found.append((low, kind is ast.Lt, high))
    return found


def _inside(code: Code, target: ast.expr, source: ast.expr, test: ast.expr) -> _Inside | None:
    """What a test asks of the items of a list of tuples of whole numbers."""
    if not isinstance(source, ast.Name) or not code.type(source).only(list, tuple):
        return None
    items, links = code.items(source), _links(test)
    if not items.only(tuple) or items.arity is None or links is None or len(links) != 2:
        return None
    if items.items is None or not items.items.only(int):
        return None
    if isinstance(target, ast.Tuple):
        if not all(isinstance(e, ast.Name) for e in target.elts):
            return None
        if items.arity != len(target.elts) or len(binds([target])) != len(target.elts):
            return None
    elif not isinstance(target, ast.Name):
        return None
    names = binds([target])
    if loads([links[0][0]]) & names:
        (begin, after, point), (again, before, end) = links
    else:
        (again, before, end), (begin, after, point) = links
    if ast.unparse(point) != ast.unparse(again) or loads([point]) & names:
        return None
    if not all(_is_part(code, node, target, items.arity) for node in (begin, end)):
        return None
    if not code.type(point).only(int) or not code.effects.is_total(point):
        return None
    return _Inside(ast.unparse(begin), ast.unparse(end), point, after, before)


def _is_part(code: Code, node: ast.expr, target: ast.expr, arity: int) -> bool:
    """Whether an expression is one part of the tuple that a loop takes."""
    if isinstance(node, ast.Name):
        return isinstance(target, ast.Tuple) and node.id in binds([target])
    found = code.match("x_[K]", node)
    if not found or not isinstance(target, ast.Name) or found["x_"] != target.id:
        return False
    k = found["K"]
    return isinstance(k, ast.Constant) and type(k.value) is int and 0 <= k.value < arity


def _tables(
    code: Code, at: ast.stmt, target: ast.expr, box: str, inside: _Inside
) -> tuple[list[str], str, tuple[str, ...]]:
    """What makes both sorted lists, and the text of how many intervals hold the point."""
    begins, ends = code.names.fresh(f"{box}_begins"), code.names.fresh(f"{box}_ends")
    sign = "<" if inside.after and inside.before else "<="
    item = code.text(target)
    over = f"for {item} in {box} if {inside.begin} {sign} {inside.end}"
    lines = [
        f"{begins} = sorted({inside.begin} {over})",
        f"{ends} = sorted({inside.end} {over})",
    ]
    begun, imports = code.library("bisect", "bisect_left" if inside.after else "bisect_right")
    ended, _ = code.library("bisect", "bisect_right" if inside.before else "bisect_left")
    point = code.text(inside.point)
    return lines, f"{begun}({begins}, {point}) - {ended}({ends}, {point})", imports


def _find(code: Code) -> Iterator[Change]:
    if not code.names.builtin("sorted"):
        return
    for loop in code.statements():
        if isinstance(loop, ast.For) and not loop.orelse:
            change = _loop(code, loop)
            if change is not None:
                yield change
    for node in code.expressions():
        change = _call(code, node)
        if change is not None:
            yield change


def _loop(code: Code, loop: ast.For) -> Change | None:
    found = code.match_block("if T:\n BODY", loop.body)
    inside = _inside(code, loop.target, loop.iter, found["T"]) if found else None
    if not found or inside is None or not isinstance(loop.iter, ast.Name):
        return None
    names, box, action = binds([loop.target]), loop.iter.id, found["BODY"]
    at = code.steady_from(loop, box)
    if at is None or names & loads(action) or not all(code.is_unread(n, [loop]) for n in names):
        return None
    lines, text, imports = _tables(code, at, loop.target, box, inside)
    counted = code.match_any_block(("c_ += 1", "c_ = c_ + 1"), action)
    if counted:
        c = counted["c_"]
        whole = code.kinds.variable(c).is_integer and code.effects.is_steady(c)
        if not whole or c in loads([inside.point]) or not code.is_bound_before(c, loop):
            return None
        put = [f"{c} += {text}"]
    else:
        done = _done(code, action, inside)
        block = code.source.block(done, "    ") if done else None
        if block is None:
            return None
        put = [f"if {text}:", *block]
    edits = (code.before(at, lines), code.replace([loop], put))
    if edits[0] is None or edits[1] is None:
        return None
    return Change(_EXPLAIN, (edits[0], edits[1]), imports)


def _done(code: Code, action: list[ast.stmt], inside: _Inside) -> list[ast.stmt] | None:
    """What is done where any interval holds the point, if doing it again changes nothing."""
    flag = code.match_any_block(("f_ = V", "f_ = V\nbreak"), action)
    if flag and isinstance(flag["V"], ast.Constant) and flag["f_"] not in loads([inside.point]):
        return action[:1]
    return action if isinstance(action[-1], ast.Return) and len(action) == 1 else None


def _call(code: Code, node: ast.expr) -> Change | None:
    """``sum(1 for a, b in xs if a <= p < b)`` and ``any(a <= p < b for a, b in xs)``."""
    if not (isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords):
        return None
    what, part = code.names.stands_for(node.func), node.args[0]
    if not isinstance(part, (ast.GeneratorExp, ast.ListComp)) or len(part.generators) != 1:
        return None
    loop, test = part.generators[0], part.elt
    if loop.is_async or not isinstance(loop.iter, ast.Name):
        return None
    if what == "sum" and len(loop.ifs) == 1 and ast.unparse(part.elt) == "1":
        test = loop.ifs[0]
    elif loop.ifs or what not in ("sum", "any"):
        return None
    inside = _inside(code, loop.target, loop.iter, test)
    at = code.steady_from(node, loop.iter.id) if inside is not None else None
    if inside is None or at is None:
        return None
    lines, text, imports = _tables(code, at, loop.target, loop.iter.id, inside)
    edit = code.before(at, lines)
    put = f"({text} > 0)" if what == "any" else f"({text})"
    return Change(_EXPLAIN, (edit, code.swap(node, put)), imports) if edit is not None else None


_EXPLAIN = "counts the intervals around a point by binary search"

INTERVALS = Rewriter(
    name="intervals",
    summary="counting or looking for the intervals around each of many points: binary search",
    risk="types",
    find=_find,
    example=(
        """\
def busy(spans, points):
    out = []
    for point in points:
        count = 0
        for begin, end in spans:
            if begin <= point < end:
                count += 1
        out.append(count)
    return out
""",
        """\
import bisect


def busy(spans, points):
    out = []
    spans_begins = sorted(begin for begin, end in spans if begin <= end)
    spans_ends = sorted(end for begin, end in spans if begin <= end)
    for point in points:
        count = 0
        count += bisect.bisect_right(spans_begins, point) - bisect.bisect_right(spans_ends, point)
        out.append(count)
    return out
""",
    ),
)
