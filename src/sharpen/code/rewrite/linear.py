"""Equations solved for what depends on some variables: ``x + y == t`` is ``y == t - x``."""

from __future__ import annotations

import ast
import copy
from collections.abc import Set
from dataclasses import dataclass

from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads

__all__ = ["Equation", "conjuncts", "put_names", "solve"]


@dataclass(frozen=True, slots=True)
class Equation:
    """``key == probe``.

    Args:
        key: what depends on the variables.
        probe: what does not.
    """

    key: ast.expr
    probe: ast.expr


def conjuncts(test: ast.expr) -> list[ast.expr]:
    """The parts of ``a and b and ...``."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return [part for value in test.values for part in conjuncts(value)]
    return [test]


def solve(code: Code, test: ast.expr, variables: Set[str], others: Set[str]) -> Equation | None:
    """An equality as one between what depends on some variables and what does not.

    Sums of whole numbers are solved; other sides must depend on either the variables or on others
    alone, and be of types whose equal values are one key (so no float: NaN is not equal to
    itself, but found as a key).

    Args:
        code: the function.
        test: the condition.
        variables: that the key may depend on.
        others: that it must not depend on.
    """
    if not (
        isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)
    ):
        return None
    left, right = test.left, test.comparators[0]
    for one, other in ((left, right), (right, left)):
        reads = loads([one])
        apart = reads & variables and not reads & others and not loads([other]) & variables
        if apart and code.type(one).is_exact and code.type(other).is_exact:
            return Equation(one, other)
        if apart and _is_key_list(code, one) and _is_key_list(code, other):
            return Equation(_as_tuple(one), _as_tuple(other))
    terms = [*_terms(left, 1), *_terms(right, -1)]
    if not all(code.type(node).is_integer for node, _ in terms):
        return None
    inner = [(node, sign) for node, sign in terms if loads([node]) & variables]
    outer = [(node, -sign) for node, sign in terms if not loads([node]) & variables]
    if not inner or not outer or any(loads([node]) & others for node, _ in inner):
        return None
    if inner[0][1] < 0:
        inner = [(node, -sign) for node, sign in inner]
        outer = [(node, -sign) for node, sign in outer]
    return Equation(_sum(inner), _sum(outer))


def _is_key_list(code: Code, node: ast.expr) -> bool:
    """Whether a value is a list that, as a tuple, can be a key."""
    is_list = code.type(node).only(list) and code.items(node).is_exact
    return is_list and code.names.builtin("tuple")


def _as_tuple(node: ast.expr) -> ast.expr:
    call = ast.Call(ast.Name("tuple", ast.Load()), [copy.deepcopy(node)], [])
    return ast.fix_missing_locations(call)


def _terms(node: ast.expr, sign: int) -> list[tuple[ast.expr, int]]:
    """The signed terms of a sum."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        second = sign if isinstance(node.op, ast.Add) else -sign
        return [*_terms(node.left, sign), *_terms(node.right, second)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _terms(node.operand, -sign)
    return [(node, sign)]


def _sum(terms: list[tuple[ast.expr, int]]) -> ast.expr:
    terms = [t for t in terms if not (isinstance(t[0], ast.Constant) and t[0].value == 0)]
    if not terms:
        return ast.Constant(0)
    terms.sort(key=lambda t: -t[1])
    first, sign = terms[0]
    found = copy.deepcopy(first)
    if sign < 0:
        found = ast.UnaryOp(ast.USub(), found)
    for node, one in terms[1:]:
        op: ast.operator = ast.Add() if one > 0 else ast.Sub()
        found = ast.BinOp(found, op, copy.deepcopy(node))
    return ast.fix_missing_locations(found)


class _Put(ast.NodeTransformer):
    def __init__(self, parts: dict[str, ast.expr]) -> None:
        self.parts = parts

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Another expression for a variable that is read."""
        if isinstance(node.ctx, ast.Load) and node.id in self.parts:
            return copy.deepcopy(self.parts[node.id])
        return node


def put_names(node: ast.expr, **parts: str) -> str:
    """The text of an expression with others in the place of variables."""
    parsed = {name: ast.parse(text, mode="eval").body for name, text in parts.items()}
    return ast.unparse(_Put(parsed).visit(copy.deepcopy(node)))
