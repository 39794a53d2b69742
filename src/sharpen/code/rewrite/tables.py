"""What loops over sequences count and hold, and which of their conditions a table answers."""

from __future__ import annotations

import ast
from collections.abc import Sequence, Set
from dataclasses import dataclass

from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.linear import Equation, solve
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.types import MAPPINGS

__all__ = ["Inner", "Outer", "find_equation", "inner_loop", "inner_loop_behind", "outer_loop"]

_SEQUENCES = frozenset({list, tuple, str, range})
_BOXES = _SEQUENCES | {set, frozenset} | MAPPINGS


@dataclass(frozen=True, slots=True)
class Outer:
    """The first loop.

    Args:
        index: its variable that counts places of ``box``; None where it has none.
        item: its variable that holds the items.
        box: the name of the sequence; None where it is another.
    """

    index: str | None
    item: str | None
    box: str | None


@dataclass(frozen=True, slots=True)
class Inner:
    """The second loop.

    Args:
        index: its variable that counts places.
        item: its target that takes the items.
        box: the name of the sequence.
        behind: whether it runs over the places behind the first loop's.
        after: the index that it starts behind, where that is another loop's.
    """

    index: str | None
    item: ast.expr | None
    box: str
    behind: bool
    after: str | None = None

    @property
    def variables(self) -> set[str]:
        """What it binds."""
        found = binds([self.item]) if self.item is not None else set()
        return found | ({self.index} if self.index else set())


def outer_loop(code: Code, target: ast.expr, source: ast.expr) -> Outer:
    """What a first loop counts and holds."""
    if isinstance(target, ast.Name):
        if isinstance(source, ast.Name):
            return Outer(None, target.id, source.id)
        return Outer(target.id, None, _counted(code, source))
    found = code.match("enumerate(xs_)", source)
    if found and isinstance(target, ast.Tuple) and len(target.elts) == 2:
        i, x = target.elts
        if isinstance(i, ast.Name):
            return Outer(i.id, x.id if isinstance(x, ast.Name) else None, found["xs_"])
    return Outer(None, None, None)


def _counted(code: Code, source: ast.expr) -> str | None:
    """The sequence whose places, all or all but the last ones, a range counts from 0 on."""
    found = code.match_any(("range(N)", "range(0, N)"), source)
    if not found:
        return None
    length = found["N"]
    if (
        isinstance(length, ast.BinOp)
        and isinstance(length.op, ast.Sub)
        and isinstance(length.right, ast.Constant)
    ):
        length = length.left
    return sequence_of(code, length)


def sequence_of(code: Code, length: ast.expr) -> str | None:
    """The name of the sequence that a number is the length of."""
    for name in sorted(code.names.local):
        if code.kinds.variable(name).within(_SEQUENCES) and code.effects.is_length(length, name):
            return name
    return None


def inner_loop(code: Code, target: ast.expr, source: ast.expr, outer: Outer) -> Inner | None:
    """What a second loop counts and holds; None where it is no loop over a sequence."""
    if isinstance(source, ast.Name) and _takes(code, target, source):
        return Inner(None, target, source.id, behind=False)
    if isinstance(target, ast.Name):
        found = code.match_any(("range(N)", "range(0, N)"), source)
        if found and (box := sequence_of(code, found["N"])):
            return Inner(target.id, None, box, behind=False)
        found = code.match_any(("range(i_ + 1, N)", "range(1 + i_, N)"), source)
        if found and found["i_"] == outer.index:
            named = sequence_of(code, found["N"])
            behind = named is not None and named == outer.box
            return Inner(target.id, None, named or "", behind=True) if behind else None
        found = code.match_any(("xs_[i_ + 1:]", "xs_[1 + i_:]"), source)
        if found and found["i_"] == outer.index and found["xs_"] == outer.box:
            return Inner(None, target, found["xs_"], behind=True)
    if isinstance(target, ast.Tuple) and len(target.elts) == 2:
        i, x = target.elts
        if not (isinstance(i, ast.Name) and isinstance(x, ast.Name)):
            return None
        found = code.match("enumerate(xs_)", source)
        if found:
            return Inner(i.id, x, found["xs_"], behind=False)
        found = code.match_any(
            ("enumerate(xs_[i_ + 1:], i_ + 1)", "enumerate(xs_[i_ + 1:], start=i_ + 1)"), source
        )
        if found and found["i_"] == outer.index and found["xs_"] == outer.box:
            return Inner(i.id, x, found["xs_"], behind=True)
    return None


def inner_loop_behind(code: Code, target: ast.expr, source: ast.expr) -> Inner | None:
    """A loop that starts behind any index of the sequence that it runs over."""
    found = code.match_any(("range(i_ + 1, N)", "range(1 + i_, N)"), source)
    box = sequence_of(code, found["N"]) if found else None
    index: str | None = None
    item: ast.expr | None = None
    if found and isinstance(target, ast.Name):
        index = target.id
    else:
        found = code.match_any(("xs_[i_ + 1:]", "xs_[1 + i_:]"), source)
        if not found or not isinstance(target, ast.Name):
            return None
        box, item = found["xs_"], target
    if box is None or not code.effects.is_index(found["i_"], box, source):
        return None
    return Inner(index, item, box, behind=True, after=found["i_"])


def _takes(code: Code, target: ast.expr, source: ast.Name) -> bool:
    """Whether a target fits all items of a sequence."""
    if isinstance(target, ast.Name):
        return True
    if not (isinstance(target, ast.Tuple) and all(isinstance(e, ast.Name) for e in target.elts)):
        return False
    items = code.items(source)
    return items.only(tuple) and items.arity == len(target.elts) == len(binds([target]))


def find_equation(
    code: Code,
    inner: Inner,
    parts: Sequence[ast.expr],
    kept: Sequence[ast.AST],
    changed: Set[str],
) -> tuple[Equation, list[ast.expr]] | None:
    """The first of some conditions, all of which must hold, that a table answers, and the others.

    Args:
        code: the function.
        inner: the second loop.
        parts: its conditions.
        kept: code, after the table is built, in which the sequence must stay as it is.
        changed: names that the key must not depend on.
    """
    box, effects = inner.box, code.effects
    if not code.kinds.variable(box).within(_BOXES) or not effects.keeps(kept, box):
        return None
    if inner.index is not None and not code.kinds.variable(box).within(_SEQUENCES):
        return None
    for i, part in enumerate(parts):
        equation = solve(code, part, inner.variables, changed)
        if equation is not None and isinstance(part, ast.Compare):
            steady = loads([equation.key]) - inner.variables
            if (
                not steady & binds(kept)
                and all(n in code.names.local or code.names.builtin(n) for n in steady)
                and all(effects.keeps(kept, n) for n in steady & code.names.local)
                and effects.is_total(part.left)
                and effects.is_total(part.comparators[0])
            ):
                return equation, [*parts[:i], *parts[i + 1 :]]
        if not effects.is_total(part):
            return None
    return None
