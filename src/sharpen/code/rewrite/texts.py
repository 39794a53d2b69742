"""Texts that grow in loops: the parts are joined once.

``text = part + text`` copies all that is there each time, O(n^2) in all; ``text += part`` often
does not, but makes a text of each part. ``"".join`` of all parts copies each letter once.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads, same_scope

__all__ = ["JOIN"]

_BEHIND = ("s_ += E", "s_ = s_ + E")
_BEFORE = ("s_ = E + s_",)
_ODD = (ast.Lambda, ast.NamedExpr, ast.Yield, ast.Await)


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if isinstance(loop, ast.For) and not code.in_try(loop):
            change = _join(code, loop)
            if change is not None:
                yield change


def _join(code: Code, loop: ast.For) -> Change | None:
    heads: list[str] = []
    bound: set[str] = set()
    statement: ast.stmt = loop
    while isinstance(statement, (ast.For, ast.If)):
        if statement.orelse or len(statement.body) != 1:
            return None
        if isinstance(statement, ast.For):
            target = code.text(statement.target)
            heads.append(code.line(f"for {target} in $xs ", {"xs": statement.iter}))
            bound |= binds([statement.target])
            simple = (ast.Name, ast.Tuple, ast.expr_context)
            if not all(isinstance(n, simple) for n in ast.walk(statement.target)):
                return None
        else:
            heads.append(code.line("if $c ", {"c": statement.test}))
        statement = statement.body[0]
    behind, before = (code.match_any(options, statement) for options in (_BEHIND, _BEFORE))
    found = behind or before
    if not found:
        return None
    text, part = found["s_"], found["E"]
    if not code.kinds.variable(text).only(str) or not code.type(part).only(str):
        return None
    uses = [n for n in ast.walk(loop) if isinstance(n, ast.Name) and n.id == text]
    if len(uses) > len([n for n in ast.walk(statement) if isinstance(n, ast.Name) and n in uses]):
        return None
    if text in loads([part]) | bound or text in code.names.captured:
        return None
    if not code.effects.is_steady(text) or not code.is_bound_before(text, loop):
        return None
    inner = list(same_scope([loop]))
    if any(isinstance(n, _ODD) for n in inner) or binds([loop]) - bound - {text}:
        return None
    if loads([loop]) & {"super", "__class__"}:
        return None  # a comprehension is a function of its own there
    if not all(code.is_unread(n, [loop]) for n in bound) or code.effects.may_recurse(loop):
        return None
    inside = code.line("$part ", {"part": part}) + "".join(heads).rstrip()
    line = f'{text} += "".join([{inside}])'
    if not behind:
        line = f'{text} = "".join([{inside}][::-1]) + {text}'
    edit = code.replace([loop], [line])
    return Change(f"joins the parts of {text} once", (edit,)) if edit is not None else None


JOIN = Rewriter(
    name="join",
    summary="a text that grows in a loop: `join`",
    risk="types",
    find=_find,
    example=(
        """\
def backwards(text):
    out = ""
    for letter in text:
        out = letter + out
    return out
""",
        """\
def backwards(text):
    out = ""
    out = "".join([letter for letter in text][::-1]) + out
    return out
""",
    ),
)
