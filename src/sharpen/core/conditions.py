"""Conditions on the values of a configuration: when a parameter is active, what is forbidden.

A condition is built in Python (``Eq("kind", "b") & Gt("depth", 3)``, ``P("a") + P("b") <= 16``) or
read from text (``"kind == 'b' and depth > 3"``); ``str(condition)`` is that text, and what is
stored. Logic has three values: a comparison that names an absent parameter is
neither true nor false, and neither activates nor forbids anything.
"""

from __future__ import annotations

import ast
import keyword
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sharpen.core.errors import SpaceError

__all__ = [
    "Between",
    "Check",
    "Checks",
    "Condition",
    "Eq",
    "Gt",
    "In",
    "Lt",
    "Ne",
    "P",
    "Term",
    "checks_of",
    "parse_condition",
]

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class _Absent(Exception):
    """A parameter that the expression names has no value."""


class Term(ABC):
    """A number, text or parameter, or arithmetic on them; comparing two gives a condition."""

    __slots__ = ()

    @abstractmethod
    def value(self, config: Mapping[str, Any]) -> Any:
        """The term's value under ``config``."""

    def names(self) -> frozenset[str]:
        """Parameters it names."""
        return frozenset()

    def renamed(self, names: Mapping[str, str]) -> Term:
        """The same term with new names of parameters, by the old ones; others stay."""
        return self

    def __add__(self, other: Term | float) -> Term:
        return _Arithmetic("+", self, _term(other))

    def __radd__(self, other: float) -> Term:
        return _Arithmetic("+", _term(other), self)

    def __sub__(self, other: Term | float) -> Term:
        return _Arithmetic("-", self, _term(other))

    def __rsub__(self, other: float) -> Term:
        return _Arithmetic("-", _term(other), self)

    def __mul__(self, other: Term | float) -> Term:
        return _Arithmetic("*", self, _term(other))

    def __rmul__(self, other: float) -> Term:
        return _Arithmetic("*", _term(other), self)

    def __truediv__(self, other: Term | float) -> Term:
        return _Arithmetic("/", self, _term(other))

    def __rtruediv__(self, other: float) -> Term:
        return _Arithmetic("/", _term(other), self)

    def __pow__(self, other: Term | float) -> Term:
        return _Arithmetic("**", self, _term(other))

    def __lt__(self, other: Term | float) -> Condition:
        return _Comparison("<", self, _term(other))

    def __le__(self, other: Term | float) -> Condition:
        return _Comparison("<=", self, _term(other))

    def __gt__(self, other: Term | float) -> Condition:
        return _Comparison(">", self, _term(other))

    def __ge__(self, other: Term | float) -> Condition:
        return _Comparison(">=", self, _term(other))


@dataclass(frozen=True, slots=True)
class P(Term):
    """The parameter ``name``; ``P("a") + P("b") * 2 <= 16`` is a condition."""

    name: str

    def value(self, config: Mapping[str, Any]) -> Any:
        """Its value.

        Raises:
            LookupError: never to callers of a condition; absence makes the condition unknown.
        """
        if self.name not in config:
            raise _Absent
        return config[self.name]

    def names(self) -> frozenset[str]:
        """Its name."""
        return frozenset([self.name])

    def renamed(self, names: Mapping[str, str]) -> Term:
        """See :meth:`Term.renamed`."""
        return P(names.get(self.name, self.name))

    def __str__(self) -> str:
        parts = self.name.split(".")
        plain = all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)
        return self.name if plain else f"P({self.name!r})"


@dataclass(frozen=True, slots=True)
class _Constant(Term):
    content: Any

    def value(self, config: Mapping[str, Any]) -> Any:
        return self.content

    def __str__(self) -> str:
        return repr(self.content)


@dataclass(frozen=True, slots=True)
class _Arithmetic(Term):
    op: str
    left: Term
    right: Term

    def value(self, config: Mapping[str, Any]) -> Any:
        return _ARITHMETIC[self.op](self.left.value(config), self.right.value(config))

    def names(self) -> frozenset[str]:
        return self.left.names() | self.right.names()

    def renamed(self, names: Mapping[str, str]) -> Term:
        return _Arithmetic(self.op, self.left.renamed(names), self.right.renamed(names))

    def __str__(self) -> str:
        return f"({self.left} {self.op} {self.right})"


def _term(value: Any) -> Term:
    return value if isinstance(value, Term) else _Constant(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_plain(v) for v in value)
    if isinstance(value, (bool, int, float, str, tuple)):
        return value
    raise SpaceError(f"a condition compares with a number, text or true/false, got {value!r}.")


class Condition(ABC):
    """True, false or unknown under a configuration; combined with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    @abstractmethod
    def holds(self, config: Mapping[str, Any]) -> bool | None:
        """Whether it is true; None when it depends on a parameter that is absent."""

    @abstractmethod
    def names(self) -> frozenset[str]:
        """Parameters it names."""

    @abstractmethod
    def renamed(self, names: Mapping[str, str]) -> Condition:
        """The same condition with new names of parameters, by the old ones; others stay."""

    def __and__(self, other: Condition) -> Condition:
        return _Junction("and", (self, other))

    def __or__(self, other: Condition) -> Condition:
        return _Junction("or", (self, other))

    def __invert__(self) -> Condition:
        return _Not(self)

    def __bool__(self) -> bool:
        raise SpaceError(
            f"the condition {self} has no truth value of its own. "
            "Combine conditions with &, | and ~ (not and, or, not), in parentheses."
        )


@dataclass(frozen=True, slots=True)
class _Comparison(Condition):
    op: str
    left: Term
    right: Term

    def holds(self, config: Mapping[str, Any]) -> bool | None:
        try:
            left, right = self.left.value(config), self.right.value(config)
            return bool(_COMPARE[self.op](left, right))
        except _Absent:
            return None
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise SpaceError(f"the condition '{self}' cannot be computed: {error}.") from None

    def names(self) -> frozenset[str]:
        return self.left.names() | self.right.names()

    def renamed(self, names: Mapping[str, str]) -> Condition:
        return _Comparison(self.op, self.left.renamed(names), self.right.renamed(names))

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"


@dataclass(frozen=True, slots=True)
class _Member(Condition):
    term: Term
    values: tuple[Any, ...]

    def holds(self, config: Mapping[str, Any]) -> bool | None:
        try:
            return self.term.value(config) in self.values
        except _Absent:
            return None

    def names(self) -> frozenset[str]:
        return self.term.names()

    def renamed(self, names: Mapping[str, str]) -> Condition:
        return _Member(self.term.renamed(names), self.values)

    def __str__(self) -> str:
        return f"{self.term} in {self.values!r}"


@dataclass(frozen=True, slots=True)
class _Junction(Condition):
    op: str
    parts: tuple[Condition, ...]

    def holds(self, config: Mapping[str, Any]) -> bool | None:
        decisive = self.op == "or"
        found = [part.holds(config) for part in self.parts]
        if any(value is decisive for value in found):
            return decisive
        return None if None in found else not decisive

    def names(self) -> frozenset[str]:
        return frozenset().union(*(part.names() for part in self.parts))

    def renamed(self, names: Mapping[str, str]) -> Condition:
        return _Junction(self.op, tuple(part.renamed(names) for part in self.parts))

    def __str__(self) -> str:
        return f" {self.op} ".join(f"({part})" for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Not(Condition):
    part: Condition

    def holds(self, config: Mapping[str, Any]) -> bool | None:
        value = self.part.holds(config)
        return None if value is None else not value

    def names(self) -> frozenset[str]:
        return self.part.names()

    def renamed(self, names: Mapping[str, str]) -> Condition:
        return _Not(self.part.renamed(names))

    def __str__(self) -> str:
        return f"not ({self.part})"


def Eq(name: str, value: Any) -> Condition:
    """``name == value``."""
    return _Comparison("==", P(name), _term(value))


def Ne(name: str, value: Any) -> Condition:
    """``name != value``."""
    return _Comparison("!=", P(name), _term(value))


def Lt(name: str, bound: float) -> Condition:
    """``name < bound``."""
    return P(name) < bound


def Gt(name: str, bound: float) -> Condition:
    """``name > bound``."""
    return P(name) > bound


def Between(name: str, low: float, high: float) -> Condition:
    """``low <= name <= high``."""
    return (P(name) >= low) & (P(name) <= high)


def In(name: str, values: Iterable[Any]) -> Condition:
    """``name`` is one of ``values``."""
    return _Member(P(name), tuple(_plain(v) for v in values))


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of a parameter: ``name op value``."""

    name: str
    """The parameter."""

    op: str
    """``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in`` or ``not in``."""

    value: Any
    """A constant; a tuple of them for ``in`` and ``not in``; or the other parameter, a P."""


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks that must all be true, or of which one must be."""

    op: Literal["and", "or"]
    """Which."""

    parts: tuple[Check | Checks, ...]
    """The checks."""


_OPPOSITE = {"==": "!=", "<": ">=", ">": "<=", "in": "not in", "and": "or"}
_OPPOSITE |= {b: a for a, b in _OPPOSITE.items()}
_SWAPPED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


def checks_of(condition: Condition, *, negated: bool = False) -> Check | Checks:
    """A condition as checks of single parameters, with every ``not`` moved into them.

    It is true, false or unknown where the condition is: de Morgan's laws hold in this logic.

    Args:
        condition: the condition.
        negated: whether its opposite is meant.

    Raises:
        SpaceError: it computes with a parameter, or compares no parameter.

    Examples:
        >>> checks_of(parse_condition("not (2 < a or b in (1, 2))"))  # doctest: +ELLIPSIS
        Checks(op='and', parts=(Check(name='a', op='<=', value=2), Check(name='b', op='not in', ...
    """
    if isinstance(condition, _Not):
        return checks_of(condition.part, negated=not negated)
    if isinstance(condition, _Junction):
        parts = tuple(checks_of(part, negated=negated) for part in condition.parts)
        return Checks("and" if (condition.op == "and") is not negated else "or", parts)
    if isinstance(condition, _Member) and isinstance(condition.term, P):
        return Check(condition.term.name, "not in" if negated else "in", condition.values)
    if isinstance(condition, _Comparison):
        left, op, right = condition.left, condition.op, condition.right
        if not isinstance(left, P):
            left, op, right = right, _SWAPPED[op], left
        if isinstance(left, P) and isinstance(right, P | _Constant):
            value = right if isinstance(right, P) else right.content
            return Check(left.name, _OPPOSITE[op] if negated else op, value)
    raise SpaceError(f"'{condition}' computes; it does not compare a parameter with a value.")


_AST_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_AST_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
}


def parse_condition(text: str) -> Condition:
    """Read a condition: comparisons, ``in``, ``and``, ``or``, ``not`` and ``+ - * / **``.

    Parameters are written by name (dotted names too); ``P('name')`` writes any other name.

    Raises:
        SpaceError: not such a text. Nothing in it is ever executed.

    Examples:
        >>> parse_condition("1 <= depth <= 3 and kind in ('a', 'b')").holds(
        ...     {"depth": 2, "kind": "a"}
        ... )
        True
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpaceError(
            f"{text!r} is no condition: {error}. Write, say, \"kind == 'b'\"."
        ) from None
    return _condition(tree, text)


def _condition(node: ast.expr, text: str) -> Condition:
    if isinstance(node, ast.BoolOp):
        op = "and" if isinstance(node.op, ast.And) else "or"
        return _Junction(op, tuple(_condition(value, text) for value in node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _Not(_condition(node.operand, text))
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        parts = [_compare(sides[i], op, sides[i + 1], text) for i, op in enumerate(node.ops)]
        return parts[0] if len(parts) == 1 else _Junction("and", tuple(parts))
    raise _unreadable(node, text)


def _compare(left: ast.expr, op: ast.cmpop, right: ast.expr, text: str) -> Condition:
    if isinstance(op, (ast.In, ast.NotIn)):
        if not isinstance(right, (ast.Tuple, ast.List)):
            raise _unreadable(right, text)
        values = tuple(_literal(item, text) for item in right.elts)
        member = _Member(_parse_term(left, text), values)
        return member if isinstance(op, ast.In) else _Not(member)
    if type(op) not in _AST_COMPARE:
        raise _unreadable(left, text)
    return _Comparison(_AST_COMPARE[type(op)], _parse_term(left, text), _parse_term(right, text))


def _parse_term(node: ast.expr, text: str) -> Term:
    if isinstance(node, ast.BinOp) and type(node.op) in _AST_ARITHMETIC:
        op = _AST_ARITHMETIC[type(node.op)]
        return _Arithmetic(op, _parse_term(node.left, text), _parse_term(node.right, text))
    if isinstance(node, (ast.Name, ast.Attribute)):
        return P(_dotted(node, text))
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id == "P" and len(node.args) == 1:
            name = _literal(node.args[0], text)
            if isinstance(name, str) and not node.keywords:
                return P(name)
        raise _unreadable(node, text)
    return _Constant(_literal(node, text))


def _dotted(node: ast.expr, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, text)}.{node.attr}"
    raise _unreadable(node, text)


def _literal(node: ast.expr, text: str) -> Any:
    try:
        return _plain(ast.literal_eval(node))
    except (ValueError, TypeError, SpaceError):
        raise _unreadable(node, text) from None


def _unreadable(node: ast.expr, text: str) -> SpaceError:
    return SpaceError(
        f"{ast.unparse(node)!r} in the condition {text!r} is not allowed. Use names of parameters, "
        "numbers, quoted text, + - * / **, comparisons, in, and, or, not."
    )
