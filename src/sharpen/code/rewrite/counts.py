"""``count`` and ``index`` of a list in loops: a table of all counts, or of all first places.

``xs.count(x)`` compares all items with one; ``collections.Counter`` counts all of them at once. As
with sets, equal values must have equal hashes. ``xs.index(x)`` fails where there is no such item,
so the table is asked first whether it holds ``x``, unless ``x`` comes from ``xs``.

Time O(1) for each call instead of O(n); memory O(n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds
from sharpen.code.rewrite.source import Edit

__all__ = ["COUNTER", "FIRST_PLACES", "calls_of"]


def calls_of(code: Code, method: str) -> Iterator[tuple[ast.Call, str]]:
    """Calls ``xs.method(x)`` of a local."""
    for node in code.expressions():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == method
            and isinstance(node.func.value, ast.Name)
            and len(node.args) == 1
            and not node.keywords
        ):
            yield node, node.func.value.id


def _find_counts(code: Code) -> Iterator[Change]:
    places: dict[tuple[str, ast.stmt], list[ast.Call]] = {}
    for node, box in calls_of(code, "count"):
        kind, items = code.kinds.variable(box), code.kinds.items_of(box)
        value = code.type(node.args[0])
        letters = kind.only(str) and code.is_char(node.args[0])
        if not letters and not (kind.only(list, tuple) and value.is_hashable and items.is_hashable):
            continue
        at = code.steady_from(node, box)
        if at is not None:
            places.setdefault((box, at), []).append(node)
    for (box, at), nodes in places.items():
        name = code.names.fresh(f"{box}_counts")
        counter, imports = code.library("collections", "Counter")
        edits: list[Edit | None] = [code.before(at, [f"{name} = {counter}({box})"])]
        edits += [code.swap(node, f"{name}[$x]", x=node.args[0]) for node in nodes]
        if all(edits):
            yield Change(
                f"counts all items of {box} once instead of each time one is asked for",
                tuple(e for e in edits if e is not None),
                imports,
            )


COUNTER = Rewriter(
    name="counter",
    summary="`count` of a list in a loop: all counts at once",
    risk="types",
    find=_find_counts,
    example=(
        """\
def repeated(xs):
    return [x for x in xs if xs.count(x) > 1]
""",
        """\
import collections


def repeated(xs):
    xs_counts = collections.Counter(xs)
    return [x for x in xs if xs_counts[x] > 1]
""",
    ),
)


def _find_indexes(code: Code) -> Iterator[Change]:
    for node, box in calls_of(code, "index"):
        kind, items, value = code.kinds.variable(box), code.kinds.items_of(box), node.args[0]
        inside = isinstance(value, ast.Name) and _comes_from(code, value, box)
        if not ((kind.only(list, tuple) and items.is_hashable) or (kind.only(str) and inside)):
            continue
        above = code.effects.parent(node)
        if not inside and (
            not code.type(value).is_hashable
            or not code.effects.is_total(value)
            or (isinstance(above, ast.IfExp) and above.orelse is node)
        ):
            continue
        at = code.steady_from(node, box)
        if at is None:
            continue
        name = code.names.fresh(f"{box}_places")
        place, item = code.names.fresh("place"), code.names.fresh("item")
        text = f"{name}[$x]" if inside else f"({name}[$x] if $x in {name} else $old)"
        edit = code.before(
            at,
            [
                f"{name} = {{}}",
                f"for {place}, {item} in enumerate({box}):",
                f"    {name}.setdefault({item}, {place})",
            ],
        )
        if edit is not None:
            yield Change(
                f"looks the first places of values in {box} up in a table",
                (edit, code.swap(node, text, x=value, old=node)),
            )


def _comes_from(code: Code, value: ast.Name, box: str) -> bool:
    """Whether the loop around that binds a variable runs over the items of a sequence."""
    child: ast.AST = value
    at = code.effects.parent(value)
    while at is not None and at is not code.function:
        generators = getattr(at, "generators", [at] if isinstance(at, ast.For) else [])
        for g in generators:
            if value.id in binds([g.target]) and child is not g:
                if isinstance(at, ast.For) and (child not in at.body or value.id in binds(at.body)):
                    return False
                found = code.match_any(("xs_", "set(xs_)", "sorted(xs_)", "reversed(xs_)"), g.iter)
                if found and found["xs_"] == box:
                    return isinstance(g.target, ast.Name)
                found = code.match("enumerate(xs_)", g.iter)
                return bool(
                    found
                    and found["xs_"] == box
                    and isinstance(g.target, ast.Tuple)
                    and len(g.target.elts) == 2
                    and isinstance(g.target.elts[1], ast.Name)
                    and g.target.elts[1].id == value.id
                )
        child, at = at, code.effects.parent(at)
    return False


FIRST_PLACES = Rewriter(
    name="first-places",
    summary="`index` of a list in a loop: a table of first places",
    risk="types",
    find=_find_indexes,
    example=(
        """\
def first_only(xs):
    out = []
    for i, x in enumerate(xs):
        if xs.index(x) == i:
            out.append(x)
    return out
""",
        """\
def first_only(xs):
    out = []
    xs_places = {}
    for place, item in enumerate(xs):
        xs_places.setdefault(item, place)
    for i, x in enumerate(xs):
        if xs_places[x] == i:
            out.append(x)
    return out
""",
    ),
)
