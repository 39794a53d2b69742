"""``count`` of a list that grows: a table of counts that grows with it.

``out.count(x)`` compares ``x`` with all that is in the list so far. Where a private list is only
appended to, a ``collections.Counter`` that is told of each item has the same number at once. Equal
values must be one key.

Time O(1) for each call instead of O(n); memory O(n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.counts import calls_of
from sharpen.code.rewrite.membership import growth_of
from sharpen.code.rewrite.names import loads
from sharpen.code.rewrite.source import Edit

__all__ = ["GROWING_COUNTS"]


def _find(code: Code) -> Iterator[Change]:
    asked: dict[str, list[ast.Call]] = {}
    for node, box in calls_of(code, "count"):
        value, items = code.type(node.args[0]), code.kinds.items_of(box)
        known = code.kinds.variable(box).only(list) and value.is_hashable and items.is_hashable
        if known and code.effects.is_private(box) and code.loops(node):
            asked.setdefault(box, []).append(node)
    for box, calls in asked.items():
        change = _table(code, box, calls)
        if change is not None:
            yield change


def _table(code: Code, box: str, calls: list[ast.Call]) -> Change | None:
    found = growth_of(code, box, calls)
    if found is None:
        return None
    name = code.names.fresh(f"{box}_counts")
    counter, imports = code.library("collections", "Counter")
    edits: list[Edit | None] = []
    made, added, _ = found
    for statement, value in made:
        start = f"{counter}({box})" if value.elts else f"{counter}()"
        edits.append(code.after(statement, [f"{name} = {start}"]))
    for statement, item, _ in added:
        if not code.effects.is_total(item) or box in loads([item]):
            return None
        edits.append(code.after(statement, [code.line(f"{name}[$x] += 1", {"x": item})]))
    edits += [code.swap(call, f"{name}[$x]", x=call.args[0]) for call in calls]
    if not all(edits):
        return None
    return Change(
        f"keeps how often values are in {box}, instead of counting them each time",
        tuple(e for e in edits if e is not None),
        imports,
    )


GROWING_COUNTS = Rewriter(
    name="growing-counts",
    summary="`count` of a list that grows: a table of counts that grows with it",
    risk="types",
    find=_find,
    example=(
        """\
def at_most(xs, n):
    out = []
    for x in xs:
        if out.count(x) < n:
            out.append(x)
    return out
""",
        """\
import collections


def at_most(xs, n):
    out = []
    out_counts = collections.Counter()
    for x in xs:
        if out_counts[x] < n:
            out.append(x)
            out_counts[x] += 1
    return out
""",
    ),
)
