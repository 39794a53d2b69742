"""How the arguments of a call belong together, so that larger ones still do.

A window is narrower than its list, ``k`` of the ``k`` largest is at most their number, queries ask
for what is there, places lie within a list, edges lead to nodes that exist. Arguments that grow
each for themselves lose that: a search then ends at once, a window stays three wide, and what
makes a function slow is never timed.

Where calls come from tests or from the user, a relation that all of them show is kept. Where they
are made up, they show nothing: relations are tried, and the slowest call is for whoever asks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sharpen.code.inputs import Input

__all__ = ["TRIED", "Relation", "relate", "seen_relations"]

Relation = Literal["inside", "drawn"]
"""``inside``: a whole number is at most the length of the first container, a list of them holds
places of it, and one of pairs holds ranges of it. ``drawn``: a value, or the items of a container,
are items (keys of a dict) of the first."""

TRIED: tuple[tuple[Relation, Relation], ...] = (
    ("inside", "inside"),
    ("drawn", "drawn"),
    ("inside", "drawn"),
)
"""What is tried where nothing is known: of single values, and of containers."""

_WIDTH = 4  # a window's part of the length
_MOST = 400  # calls that are looked at
_AGREE = 0.8  # share of pairs of calls in which a number is larger where the list is longer
_LEAST = 3  # calls that must agree


def relate(
    call: Input,
    number: int,
    *,
    relation: tuple[Relation, Relation] | None = None,
    known: Mapping[int, Relation] | None = None,
) -> Input:
    """A call of the same sizes whose arguments belong together; the same where none can.

    Args:
        call: arguments by position and by name; they are not changed.
        number: another one, other items.
        relation: of single values and of containers to the first container.
        known: relations by place of the argument, in place of those.
    """
    args, kwargs = call
    values = [*args, *kwargs.values()]
    at = _first(values)
    if at is None:
        return call
    chance = random.Random(number)
    found: list[Any] = []
    for i, value in enumerate(values):
        how = (known or {}).get(i)
        if how is None and relation is not None:
            how = relation[_is_container(value)]
        if i == at:
            found.append(_linked(value, chance) if relation and relation[1] == "drawn" else value)
        elif how == "inside":
            found.append(_inside(value, values[at], chance))
        elif how == "drawn":
            found.append(_drawn(value, values[at], chance))
        else:
            found.append(value)
    return tuple(found[: len(args)]), dict(zip(kwargs, found[len(args) :], strict=True))


def _is_container(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset, dict))


def _first(values: Sequence[Any]) -> int | None:
    """The first list, table or text; what the others may refer to."""
    for i, value in enumerate(values):
        if isinstance(value, (list, str, dict)) and len(value) > 1:
            return i
    return None


def _inside(value: Any, first: Any, chance: random.Random) -> Any:
    length = len(first)
    if type(value) is int:
        return max(length // _WIDTH, 1)
    if type(value) is not list or not value:
        return value
    if all(type(one) is int for one in value):
        return [chance.randrange(length) for _ in value]
    if all(type(one) is tuple and [type(k) for k in one] == [int, int] for one in value):
        ends = (sorted((chance.randrange(length), chance.randrange(length))) for _ in value)
        return [(low, high) for low, high in ends]
    return value


def _drawn(value: Any, first: Any, chance: random.Random) -> Any:
    pool = list(first)
    kinds = {type(one) for one in pool}
    if isinstance(value, (list, tuple, set, frozenset)):
        if not value or not {type(one) for one in value} <= kinds:
            return value
        count = len(value)
        picked = chance.sample(pool, count) if count <= len(pool) else chance.choices(pool, k=count)
        return type(value)(picked)
    # The last is what a search from the front finds last.
    return pool[-1] if type(value) in kinds and type(value) is not bool else value


def _linked(value: Any, chance: random.Random) -> Any:
    """A table whose lists name its own keys, as neighbours do; another value as it is."""
    if type(value) is not dict or not all(type(one) in (list, set) for one in value.values()):
        return value
    keys = list(value)
    kinds = {type(one) for one in keys}
    if not all(type(one) in kinds for items in value.values() for one in items):
        return value
    return {
        key: type(items)(chance.choices(keys, k=len(items))) if items else items
        for key, items in value.items()
    }


def seen_relations(calls: Sequence[Input]) -> dict[int, Relation]:
    """Relations to the first container that calls of a program have in common, by argument."""
    rows = [[*args, *kwargs.values()] for args, kwargs in calls[:_MOST]]
    rows = [row for row in rows if _first(row) is not None]
    found: dict[int, Relation] = {}
    if len({(len(row), _first(row)) for row in rows}) != 1:
        return found
    at = _first(rows[0])
    for i in range(len(rows[0])):
        pairs = [(row[at], row[i]) for row in rows] if at is not None and i != at else []
        if _are_lengths(pairs):
            found[i] = "inside"
        elif _are_items(pairs):
            found[i] = "drawn"
    return found


def _are_lengths(pairs: Sequence[tuple[Any, Any]]) -> bool:
    """Whether a whole number never is above the length, and grows with it."""
    if not pairs or not all(type(k) is int and 0 <= k <= len(box) for box, k in pairs):
        return False
    unlike = [
        (a, b)
        for a, b in itertools.combinations({(len(box), k) for box, k in pairs}, 2)
        if a[0] != b[0]
    ]
    more = sum((a[0] < b[0]) == (a[1] < b[1]) and a[1] != b[1] for a, b in unlike)
    return len(unlike) >= _LEAST and more >= _AGREE * len(unlike)


def _are_items(pairs: Sequence[tuple[Any, Any]]) -> bool:
    """Whether a list holds almost nothing but items of the first container."""
    if not pairs or not all(type(some) in (list, tuple, set) for _, some in pairs):
        return False
    asked = [(list(box), list(some)) for box, some in pairs if some]
    whole = sum(len(some) for _, some in asked)
    there = sum(one in box for box, some in asked for one in some)
    return len(asked) >= _LEAST and there >= _AGREE * whole
