"""Generators that are used up at once: lists and sets made in one loop.

``tuple(f(x) for x in xs)`` starts and stops the generator's frame for each item; ``tuple([f(x) for
x in xs])`` appends to a list in one frame. ``set(...)`` and
``list(...)`` of a generator are the comprehension itself.

The function that takes the generator must take all of it, and nothing that it does between two
items may fail or be seen: sums and extremes are of numbers (or texts). What raises
``StopIteration`` inside of a generator is another error, so that nothing unknown is called there.
A list of all items is kept for a moment, where the builtin kept one at a time.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.source import Edit

__all__ = ["LISTED"]

_TO_LIST = frozenset({"tuple", "sorted", "frozenset"})
_BRACKETS = {"list": ("[", "]"), "set": ("{", "}")}
_ADDED = frozenset({"sum", "min", "max"})
_CALLED = frozenset(
    {"len", "abs", "int", "float", "str", "ord", "chr", "bool", "min", "max", "sum", "round"}
    | {"isinstance", "tuple", "list", "set", "frozenset", "sorted", "range", "enumerate", "zip"}
    | {"reversed", "divmod", "pow", "repr", "hash", "bin", "hex", "any", "all"}
)


def _find(code: Code) -> Iterator[Change]:
    edits: list[Edit] = []
    inside: set[int] = set()
    for node in code.expressions():
        if not isinstance(node, ast.Call) or not node.args or node.keywords or id(node) in inside:
            continue
        made = node.args[0]
        if not isinstance(made, ast.GeneratorExp) or not _is_quiet(code, made):
            continue
        edit = _edit(code, node, made)
        if edit is not None:
            edits.append(edit)
            inside.update(id(n) for n in ast.walk(made))
    if edits:
        yield Change("makes lists and sets in one loop, without a generator", tuple(edits))


def _is_quiet(code: Code, made: ast.GeneratorExp) -> bool:
    """Whether nothing in a generator can end it from inside, or leave it."""
    for node in ast.walk(made):
        if isinstance(node, (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr, ast.Lambda)):
            return False
        if isinstance(node, ast.comprehension) and node.is_async:
            return False
        if isinstance(node, ast.Call):
            builtin = code.names.stands_for(node.func) in _CALLED
            method = isinstance(node.func, ast.Attribute) and code.type(node.func.value).is_plain
            if not builtin and not method:
                return False
    return True


def _edit(code: Code, call: ast.Call, made: ast.GeneratorExp) -> Edit | None:
    what = code.names.stands_for(call.func)
    if len(call.args) > 1 and what != "sum":
        return None
    joins = (
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "join"
        and code.type(call.func.value).only(str)
    )
    if what in _ADDED:
        item = code.type(made.elt)
        first = code.type(call.args[1]) if len(call.args) > 1 else None
        if not (item.is_number or (what != "sum" and item.only(str))):
            return None
        if first is not None and not first.is_number:
            return None
    elif what not in _TO_LIST and what not in _BRACKETS and not joins:
        return None
    if what == "frozenset" and not code.type(made.elt).is_hashable:
        return None
    text = _without_parentheses(code, made)
    if text is None or code.in_text(call):
        return None
    if what in _BRACKETS:
        opening, closing = _BRACKETS[what]
        return code.swap(call, f"{opening}{text}{closing}")
    start, end = code.source.span(made)
    alone = len(call.args) == 1
    new = f"([{text}])" if alone and code.source.span(call)[1] == end else f"[{text}]"
    return Edit(start, end, new)


def _without_parentheses(code: Code, made: ast.GeneratorExp) -> str | None:
    """The text of a generator, as it stands."""
    start, end = code.source.span(made)
    text = code.source.raw[start:end].decode("utf-8", "surrogatepass")
    return text[1:-1].strip() if text.startswith("(") and text.endswith(")") else None


LISTED = Rewriter(
    name="listed",
    summary="a generator that is used up at once: a list or set made in one loop",
    risk="memory",
    find=_find,
    in_generators=True,
    example=(
        """\
def picked(xs, places):
    return tuple(xs[i % len(xs)] for i in places)
""",
        """\
def picked(xs, places):
    return tuple([xs[i % len(xs)] for i in places])
""",
    ),
)
