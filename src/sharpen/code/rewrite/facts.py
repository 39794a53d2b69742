"""What is known of a function's arguments, from the inputs that it is called with.

Many rewrites are right for some kinds of values alone: a set can stand for a list where its items
can be hashed, a sum may be reordered where it is of whole numbers. They ask here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Facts", "Kind", "kind_of", "observe"]

_MOST_ITEMS = 10_000  # of one value that are looked at


@dataclass(frozen=True, slots=True)
class Kind:
    """The values that were seen in one place.

    Args:
        types: their exact classes; ``bool`` is not ``int`` here.
        low: least of the whole numbers among them; None where there were none.
        high: largest of them.
        longest: most items of one value; 0 where none has a length.
        items: of what the items are, all values together; of a dict, of its keys.
        values: of what the values of dicts are.
        arity: the length of all tuples among them; None where there were none, or unlike ones.
    """

    types: frozenset[type] = frozenset()
    low: int | None = None
    high: int | None = None
    longest: int = 0
    items: Kind | None = None
    values: Kind | None = None
    arity: int | None = None

    def only(self, *types: type) -> bool:
        """Whether all that was seen, and something was, has one of these classes exactly."""
        return bool(self.types) and self.types <= set(types)

    def __or__(self, other: Kind) -> Kind:
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return Kind(
            self.types | other.types,
            min(lows, default=None),
            max(highs, default=None),
            max(self.longest, other.longest),
            _both(self.items, other.items),
            _both(self.values, other.values),
            _arity(self, other),
        )


def _arity(one: Kind, other: Kind) -> int | None:
    if tuple in one.types and tuple in other.types:
        return one.arity if one.arity == other.arity else None
    return one.arity if tuple in one.types else other.arity


def _both(one: Kind | None, other: Kind | None) -> Kind | None:
    if one is None or other is None:
        return one or other
    return one | other


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a function.

    Args:
        arguments: by the parameter's name; ``*args`` and ``**kwargs`` by the kind of their items.
        allow: packages that a rewrite may import beside the standard library and what the module
            imports already, such as ``numpy``.
        close: whether results may differ by rounding.
    """

    arguments: Mapping[str, Kind] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    close: bool = False

    def of(self, name: str) -> Kind:
        """Of one parameter; an empty kind where nothing is known."""
        return self.arguments.get(name, Kind())


def kind_of(value: Any) -> Kind:
    """The kind of one value, with its items."""
    if isinstance(value, (bool, float, complex, str, bytes, type(None))):
        longest = len(value) if isinstance(value, (str, bytes)) else 0
        return Kind(frozenset({type(value)}), longest=longest)
    if isinstance(value, int):
        return Kind(frozenset({type(value)}), int(value), int(value))
    types = frozenset({type(value)})
    if isinstance(value, Mapping):
        return Kind(
            types,
            longest=len(value),
            items=_of_items(value.keys()),
            values=_of_items(value.values()),
        )
    if isinstance(value, (list, tuple, set, frozenset)):
        arity = len(value) if type(value) is tuple else None
        return Kind(types, longest=len(value), items=_of_items(value), arity=arity)
    return Kind(types, longest=_length(value))


def _length(value: Any) -> int:
    """``len`` of an object of any class; 0 where it has none, or its own code for it fails."""
    try:
        return len(value)
    except Exception:
        return 0


def _of_items(values: Iterable[Any]) -> Kind | None:
    found: Kind | None = None
    for i, value in enumerate(values):
        if i >= _MOST_ITEMS:
            break
        found = _both(found, kind_of(value))
    return found


def observe(
    signature: inspect.Signature,
    inputs: Iterable[tuple[Sequence[Any], Mapping[str, Any]]],
    *,
    allow: Iterable[str] = (),
    close: bool = False,
) -> Facts:
    """What a function's inputs have in common; defaults count where they are used.

    Args:
        signature: of the function.
        inputs: arguments by position and by name; those that do not fit are left out.
        allow: packages that rewrites may import.
        close: whether results may differ by rounding.
    """
    found: dict[str, Kind] = {}
    for args, kwargs in inputs:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            continue
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            form = signature.parameters[name].kind
            if form is inspect.Parameter.VAR_POSITIONAL:
                kind = _of_items(value)
            elif form is inspect.Parameter.VAR_KEYWORD:
                kind = _of_items(value.values())
            else:
                kind = kind_of(value)
            if kind is not None:
                found[name] = found[name] | kind if name in found else kind
    return Facts(found, frozenset(allow), close)
