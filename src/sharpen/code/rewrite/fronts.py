"""Texts and lists that are used up from the front by slices: a place that moves along.

``text = text[1:]`` copies all that is left. Where the variable is otherwise only asked for its
first item, and whether there is one, a counter says the same: ``text[start]``,
``start < len(text)``.

Time O(1) for each step instead of the rest's length.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import same_scope
from sharpen.code.rewrite.source import Edit

__all__ = ["FRONT"]


def _find(code: Code) -> Iterator[Change]:
    for name in sorted(code.names.local - code.names.captured):
        if not code.kinds.variable(name).only(str) and not code.kinds.variable(name).only(tuple):
            continue
        if not code.effects.is_steady(name) or not code.names.builtin("len"):
            continue
        change = _move(code, name)
        if change is not None:
            yield change


def _move(code: Code, name: str) -> Change | None:
    start = code.names.fresh("start")
    edits: list[Edit | None] = []
    steps: list[ast.stmt] = []
    for statement in code.statements():
        found = code.match("xs_ = xs_[K:]", statement)
        if found and found["xs_"] == name:
            step = found["K"]
            if not (isinstance(step, ast.Constant) and type(step.value) is int and step.value > 0):
                return None
            steps.append(statement)
            edits.append(code.replace([statement], [f"{start} += {step.value}"]))
    if not steps:
        return None
    inside = {id(n) for s in steps for n in same_scope([s])}
    for node in code.effects.uses(name):
        if id(node) in inside:
            continue
        parent = code.effects.parent(node)
        if not isinstance(node.ctx, ast.Load):
            return None
        if isinstance(parent, ast.Subscript) and ast.unparse(parent.slice) == "0":
            edits.append(code.swap(parent, f"{name}[{start}]"))
        elif isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not):
            edits.append(code.swap(parent, f"{start} >= len({name})"))
        elif _is_tested(code, node):
            edits.append(code.swap(node, f"{start} < len({name})"))
        else:
            return None
    if name not in code.names.arguments or not all(edits):
        return None
    first = code.function.body[1 if ast.get_docstring(code.function) is not None else 0]
    edits.append(code.before(first, [f"{start} = 0"]))
    if edits[-1] is None:
        return None
    return Change(
        f"moves along {name} instead of copying what is left of it",
        tuple(e for e in edits if e is not None),
    )


def _is_tested(code: Code, node: ast.AST) -> bool:
    """Whether only the truth of an expression matters."""
    parent = code.effects.parent(node)
    if isinstance(parent, (ast.While, ast.If, ast.IfExp)):
        return parent.test is node
    if isinstance(parent, ast.UnaryOp):
        return isinstance(parent.op, ast.Not)
    return isinstance(parent, ast.BoolOp) and _is_tested(code, parent)


FRONT = Rewriter(
    name="front",
    summary="a text that is used up from the front by slices: a place that moves along",
    risk="types",
    find=_find,
    example=(
        """\
def letters_of(text):
    out = []
    while text:
        out.append(text[0])
        text = text[1:]
    return out
""",
        """\
def letters_of(text):
    start = 0
    out = []
    while start < len(text):
        out.append(text[start])
        start += 1
    return out
""",
    ),
)
