"""What is known of a function's arguments, from the inputs that it is called with.

Many rewrites are right for some kinds of values alone: a set can stand for a list where its items
can be hashed, a sum may be reordered where it is of whole numbers. They ask here.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Facts", "Kind", "kind_of", "observe"]

_MOST_ITEMS = 10_000  # of one value that are looked at
_MOST_OF_ALL = 1_000_000  # of all values of one level


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
    found = _of_all([value])
    assert found is not None
    return found


def _of_all(values: list[Any]) -> Kind | None:
    """The kind of all of some values; None where there are none.

    Items of all containers are looked at together, level by level, which takes a few passes in C
    and not an object for each value.
    """
    if not values:
        return None
    types = frozenset(map(type, values))
    numbers = [one for one in values if isinstance(one, int) and not isinstance(one, bool)]
    boxes = [one for one in values if isinstance(one, _CONTAINERS)]
    tables = [one for one in values if isinstance(one, Mapping)]
    arities = {len(one) for one in values if type(one) is tuple}
    plain = types <= _NO_LENGTH
    return Kind(
        types,
        min(map(int, numbers), default=None),
        max(map(int, numbers), default=None),
        0 if plain else max(map(_length, values)),
        _of_all(_parts([*boxes, *tables])),
        _of_all(_parts([one.values() for one in tables])),
        arities.pop() if len(arities) == 1 else None,
    )


_CONTAINERS = (list, tuple, set, frozenset)
_NO_LENGTH = frozenset({int, float, bool, complex, type(None)})


def _parts(boxes: Iterable[Iterable[Any]]) -> list[Any]:
    """The first items of each of some containers, in their order."""
    every = itertools.chain.from_iterable(itertools.islice(one, _MOST_ITEMS) for one in boxes)
    return list(itertools.islice(every, _MOST_OF_ALL))


def _length(value: Any) -> int:
    """``len`` of an object of any class; 0 where it has none, or its own code for it fails."""
    try:
        return len(value)
    except Exception:
        return 0


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
    values: dict[str, list[Any]] = {}
    for args, kwargs in inputs:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            continue
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            form = signature.parameters[name].kind
            if form is inspect.Parameter.VAR_POSITIONAL:
                some = list(value)
            elif form is inspect.Parameter.VAR_KEYWORD:
                some = list(value.values())
            else:
                some = [value]
            values.setdefault(name, []).extend(some)
    kinds = {name: kind for name, some in values.items() if (kind := _of_all(some)) is not None}
    return Facts(kinds, frozenset(allow), close)
