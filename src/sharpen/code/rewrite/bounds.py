"""How large the whole numbers of a function can become, from bounds of its arguments.

An interval analysis on absolute values: sums and products of bounds, and for a variable that adds
to itself (``total += x``) its start plus the number of rounds times what one round adds. Numbers
that grow in another way (``a, b = b, a + b``) have no bound.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads, same_scope

__all__ = ["bounded", "fits"]

_MOST = 2**62
_ROUNDS = 2**44
"""More rounds of all loops together than a program takes in an hour."""


class _Unbounded(Exception):
    """No bound is known."""


def fits(code: Code, items: Mapping[str, int], lengths: Mapping[str, int]) -> bool:
    """Whether all whole numbers of a function stay within 64 bits.

    Args:
        code: the function.
        items: for each parameter, the largest absolute value of it or of its items.
        lengths: for each sequence, its largest length.
    """
    return bounded(code, items, lengths) is not None


def bounded(
    code: Code, items: Mapping[str, int], lengths: Mapping[str, int]
) -> dict[str, int] | None:
    """The bound of each variable; None where one is too large or unknown."""
    bounds = dict(items)
    try:
        for _ in range(12):
            before = dict(bounds)
            for name, value, where in _assignments(code):
                new = _value(code, name, value, where, bounds, lengths)
                if new > _MOST:
                    return None
                bounds[name] = max(bounds.get(name, 0), new)
            if bounds == before:
                for node in code.expressions():
                    if isinstance(node, ast.BinOp) and _bound(code, node, bounds, lengths) > _MOST:
                        return None
                return bounds
    except _Unbounded:
        return None
    return None


def _assignments(code: Code) -> Iterator[tuple[str, ast.expr | None, ast.AST]]:
    """What is bound to each name, or stored in its list; loops give None."""
    for node in same_scope(code.function.body):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            yield from _pairs(node.targets[0], node.value, node)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _pairs(node.target, node.value, node)
        elif isinstance(node, ast.AugAssign):
            target = node.target.value if isinstance(node.target, ast.Subscript) else node.target
            if not isinstance(target, ast.Name):
                raise _Unbounded
            left = ast.copy_location(ast.Name(target.id, ast.Load()), node)
            yield target.id, ast.copy_location(ast.BinOp(left, node.op, node.value), node), node
        elif isinstance(node, ast.For):
            for name in binds([node.target]):
                yield name, None, node
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            yield node.func.value.id, node.args[0], node


def _pairs(
    target: ast.expr, value: ast.expr, node: ast.AST
) -> Iterator[tuple[str, ast.expr, ast.AST]]:
    if isinstance(target, ast.Subscript):
        target = target.value
    if isinstance(target, ast.Name):
        yield target.id, value, node
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=True):
            yield from _pairs(one, other, node)
    else:
        raise _Unbounded


def _value(
    code: Code,
    name: str,
    value: ast.expr | None,
    where: ast.AST,
    bounds: dict[str, int],
    lengths: Mapping[str, int],
) -> int:
    if value is None:
        assert isinstance(where, ast.For)
        return _loop(code, where.iter, bounds, lengths)
    if name not in loads([value]):
        return _bound(code, value, bounds, lengths)
    points = []
    for own in (0, 2**20, 2**21):
        points.append(_bound(code, value, {**bounds, name: own}, lengths))
    if points[2] - points[1] > 2**20 or points[1] - points[0] > 2**20:
        raise _Unbounded
    rounds = 1
    for loop in code.loops(where):
        rounds *= _trips(code, loop, bounds, lengths)
    start = max(
        (
            _bound(code, v, bounds, lengths)
            for n, v, _ in _assignments(code)
            if n == name and v is not None and name not in loads([v])
        ),
        default=0,
    )
    return start + points[0] * min(rounds, _ROUNDS)


def _trips(
    code: Code, loop: ast.For | ast.While, bounds: dict[str, int], lengths: Mapping[str, int]
) -> int:
    if isinstance(loop, ast.While):
        return _ROUNDS
    source = loop.iter
    while isinstance(source, ast.Call) and code.names.stands_for(source.func) in (
        "enumerate",
        "reversed",
    ):
        source = source.args[0]
    if isinstance(source, ast.Name):
        return lengths.get(source.id, _ROUNDS)
    if isinstance(source, ast.Call):
        return 2 * max(_bound(code, a, bounds, lengths) for a in source.args[:2]) + 1
    return max(lengths.values(), default=_ROUNDS)


def _loop(code: Code, source: ast.expr, bounds: dict[str, int], lengths: Mapping[str, int]) -> int:
    """The bound of what a loop binds."""
    found = 0
    for node in ast.walk(source):
        if isinstance(node, ast.Name):
            found = max(found, bounds.get(node.id, 0), lengths.get(node.id, 0))
    if isinstance(source, ast.Call):
        for argument in source.args:
            if not code.type(argument).may_be(frozenset({list, bytes, range})):
                found = max(found, _bound(code, argument, bounds, lengths))
    return found


def _bound(
    code: Code, node: ast.expr, bounds: Mapping[str, int], lengths: Mapping[str, int]
) -> int:
    """The largest absolute value of an expression; that of its items where it is a list."""
    if isinstance(node, ast.Constant):
        return abs(node.value) if isinstance(node.value, int) else 0
    if isinstance(node, ast.Name):
        return bounds.get(node.id, 0)
    if isinstance(node, ast.Subscript):
        return _bound(code, node.value, bounds, lengths)
    if isinstance(node, ast.UnaryOp):
        return _bound(code, node.operand, bounds, lengths)
    parts = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)]
    if isinstance(node, ast.Call):
        parts = list(node.args)
        if code.names.stands_for(node.func) == "len":
            return max(lengths.values(), default=_MOST)
    found = [_bound(code, part, bounds, lengths) for part in parts]
    if isinstance(node, ast.BinOp):
        return _operation(code, node, found)
    if isinstance(node, (ast.Compare, ast.BoolOp, ast.IfExp, ast.Call, ast.Tuple, ast.List)):
        return max(found, default=0)
    raise _Unbounded


def _operation(code: Code, node: ast.BinOp, found: list[int]) -> int:
    one, other = found
    if isinstance(node.left, ast.List):
        return one
    if isinstance(node.op, (ast.Add, ast.Sub)):
        return one + other
    if isinstance(node.op, ast.Mult):
        return one * other
    if isinstance(node.op, ast.FloorDiv):
        return one + 1
    if isinstance(node.op, ast.Mod):
        return other
    if isinstance(node.op, (ast.BitAnd, ast.BitOr, ast.BitXor)):
        return 2 * max(one, other) + 1
    if isinstance(node.op, ast.Div):
        return 0
    raise _Unbounded
