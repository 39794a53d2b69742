"""Loops that go on when the answer is known: ``break``.

After ``found = True`` the rest of a loop can only set it again, where its test changes nothing and
cannot fail.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds

__all__ = ["EARLY_EXIT"]


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For) or loop.orelse:
            continue
        found = code.match_block("if T:\n f_ = V", loop.body)
        if not found or not isinstance(found["V"], ast.Constant):
            continue
        names = binds([loop.target])
        inside = loop.body[0]
        assert isinstance(inside, ast.If)
        if (
            code.effects.is_total(found["T"])
            and found["f_"] not in names
            and _is_finite(code, loop)
            and all(code.is_unread(n, [loop]) for n in names)
        ):
            edit = code.after(inside.body[-1], ["break"])
            if edit is not None:
                yield Change(
                    f"leaves the loop when {found['f_']} is set, for it cannot change any more",
                    (edit,),
                )


def _is_finite(code: Code, loop: ast.For) -> bool:
    """Whether taking the other items of a loop does nothing and cannot fail."""
    if isinstance(loop.iter, ast.Name):
        items = code.items(loop.iter)
        fits = isinstance(loop.target, ast.Name) or (
            isinstance(loop.target, ast.Tuple)
            and items.only(tuple)
            and items.arity == len(loop.target.elts)
        )
        return fits and code.type(loop.iter).within(frozenset({list, tuple, str, set, range, dict}))
    return isinstance(loop.target, ast.Name) and code.type(loop.iter).only(range)


EARLY_EXIT = Rewriter(
    name="early-exit",
    summary="a loop that sets a flag and goes on: `break`",
    risk="types",
    find=_find,
    example=(
        """\
def has_negative(xs):
    found = False
    for x in xs:
        if x < 0:
            found = True
    return found
""",
        """\
def has_negative(xs):
    found = False
    for x in xs:
        if x < 0:
            found = True
            break
    return found
""",
    ),
)
