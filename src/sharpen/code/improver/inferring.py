"""Shapes of arguments guessed from how a function's body uses them, where nothing else is known."""

from __future__ import annotations

import ast
import itertools
from typing import Any

from sharpen.code.improver.target import Function
from sharpen.code.inputs import Input

__all__ = ["guesses"]

_MOST = 400  # combinations that are tried
_SHAPES: dict[str, list[Any]] = {
    "ints": [3, 1, 4, 1, 5, 9, 2, 6, 5, 3],
    "floats": [0.5, -1.25, 3.0, 2.5, 0.1],
    "words": ["pear", "fig", "apple", "fig", "plum", "kiwi"],
    "table": [[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3], [4, 5, 6, 7]],
    "pairs": [(1, 4), (2, 6), (8, 10), (5, 9), (3, 7)],
    "bits": [True, False, True, True],
}
_WORD, _TEXT = "abracadabra", "the quick brown fox jumps over the lazy dog the end"
_NUMBERS: list[Any] = [12, 5, 2, 2.5]
_BESIDE: list[Any] = [3, 2, 5, 12, 2.5]
"""Numbers beside a list: such as a width, which is less than its length."""
_MAP: dict[str, int] = {"a": 3, "b": 1, "c": 4}
_GRAPH = {0: [1, 2], 1: [2, 3], 2: [3], 3: [4], 4: []}


class _Use(ast.NodeVisitor):
    """What a body does with each name."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.marks: dict[str, set[str]] = {name: set() for name in names}

    def mark(self, node: ast.AST, what: str) -> None:
        if isinstance(node, ast.Name) and node.id in self.names:
            self.marks[node.id].add(what)

    def visit_For(self, node: ast.For) -> None:
        self.mark(node.iter, "iterated")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.mark(node.iter, "iterated")
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.mark(node.value, "indexed")
        if isinstance(node.value, ast.Subscript):
            self.mark(node.value.value, "table")
        self.mark(node.slice, "number")
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            self.mark(node.value, "map")
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        for kind, names in _METHODS.items():
            if node.attr in names:
                self.mark(node.value, kind)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(node.op, (ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.Div, ast.Pow)):
                self.mark(side, "number")
            if isinstance(other, ast.Constant) and isinstance(other.value, str):
                self.mark(side, "text")
            elif isinstance(other, ast.Constant) and isinstance(other.value, (int, float)):
                self.mark(side, "number")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for op, side in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, (ast.In, ast.NotIn)):
                self.mark(side, "iterated")
        for one in sides:
            if isinstance(one, ast.Constant) and isinstance(one.value, (int, float)):
                for other in sides:
                    self.mark(other, "number")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        for one in node.args:
            if name in (
                "len",
                "sorted",
                "sum",
                "list",
                "set",
                "enumerate",
                "min",
                "max",
                "reversed",
            ):
                self.mark(one, "iterated")
            if name in ("sum",):
                self.mark(one, "numbers")
            if name in ("range", "abs", "chr", "bin", "hex"):
                self.mark(one, "number")
            if name in ("ord",):
                self.mark(one, "text")
        self.generic_visit(node)


_METHODS = {
    "text": (
        *("split", "lower", "upper", "strip", "replace", "startswith", "endswith", "isdigit"),
        *("isalpha", "isalnum", "isspace", "splitlines", "find", "encode", "title", "join"),
    ),
    "map": ("items", "keys", "values", "get", "setdefault"),
    "list": ("append", "pop", "sort", "insert", "extend", "reverse"),
    "set": ("add", "discard", "union", "intersection", "issubset"),
}


def guesses(node: Function, *, skip_first: bool = False) -> list[Input]:
    """Calls to try, the likelier first; most functions raise TypeError for some of them.

    Args:
        node: the function.
        skip_first: leave out the object or class that a method is bound to.
    """
    given = node.args
    positional = [*given.posonlyargs, *given.args][1 if skip_first else 0 :]
    required = positional[: len(positional) - min(len(given.defaults), len(positional))]
    only = [a for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is None]
    if not required and positional:
        required = positional[:1]
    use = _Use({one.arg for one in [*required, *only]})
    use.visit(node)
    choices = [_choices(use.marks[one.arg]) for one in [*required, *only]]
    if not choices:
        return [((), {})]
    if any(hasattr(first, "__len__") for first, *_ in choices):
        choices = [_BESIDE if one == _NUMBERS else one for one in choices]
    found: list[Input] = []
    # By the sum of ranks: all first choices, then one second choice, and so on.
    ranked = sorted(itertools.product(*[range(len(one)) for one in choices]), key=sum)
    for ranks in ranked[:_MOST]:
        values = [choice[rank] for choice, rank in zip(choices, ranks, strict=True)]
        kwargs = {one.arg: value for one, value in zip(only, values[len(required) :], strict=True)}
        found.append((tuple(values[: len(required)]), kwargs))
    return found


def _choices(marks: set[str]) -> list[Any]:
    if "text" in marks:
        return [_TEXT, _WORD, _SHAPES["words"]]
    if "map" in marks:
        return [_MAP, _GRAPH, {"name": "x", "value": 1}]
    if "set" in marks:
        return [{1, 2, 5}, {"a", "b"}]
    if "table" in marks:
        return [_SHAPES["table"], _SHAPES["pairs"], _SHAPES["words"], _GRAPH]
    if marks & {"iterated", "indexed", "list", "numbers"}:
        rest = [_SHAPES["words"], _WORD, _SHAPES["pairs"], _SHAPES["table"], _GRAPH]
        return [_SHAPES["ints"], *rest, _SHAPES["floats"], b"some bytes"]
    if "number" in marks:
        return _NUMBERS
    return [7, _SHAPES["ints"], _TEXT, 2, _SHAPES["words"], 2.5, _SHAPES["table"], _MAP]
