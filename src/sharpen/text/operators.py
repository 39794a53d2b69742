"""Python's operators on recorded values: ``a + b``, ``a[0]``, ``a.call("upper")``.

Each is an operation of its own with the derivative of its formula, where it has one, so that a
program of plain arithmetic can be optimized through numbers as well as through words.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharpen.text.nodes import Node, Operation

__all__ = ["Operators"]

Cotangents = tuple[Any, ...]
_NAMES = ("x", "y")


def _power(g: Any, z: Any, a: Any, b: Any) -> Cotangents:
    import math

    log = math.log(a) if isinstance(a, (int, float)) and a > 0 else None
    return g * b * a ** (b - 1), None if log is None else g * z * log


# vjp(g, z, *inputs) of z = f(*inputs), g = dL/dz
DERIVATIVES: dict[str, Callable[..., Cotangents]] = {
    "add": lambda g, z, a, b: (g, g),
    "subtract": lambda g, z, a, b: (g, -g),
    "multiply": lambda g, z, a, b: (g * b, g * a),
    "divide": lambda g, z, a, b: (g / b, -g * a / (b * b)),
    "power": _power,
    "negative": lambda g, z, a: (-g,),
    "positive": lambda g, z, a: (g,),
    "absolute": lambda g, z, a: (g if a >= 0 else -g,),
}

BUILTIN: dict[str, tuple[Callable[..., Any], str]] = {
    "add": (operator.add, "the sum x + y"),
    "subtract": (operator.sub, "the difference x - y"),
    "multiply": (operator.mul, "the product x * y"),
    "divide": (operator.truediv, "the quotient x / y"),
    "floor_divide": (operator.floordiv, "the quotient x // y, rounded down"),
    "modulo": (operator.mod, "the remainder x % y"),
    "power": (operator.pow, "the power x ** y"),
    "matrix_multiply": (operator.matmul, "the matrix product x @ y"),
    "bitwise_and": (operator.and_, "x & y"),
    "bitwise_or": (operator.or_, "x | y"),
    "bitwise_xor": (operator.xor, "x ^ y"),
    "left_shift": (operator.lshift, "x << y"),
    "right_shift": (operator.rshift, "x >> y"),
    "less": (operator.lt, "whether x < y"),
    "less_equal": (operator.le, "whether x <= y"),
    "greater": (operator.gt, "whether x > y"),
    "greater_equal": (operator.ge, "whether x >= y"),
    "equal": (operator.eq, "whether x == y"),
    "not_equal": (operator.ne, "whether x != y"),
    "contains": (operator.contains, "whether y is in x"),
    "negative": (operator.neg, "minus x"),
    "positive": (operator.pos, "plus x"),
    "absolute": (abs, "the absolute value of x"),
    "invert": (operator.invert, "the bitwise inverse of x"),
    "round": (round, "x rounded to y digits"),
    "length": (len, "the number of items of x"),
    "get_item": (operator.getitem, "the item y of x"),
    "get_attribute": (getattr, "the attribute y of x"),
}
"""By name: the function, and one line on it."""


def _apply(name: str, *inputs: Any) -> Node:
    from sharpen.text.record import record

    return record(_operation(name), inputs, _NAMES[: len(inputs)])


@cache
def _operation(name: str) -> Operation:
    from sharpen.text.nodes import Operation

    function, doc = BUILTIN[name]
    return Operation(name, doc, function=function, vjp=DERIVATIVES.get(name))


def _invoke(method: str, x: Any, *args: Any) -> Any:
    return getattr(x, method)(*args)


class Operators:
    """Operators of a node; ``BUILTIN`` says what each gives."""

    __slots__ = ()

    def __add__(self, other: Any) -> Node:
        return _apply("add", self, other)

    def __radd__(self, other: Any) -> Node:
        return _apply("add", other, self)

    def __sub__(self, other: Any) -> Node:
        return _apply("subtract", self, other)

    def __rsub__(self, other: Any) -> Node:
        return _apply("subtract", other, self)

    def __mul__(self, other: Any) -> Node:
        return _apply("multiply", self, other)

    def __rmul__(self, other: Any) -> Node:
        return _apply("multiply", other, self)

    def __truediv__(self, other: Any) -> Node:
        return _apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return _apply("divide", other, self)

    def __floordiv__(self, other: Any) -> Node:
        return _apply("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Node:
        return _apply("floor_divide", other, self)

    def __mod__(self, other: Any) -> Node:
        return _apply("modulo", self, other)

    def __rmod__(self, other: Any) -> Node:
        return _apply("modulo", other, self)

    def __pow__(self, other: Any) -> Node:
        return _apply("power", self, other)

    def __rpow__(self, other: Any) -> Node:
        return _apply("power", other, self)

    def __matmul__(self, other: Any) -> Node:
        return _apply("matrix_multiply", self, other)

    def __rmatmul__(self, other: Any) -> Node:
        return _apply("matrix_multiply", other, self)

    def __and__(self, other: Any) -> Node:
        return _apply("bitwise_and", self, other)

    def __rand__(self, other: Any) -> Node:
        return _apply("bitwise_and", other, self)

    def __or__(self, other: Any) -> Node:
        return _apply("bitwise_or", self, other)

    def __ror__(self, other: Any) -> Node:
        return _apply("bitwise_or", other, self)

    def __xor__(self, other: Any) -> Node:
        return _apply("bitwise_xor", self, other)

    def __rxor__(self, other: Any) -> Node:
        return _apply("bitwise_xor", other, self)

    def __lshift__(self, other: Any) -> Node:
        return _apply("left_shift", self, other)

    def __rlshift__(self, other: Any) -> Node:
        return _apply("left_shift", other, self)

    def __rshift__(self, other: Any) -> Node:
        return _apply("right_shift", self, other)

    def __rrshift__(self, other: Any) -> Node:
        return _apply("right_shift", other, self)

    def __lt__(self, other: Any) -> Node:
        return _apply("less", self, other)

    def __le__(self, other: Any) -> Node:
        return _apply("less_equal", self, other)

    def __gt__(self, other: Any) -> Node:
        return _apply("greater", self, other)

    def __ge__(self, other: Any) -> Node:
        return _apply("greater_equal", self, other)

    def __neg__(self) -> Node:
        return _apply("negative", self)

    def __pos__(self) -> Node:
        return _apply("positive", self)

    def __abs__(self) -> Node:
        return _apply("absolute", self)

    def __invert__(self) -> Node:
        return _apply("invert", self)

    def __round__(self, digits: int | None = None) -> Node:
        return _apply("round", self) if digits is None else _apply("round", self, digits)

    def __getitem__(self, key: Any) -> Node:
        return _apply("get_item", self, key)

    def eq(self, other: Any) -> Node:
        """Whether the values are equal, recorded; ``==`` asks whether it is the same node."""
        return _apply("equal", self, other)

    def ne(self, other: Any) -> Node:
        """Whether the values differ, recorded."""
        return _apply("not_equal", self, other)

    def contains(self, item: Any) -> Node:
        """Whether ``item`` is in the value, recorded."""
        return _apply("contains", self, item)

    def len(self) -> Node:
        """The number of items, recorded."""
        return _apply("length", self)

    def getattr(self, name: str) -> Node:
        """An attribute of the value, recorded."""
        return _apply("get_attribute", self, name)

    def call(self, method: str, *args: Any) -> Node:
        """Call a method of the value, recorded: ``node.call("split", ",")``."""
        from sharpen.text.nodes import Operation
        from sharpen.text.record import record

        operation = Operation(
            method, f"calls the method {method} of x", "method", function=partial(_invoke, method)
        )
        return record(operation, (self, *args), ("x", *(f"args_{i}" for i in range(len(args)))))
