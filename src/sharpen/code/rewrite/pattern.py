"""Patterns of programs, written as programs.

In a pattern, names of capital letters (``XS``, ``I``) stand for any expression, names that end in
an underscore (``i_``) for any variable, a statement ``BODY`` for all further statements. The same
name stands for the same code each time. All other names must be the builtins they are called by.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["Match", "match", "match_block", "same"]

Match = dict[str, Any]
"""What each name of a pattern stands for: an expression, a variable's name, or statements."""

_BUILTINS = frozenset(dir(builtins))


@lru_cache(maxsize=1024)
def _statements(pattern: str) -> list[ast.stmt]:
    return ast.parse(pattern).body


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> ast.expr:
    return ast.parse(pattern, mode="eval").body


def same(one: ast.AST, other: ast.AST) -> bool:
    """Whether two pieces of code are the same but for their place."""
    return _key(one) == _key(other)


def _key(node: ast.AST) -> str:
    return ast.dump(node).replace("ctx=Store()", "ctx=Load()")


def match(pattern: str, node: ast.AST, builtin: Callable[[str], bool]) -> Match | None:
    """What the names of a pattern of one expression or statement stand for.

    Args:
        pattern: the pattern.
        node: the code.
        builtin: whether a name is that of a builtin where the code stands.
    """
    found: Match = {}
    if isinstance(node, ast.stmt):
        return match_block(pattern, [node], builtin)
    return found if _unify(_expression(pattern), node, found, builtin) else None


def match_block(
    pattern: str, block: Sequence[ast.stmt], builtin: Callable[[str], bool]
) -> Match | None:
    """The same for statements that follow one another; all of them."""
    found: Match = {}
    return found if _unify_block(_statements(pattern), block, found, builtin) else None


def _unify_block(
    pattern: Sequence[ast.stmt],
    block: Sequence[ast.stmt],
    found: Match,
    builtin: Callable[[str], bool],
) -> bool:
    for i, part in enumerate(pattern):
        if isinstance(part, ast.Expr) and isinstance(part.value, ast.Name):
            name = part.value.id
            if name.startswith("BODY"):
                found[name] = list(block[i:])
                return bool(found[name])
        if i >= len(block) or not _unify(part, block[i], found, builtin):
            return False
    return len(block) == len(pattern)


def _unify(part: Any, node: Any, found: Match, builtin: Callable[[str], bool]) -> bool:
    if isinstance(part, ast.Name):
        return _unify_name(part.id, node, found, builtin)
    if type(part) is not type(node):
        return False
    if not isinstance(part, ast.AST):
        return bool(part == node)
    for field in part._fields:
        one, other = getattr(part, field, None), getattr(node, field, None)
        if field in ("ctx", "type_comment", "kind", "type_ignores"):
            continue
        if isinstance(one, list):
            if one and isinstance(one[0], ast.stmt):
                if not isinstance(other, list) or not _unify_block(one, other, found, builtin):
                    return False
            elif (
                not isinstance(other, list)
                or len(one) != len(other)
                or not all(_unify(a, b, found, builtin) for a, b in zip(one, other, strict=True))
            ):
                return False
        elif isinstance(one, ast.AST):
            if not _unify(one, other, found, builtin):
                return False
        elif one != other or type(one) is not type(other):
            return False
    return True


def _unify_name(name: str, node: Any, found: Match, builtin: Callable[[str], bool]) -> bool:
    if name.isupper():
        if not isinstance(node, ast.expr) or isinstance(node, (ast.Starred, ast.Slice)):
            return False
        if name in found:
            return same(found[name], node)
        found[name] = node
        return True
    if not isinstance(node, ast.Name):
        return False
    if name.endswith("_"):
        if name in found:
            return bool(found[name] == node.id)
        found[name] = node.id
        return True
    return name == node.id and name in _BUILTINS and builtin(name)
