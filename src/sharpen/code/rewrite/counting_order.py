"""Loops that count the items below, above or equal to a value, for each of many values.

How many items are below a value is its place in the sorted list: a binary search (Knuth, The Art of
Computer Programming, volume 3, 6.2.1). Where only the items behind the value's own are counted (the
inversions of a list), each item leaves the sorted list when the outer loop comes to it.

Time O(log n) for each value instead of O(n) (and a move of memory for each that leaves). Only for
items of which equal ones cannot be told apart: all ``int``, or all ``str``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.source import Edit
from sharpen.code.rewrite.tables import inner_loop, outer_loop

__all__ = ["COUNT_BEHIND", "COUNT_BELOW"]

_MEANS: dict[type[ast.cmpop], frozenset[str]] = {
    ast.Lt: frozenset({"below"}),
    ast.LtE: frozenset({"below", "equal"}),
    ast.Gt: frozenset({"above"}),
    ast.GtE: frozenset({"above", "equal"}),
    ast.Eq: frozenset({"equal"}),
    ast.NotEq: frozenset({"below", "above"}),
}
_TURNED = {"below": "above", "above": "below", "equal": "equal"}


def _branches(code: Code, body: list[ast.stmt]) -> list[tuple[ast.Compare, str]] | None:
    """The comparisons and counters of ``if x < v: c += 1`` and ``elif``."""
    found = code.match_any_block(("if T:\n c_ += 1", "if T:\n c_ = c_ + 1"), body)
    rest: list[tuple[ast.Compare, str]] | None = []
    if not found:
        found = code.match_any_block(
            ("if T:\n c_ += 1\nelse:\n BODY", "if T:\n c_ = c_ + 1\nelse:\n BODY"), body
        )
        rest = _branches(code, found["BODY"]) if found else None
    if not found or rest is None:
        return None
    test = found["T"]
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and type(test.ops[0]) in _MEANS):
        return None
    return [(test, found["c_"]), *rest]


def _parts(
    code: Code, body: list[ast.stmt], item: str
) -> tuple[str, list[tuple[frozenset[str], str]]] | None:
    """The one value that items (written so) are compared with, and what each counter counts."""
    branches = _branches(code, body)
    if branches is None:
        return None
    values: set[str] = set()
    left = frozenset({"below", "equal", "above"})
    found = []
    for test, counter in branches:
        means = _MEANS[type(test.ops[0])]
        sides = [ast.unparse(test.left), ast.unparse(test.comparators[0])]
        if sides[1] == item:
            means = frozenset(_TURNED[m] for m in means)
            sides.reverse()
        if sides[0] != item:
            return None
        values.add(sides[1])
        found.append((means & left, counter))
        left -= means
    return (values.pop(), found) if len(values) == 1 else None


def _value(code: Code, body: list[ast.stmt], text: str) -> ast.expr | None:
    for node in ast.walk(body[0]):
        if isinstance(node, ast.expr) and ast.unparse(node) == text:
            return node
    return None


def _lines(
    code: Code, counted: list[tuple[frozenset[str], str]], ordered: str, value: str
) -> tuple[list[str], tuple[str, ...]]:
    """One line for each counter."""
    left, imports = code.library("bisect", "bisect_left")
    right, _ = code.library("bisect", "bisect_right")
    low, high = f"{left}({ordered}, {value})", f"{right}({ordered}, {value})"
    size = f"len({ordered})"
    texts = {
        frozenset({"below"}): low,
        frozenset({"below", "equal"}): high,
        frozenset({"above"}): f"{size} - {high}",
        frozenset({"above", "equal"}): f"{size} - {low}",
        frozenset({"equal"}): f"{high} - {low}",
        frozenset({"below", "above"}): f"{size} - {high} + {low}",
        frozenset({"below", "equal", "above"}): size,
    }
    return [f"{name} += {texts[means]}" for means, name in counted if means], imports


def _fits(
    code: Code, loop: ast.For, box: str, value: ast.expr, counted: list[tuple[frozenset[str], str]]
) -> bool:
    items, kind = code.kinds.items_of(box), code.type(value)
    counters = {name for _, name in counted}
    return (
        code.kinds.variable(box).only(list, tuple)
        and any(items.only(t) and kind.only(t) for t in (int, str))
        and code.effects.is_total(value)
        and not loads([value]) & (counters | binds([loop.target]))
        and all(code.is_unread(n, [loop]) for n in binds([loop.target]))
        and all(
            code.kinds.variable(c).is_integer
            and code.effects.is_steady(c)
            and code.is_bound_before(c, loop)
            for c in counters
        )
    )


def _find_below(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For) or not isinstance(loop.iter, ast.Name) or loop.orelse:
            continue
        if not isinstance(loop.target, ast.Name):
            continue
        box = loop.iter.id
        found = _parts(code, loop.body, loop.target.id)
        value = _value(code, loop.body, found[0]) if found else None
        at = code.steady_from(loop, box)
        if not found or value is None or not isinstance(at, (ast.For, ast.While)):
            continue
        if not _fits(code, loop, box, value, found[1]) or code.type(value).anything:
            continue
        if all(means == {"equal"} for means, _ in found[1]):
            continue
        ordered = code.names.fresh(f"{box}_in_order")
        lines, imports = _lines(code, found[1], ordered, found[0])
        yield from _changes(
            code.before(at, [f"{ordered} = sorted({box})"]),
            code.replace([loop], lines),
            explain=f"counts items of {box} by binary search",
            imports=imports,
        )


def _changes(*edits: Edit | None, explain: str, imports: tuple[str, ...]) -> Iterator[Change]:
    if all(edits):
        yield Change(explain, tuple(e for e in edits if e is not None), imports)


COUNT_BELOW = Rewriter(
    name="count-below",
    summary="a loop that counts the items below or above each value: binary search",
    risk="types",
    find=_find_below,
    example=(
        """\
def numbers_below(xs):
    out = []
    for a in xs:
        count = 0
        for b in xs:
            if b < a:
                count += 1
        out.append(count)
    return out
""",
        """\
import bisect


def numbers_below(xs):
    out = []
    xs_in_order = sorted(xs)
    for a in xs:
        count = 0
        count += bisect.bisect_left(xs_in_order, a)
        out.append(count)
    return out
""",
    ),
)


def _find_behind(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For) or loop.orelse:
            continue
        outer = outer_loop(code, loop.target, loop.iter)
        for at, second in enumerate(loop.body):
            if not isinstance(second, ast.For) or second.orelse or outer.index is None:
                continue
            inner = inner_loop(code, second.target, second.iter, outer)
            if inner is None or not inner.behind:
                continue
            if outer.index in binds(loop.body) or not code.effects.keeps([loop], inner.box):
                continue
            name = inner.item.id if isinstance(inner.item, ast.Name) else None
            items = [n for n in (name, f"{inner.box}[{inner.index}]") if n is not None]
            found = next((f for i in items if (f := _parts(code, second.body, i))), None)
            value = _value(code, second.body, found[0]) if found else None
            if not found or value is None or not _fits(code, second, inner.box, value, found[1]):
                continue
            if inner.variables & (binds(loop.body[:at]) | loads([value])):
                continue
            if not code.is_bound_before(inner.box, loop):
                continue
            ordered = code.names.fresh("later_in_order")
            own = f"{inner.box}[{outer.index}]"
            left, _ = code.library("bisect", "bisect_left")
            lines, imports = _lines(code, found[1], ordered, found[0])
            yield from _changes(
                code.before(loop, [f"{ordered} = sorted({inner.box})"]),
                code.before(loop.body[0], [f"del {ordered}[{left}({ordered}, {own})]"]),
                code.replace([second], lines),
                explain=f"counts later items of {inner.box} by binary search",
                imports=imports,
            )


COUNT_BEHIND = Rewriter(
    name="count-behind",
    summary="a loop that counts the later items below or above each item: binary search",
    risk="types",
    find=_find_behind,
    example=(
        """\
def smaller_behind(xs):
    out = []
    for i in range(len(xs)):
        count = 0
        for j in range(i + 1, len(xs)):
            if xs[j] < xs[i]:
                count += 1
        out.append(count)
    return out
""",
        """\
import bisect


def smaller_behind(xs):
    out = []
    later_in_order = sorted(xs)
    for i in range(len(xs)):
        del later_in_order[bisect.bisect_left(later_in_order, xs[i])]
        count = 0
        count += bisect.bisect_left(later_in_order, xs[i])
        out.append(count)
    return out
""",
    ),
)
