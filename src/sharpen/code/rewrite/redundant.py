"""Copies that nobody needs, and items removed one by one.

``x in d.keys()`` is ``x in d``; ``sorted`` and ``set`` take any iterable, so that ``list`` before
them only copies; ``while v in xs: xs.remove(v)`` searches and moves the items each time, O(n^2).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.types import MAPPINGS

__all__ = ["REDUNDANT_COPY", "REMOVE_ALL"]

_PATTERNS = (
    "sorted(list(XS))",
    "sorted(tuple(XS))",
    "set(list(XS))",
    "set(sorted(XS))",
    "sum(list(XS))",
    "tuple(list(XS))",
    "frozenset(list(XS))",
    "min(list(XS))",
    "max(list(XS))",
    "len(list(XS))",
    "sorted(sorted(XS))",
    "set(set(XS))",
    "list(list(XS))",
    "list(sorted(XS))",
)
_SIZED = frozenset({list, tuple, str, set, frozenset, bytes, range}) | MAPPINGS


def _find_copies(code: Code) -> Iterator[Change]:
    for node in code.expressions():
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            found = code.match("d_.keys()", node.comparators[0])
            member = isinstance(node.ops[0], (ast.In, ast.NotIn))
            if found and member and code.kinds.variable(found["d_"]).within(MAPPINGS):
                yield Change("asks the dict itself", (code.swap(node.comparators[0], found["d_"]),))
        if not isinstance(node, ast.Call):
            continue
        found = code.match_any(_PATTERNS, node)
        if not found or not code.type(found["XS"]).within(_SIZED):
            continue
        inner = node.args[0]
        assert isinstance(inner, ast.Call)
        if ast.unparse(node.func) == "set" and ast.unparse(inner.func) == "sorted":
            items = code.items(found["XS"])
            if not (items.only(int) or items.only(str)):
                continue
        if ast.unparse(node.func) == "list":
            edit = code.swap(node, "$x", x=inner)
        else:
            edit = code.swap(inner, "$x", x=found["XS"])
        yield Change("leaves a copy out", (edit,))


REDUNDANT_COPY = Rewriter(
    name="redundant-copy",
    summary="a list that is made only to be read once: left out",
    risk="types",
    find=_find_copies,
    example=(
        """\
def in_order_of(xs):
    return sorted(list(xs))
""",
        """\
def in_order_of(xs):
    return sorted(xs)
""",
    ),
)


def _find_removals(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.While) or loop.orelse:
            continue
        found = code.match_block("while V in xs_:\n xs_.remove(V)", [loop])
        if not found:
            continue
        box, value = found["xs_"], found["V"]
        total = code.effects.is_total(value) and not any(
            isinstance(n, ast.Name) and n.id == box for n in ast.walk(value)
        )
        if (
            not code.kinds.variable(box).only(list)
            or not code.kinds.items_of(box).is_exact
            or not code.type(value).is_exact
            or not total
        ):
            continue
        item = code.names.fresh("item")
        line = code.line(f"{box}[:] = [{item} for {item} in {box} if {item} != $v]", {"v": value})
        edit = code.replace([loop], [line])
        if edit is not None:
            yield Change(f"removes items of {box} in one pass", (edit,))


REMOVE_ALL = Rewriter(
    name="remove-all",
    summary="removing all equal items one by one: in one pass",
    risk="types",
    find=_find_removals,
    example=(
        """\
def without(values, unwanted):
    out = list(values)
    while unwanted in out:
        out.remove(unwanted)
    return out
""",
        """\
def without(values, unwanted):
    out = list(values)
    out[:] = [item for item in out if item != unwanted]
    return out
""",
    ),
)
