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


_REMOVED = (
    "while V in xs_:\n xs_.remove(V)",
    "for i_ in range(xs_.count(V)):\n xs_.remove(V)",
    "for i_ in range(xs_.count(V)):\n xs_.remove(V)\n xs_.append(V)",
)


def _find_removals(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, (ast.While, ast.For)) or loop.orelse:
            continue
        found = code.match_any_block(_REMOVED, [loop])
        if not found:
            continue
        box, value = found["xs_"], found["V"]
        if not code.kinds.variable(box).only(list) or not code.effects.is_total(value):
            continue
        names = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
        if box in names or found.get("i_") in names | {box}:
            continue
        if "i_" in found and not code.is_unread(found["i_"], [loop]):
            continue
        kinds = (code.kinds.items_of(box), code.type(value))
        moved = len(loop.body) == 2
        if not all(k.is_exact for k in kinds):
            continue
        if moved and not any(all(k.only(t) for k in kinds) for t in (int, str)):
            continue  # equal items that are added again may be told apart
        item = code.names.fresh("item")
        line = code.line(f"{box}[:] = [{item} for {item} in {box} if {item} != $v]", {"v": value})
        if moved:
            line += code.line(f" + [$v] * {box}.count($v)", {"v": value})
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
