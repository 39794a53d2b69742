"""Conditions over the fields of a row, in Python's syntax, without Python's powers.

::

    10 < tokens <= 3000 and meta.language == "en" and not (domain in ["a.org", "b.org"])

Names are fields; ``a.b`` is ``b`` of the object ``a``. There are comparisons (also chained, ``in``
and ``not in``), ``and``, ``or``, ``not``, ``+ - * / %``, numbers, strings, ``true``, ``false``,
``none``, lists, and the functions ``len``, ``lower`` and ``startswith``. Nothing else is taken.

A field that is missing is none. A comparison with none is false, but for ``== none``, ``!= none``
and ``not in``; so is one of what cannot be compared, such as a number with a text.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from sharpen.core.errors import ConfigError, DataError

__all__ = ["Condition", "parse_condition"]

Row = Callable[[str], Any]
"""The value of a field by its path."""

Condition = Callable[[Row], Any]

_COMPARED: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
}
_COMPUTED: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_SIGNS: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "len": (1, lambda value: None if value is None else len(value)),
    "lower": (1, lambda value: None if value is None else str(value).lower()),
    "startswith": (2, lambda value, start: value is not None and str(value).startswith(start)),
}
_WORDS = {"true": True, "false": False, "none": None, "null": None}
_MOST_NODES = 1000


def parse_condition(text: str) -> Condition:
    """A condition, ready to be asked of rows.

    Raises:
        ConfigError: not Python's syntax, or more than is taken here; it says where.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"the condition {text!r:.200} is not one: {error}. For example: "
            "10 < num <= 30 and meta.language == 'en'."
        ) from None
    if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
        raise ConfigError(f"the condition {text!r:.60} has more than {_MOST_NODES} parts.")
    return _compiled(tree.body, text)


def _compiled(node: ast.expr, text: str) -> Condition:
    match node:
        case ast.Constant(value) if isinstance(value, (str, int, float, bool)) or value is None:
            return lambda row: value
        case ast.Name() | ast.Attribute():
            path = _path(node, text)
            if path.lower() in _WORDS:
                word = _WORDS[path.lower()]
                return lambda row: word
            return lambda row: row(path)
        case ast.BoolOp(op, values):
            parts = [_compiled(one, text) for one in values]
            every = all if isinstance(op, ast.And) else any
            return lambda row: every(part(row) for part in parts)
        case ast.UnaryOp(op, operand) if type(op) in _SIGNS:
            sign, of = _SIGNS[type(op)], _compiled(operand, text)
            return lambda row: _safely(sign, of(row))
        case ast.BinOp(left, op, right) if type(op) in _COMPUTED:
            compute, a, b = _COMPUTED[type(op)], _compiled(left, text), _compiled(right, text)
            return lambda row: _safely(compute, a(row), b(row))
        case ast.List(values) | ast.Tuple(values) | ast.Set(values):
            parts = [_compiled(one, text) for one in values]
            return lambda row: [part(row) for part in parts]
        case ast.Compare(left, ops, comparators):
            operands = [_compiled(one, text) for one in (left, *comparators)]
            return lambda row: _compare(ops, [operand(row) for operand in operands])
        case ast.Call(ast.Name(name), args, keywords) if name in _FUNCTIONS and not keywords:
            number, function = _FUNCTIONS[name]
            if len(args) != number:
                raise ConfigError(f"{name}() takes {number} values in the condition {text!r:.200}.")
            parts = [_compiled(one, text) for one in args]
            return lambda row: _safely(function, *(part(row) for part in parts))
    raise ConfigError(
        f"{ast.unparse(node)!r:.100} is not taken in the condition {text!r:.200}. There are "
        "fields, comparisons, and, or, not, in, + - * / %, numbers, strings, lists, and the "
        f"functions {', '.join(_FUNCTIONS)}."
    )


def _path(node: ast.expr, text: str) -> str:
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(value, attr):
            return f"{_path(value, text)}.{attr}"
    raise ConfigError(f"{ast.unparse(node)!r:.100} is no field in the condition {text!r:.200}.")


def _compare(ops: list[ast.cmpop], values: list[Any]) -> bool:
    for op, a, b in zip(ops, values, values[1:], strict=False):
        if isinstance(op, (ast.Eq, ast.Is)):
            held = a == b
        elif isinstance(op, (ast.NotEq, ast.IsNot)):
            held = a != b
        elif isinstance(op, ast.NotIn):
            held = not _held(_COMPARED[ast.In], a, b)
        else:
            held = _held(_COMPARED[type(op)], a, b)
        if not held:
            return False
    return True


def _held(compare: Callable[[Any, Any], bool], a: Any, b: Any) -> bool:
    if a is None or b is None:
        return False
    try:
        return bool(compare(a, b))
    except TypeError:
        return False


def _safely(function: Callable[..., Any], *values: Any) -> Any:
    """A result, or none where the values do not fit."""
    try:
        found = function(*values)
    except (TypeError, ZeroDivisionError):
        return None
    if isinstance(found, (str, list)) and len(found) > 1 << 20:
        raise DataError("the condition makes a value of more than a million parts.")
    return found
