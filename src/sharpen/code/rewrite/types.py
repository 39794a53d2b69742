"""What is known of a value while a function is read: its classes, and those of its items."""

from __future__ import annotations

import ast
import operator
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sharpen.code.rewrite.facts import Kind

__all__ = ["ANY", "NOTHING", "Type", "binary", "from_kind", "kind_from", "of"]

_DEEPEST = 5
ITERATORS: frozenset[type] = frozenset({enumerate, zip, map, filter, reversed, types.GeneratorType})
CONTAINERS: frozenset[type] = ITERATORS.union(
    {list, tuple, set, frozenset, dict, deque, Counter, defaultdict, OrderedDict}
)
MAPPINGS: frozenset[type] = frozenset({dict, Counter, defaultdict, OrderedDict})
MUTABLE: frozenset[type] = frozenset({list, set, deque, bytearray}) | MAPPINGS
HASHABLE: frozenset[type] = frozenset({int, bool, str, bytes, float, complex, type(None)})
"""Classes whose equal values have equal hashes and whose hashes never fail."""

EXACT: frozenset[type] = frozenset({int, bool, str, bytes, type(None)})
"""Those of them whose every value equals itself."""


@dataclass(frozen=True, slots=True)
class Type:
    """The classes that a value may have.

    Args:
        names: exact classes; none where the code is not reached with a value.
        items: of what its items (of a mapping its keys) are; None where it can have none.
        values: of what the values of a mapping are.
        anything: whether nothing is known.
        arity: how many items it has where it is a tuple; None where that is not known.
    """

    names: frozenset[type] = frozenset()
    items: Type | None = None
    values: Type | None = None
    anything: bool = False
    arity: int | None = None

    def only(self, *classes: type) -> bool:
        """Whether the value has one of these classes exactly."""
        return not self.anything and bool(self.names) and self.names <= set(classes)

    def within(self, classes: frozenset[type]) -> bool:
        """The same for a set of classes."""
        return not self.anything and bool(self.names) and self.names <= classes

    def may_be(self, classes: frozenset[type]) -> bool:
        """Whether it could have one of the classes."""
        return self.anything or bool(self.names & classes)

    @property
    def is_integer(self) -> bool:
        """Whether it is a whole number, True and False too."""
        return self.only(int, bool)

    @property
    def is_number(self) -> bool:
        """Whether it is an int, a bool or a float."""
        return self.only(int, bool, float)

    @property
    def is_hashable(self) -> bool:
        """Whether it can be a key, and equal values are the same key."""
        if self.anything or not self.names:
            return False
        inner = self.items is None or not self.names & {tuple, frozenset} or self.items.is_hashable
        return self.names <= HASHABLE | {tuple, frozenset} and inner

    @property
    def is_exact(self) -> bool:
        """Whether it is hashable, and every value equals itself (no NaN)."""
        if self.anything or not self.names:
            return False
        inner = self.items is None or not self.names & {tuple, frozenset} or self.items.is_exact
        return self.names <= EXACT | {tuple, frozenset} and inner

    @property
    def is_plain(self) -> bool:
        """Whether comparing it for equality runs no code of a user, at any depth."""
        if self.anything or not self.names:
            return False
        known = HASHABLE | CONTAINERS | {range, bytearray}
        return self.names <= known and all(
            part is None or part.is_plain or part == NOTHING for part in (self.items, self.values)
        )

    def __or__(self, other: Type) -> Type:
        return _join(self, other, _DEEPEST)


ANY = Type(anything=True)
NOTHING = Type()


def _join(one: Type, other: Type, deep: int) -> Type:
    if one == other:
        return one
    if one.anything or other.anything or deep == 0:
        return ANY
    return Type(
        one.names | other.names,
        _join_parts(one.items, other.items, deep),
        _join_parts(one.values, other.values, deep),
        arity=_join_arity(one, other),
    )


def _join_arity(one: Type, other: Type) -> int | None:
    if tuple in one.names and tuple in other.names:
        return one.arity if one.arity == other.arity else None
    return one.arity if tuple in one.names else other.arity


def _join_parts(one: Type | None, other: Type | None, deep: int) -> Type | None:
    if one is None or other is None:
        return one or other
    return _join(one, other, deep - 1)


def of(
    *names: type,
    items: Type | None = None,
    values: Type | None = None,
    arity: int | None = None,
) -> Type:
    """A type of these classes; of depth that is not followed further, anything."""
    return Type(
        frozenset(names),
        None if items is None else _cut(items, _DEEPEST - 1),
        None if values is None else _cut(values, _DEEPEST - 1),
        arity=arity,
    )


def _cut(found: Type, deep: int) -> Type:
    if deep == 0:
        return ANY
    if found.items is None and found.values is None:
        return found
    return Type(
        found.names,
        None if found.items is None else _cut(found.items, deep - 1),
        None if found.values is None else _cut(found.values, deep - 1),
        found.anything,
        found.arity,
    )


def from_kind(kind: Kind | None) -> Type:
    """The type of values of a kind; of items that were never seen, anything is possible."""
    if kind is None or not kind.types:
        return ANY
    items = from_kind(kind.items) if kind.types & CONTAINERS else None
    values = from_kind(kind.values) if kind.types & MAPPINGS else None
    return _cut(Type(kind.types, items, values, arity=kind.arity), _DEEPEST)


def kind_from(found: Type) -> Kind:
    """What is known of values of a type; of their bounds nothing is."""
    return Kind(
        found.names,
        items=None if found.items is None else kind_from(found.items),
        values=None if found.values is None else kind_from(found.values),
        arity=found.arity,
    )


def items_of(found: Type) -> Type:
    """What iterating over a value gives."""
    if found.anything:
        return ANY
    result = NOTHING
    for name in found.names:
        if name is str:
            result |= of(str)
        elif name in (bytes, bytearray, range):
            result |= of(int)
        elif name in CONTAINERS:
            result |= found.items or NOTHING
        elif name not in HASHABLE:
            return ANY
    return result


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.MatMult: operator.matmul,
}
_SAMPLES: dict[type, Any] = {
    int: 1,
    bool: True,
    float: 1.0,
    complex: 1j,
    str: "a",
    bytes: b"a",
    bytearray: bytearray(b"a"),
    type(None): None,
    list: [1],
    tuple: (1,),
    set: {1},
    frozenset: frozenset({1}),
    dict: {1: 1},
    range: range(1),
    deque: deque([1]),
    Counter: Counter([1]),
    OrderedDict: OrderedDict({1: 1}),
    defaultdict: defaultdict(int),
}


def binary(op: ast.operator, one: Type, other: Type, power_is_whole: bool = False) -> Type:
    """The type of ``one op other``; what raises TypeError gives nothing.

    Args:
        op: the operator.
        one: type of the left operand.
        other: of the right one.
        power_is_whole: whether an exponent cannot be negative.
    """
    if one.anything or other.anything:
        return ANY
    names: set[type] = set()
    for a in one.names:
        for b in other.names:
            if a not in _SAMPLES or b not in _SAMPLES:
                return ANY
            if isinstance(op, ast.Mod) and a in (str, bytes, bytearray):
                names.add(a)
                continue
            if isinstance(op, ast.Pow) and {a, b} <= {int, bool, float}:
                if float in (a, b):
                    names |= {float, complex}  # a root of a negative number is complex
                else:
                    names |= {int} if power_is_whole else {int, float}
                continue
            try:
                names.add(type(_OPERATORS[type(op)](_SAMPLES[a], _SAMPLES[b])))
            except TypeError:
                continue
    items: Type | None = None
    values: Type | None = None
    if names & CONTAINERS:
        items = (one.items or NOTHING) | (other.items or NOTHING)
        if names & MAPPINGS:
            values = (one.values or NOTHING) | (other.values or NOTHING)
    return Type(frozenset(names), items, values)
