"""Larger arguments of the same kind as one that was seen, to time a function where time matters.

Lists, texts, sets and dicts get more items, which are made like those that are there: as far apart,
as often repeated, in order where they were in order. Tables grow in both directions. A whole number
grows where nothing else does, or where it was the length of something that grows.

What a call takes depends on more than its size: a search ends at what it finds. So there are
variants, of which the slowest is for whoever asks: items that all differ, texts that are words, and
of whole numbers the next prime and the next but one.
"""

from __future__ import annotations

import itertools
import math
import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sharpen.code.inputs import Input

__all__ = ["can_grow", "cut", "grow", "size_of"]

_MOST_PRIME = 10**12  # up to which the next prime is looked for
_LONGEST_WORD = 8
_CONTAINERS = (list, tuple, set, frozenset, dict, str, bytes)


def size_of(call: Input) -> int:
    """How much a call is given: items, characters, and numbers where there is nothing else."""
    args, kwargs = call
    values = [*args, *kwargs.values()]
    items = sum(_items(one) for one in values)
    numbers = [one for one in values if type(one) is int and one > 0]
    return items if any(map(_is_container, values)) else max(numbers, default=0)


def _is_container(value: Any) -> bool:
    return isinstance(value, (*_CONTAINERS, np.ndarray))


def _items(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return int(value.size)
    if isinstance(value, Mapping):
        return len(value) + sum(_items(one) for one in value.values())
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return len(value) + sum(_items(one) for one in value if _is_container(one))
    return 0


def can_grow(call: Input) -> bool:
    """Whether something in a call can be made larger."""
    args, kwargs = call
    values = [*args, *kwargs.values()]
    return any(map(_grows, values)) or any(type(one) is int and one > 0 for one in values)


def _grows(value: Any) -> bool:
    """A record or a pair keeps its length: only what is in it can grow."""
    if type(value) is tuple:
        return len(value) > 4 or any(map(_grows, value))
    if _is_record(value):
        return any(map(_grows, value.values()))
    return (
        _is_container(value) and len(value) > 0
        if not isinstance(value, np.ndarray)
        else value.ndim > 0
    )


def _is_record(value: Any) -> bool:
    """Text keys that look like names, with values of different classes: attributes, not a table."""
    return (
        type(value) is dict
        and bool(value)
        and all(isinstance(key, str) and key.isidentifier() for key in value)
        and (len({type(one) for one in value.values()}) > 1 or any(map(_grows, value.values())))
    )


def grow(
    call: Input, factor: float, number: int, *, numbers: bool = False, variant: int = 0
) -> Input:
    """A call that is given about ``factor`` times as much.

    Args:
        call: arguments by position and by name; they are not changed.
        factor: above 1.
        number: another one, other items.
        numbers: let whole numbers grow beside containers, as width and height do beside pixels:
            several by the root of the factor each.
        variant: 0 for items that repeat as those that are there; 1 for others, or for primes; 2
            for odd numbers.
    """
    args, kwargs = call
    chance = random.Random(number)
    values = [*args, *kwargs.values()]
    lengths = {
        len(one) for one in values if _is_container(one) and _grows(one) and not _is_record(one)
    }
    if any(map(_grows, values)):
        grown = [
            _different(one, factor, chance) if variant else _larger(one, factor, chance)
            for one in values
        ]
        # Keys that cannot be made unlike each other leave a table with fewer rows, not with more.
        grown = [
            new if _items(new) >= _items(old) else old
            for old, new in zip(values, grown, strict=True)
        ]
        known = {
            len(old): len(new)
            for old, new in zip(values, grown, strict=True)
            if _is_container(old) and len(old) in lengths
        }
        counts = [one for one in values if type(one) is int and one > 1]
        each = factor ** (0.5 if len(counts) > 1 else 1.0) if numbers else 1.0
        grown = [
            known.get(one, round(one * each)) if type(one) is int and one > 2 else one
            for one in grown
        ]
    else:
        grown = [
            _number(max(one + 1, int(one * factor)), variant)
            if type(one) is int and one > 0
            else one
            for one in values
        ]
    return tuple(grown[: len(args)]), dict(zip(kwargs, grown[len(args) :], strict=True))


def cut(call: Input, factor: int, *, containers: bool, numbers: bool) -> Input:
    """A call that is given about so many times less: the first items, and smaller numbers.

    Args:
        call: arguments by position and by name; they are not changed.
        factor: above 1.
        containers: cut lists, texts and tables; square tables in both directions.
        numbers: divide whole numbers.
    """
    args, kwargs = call

    def less(value: Any) -> Any:
        if type(value) is int and numbers:
            return value // factor if value > factor else min(value, 2)
        if not containers or not _grows(value) or _is_record(value):
            return value
        if type(value) is dict:
            return dict(itertools.islice(value.items(), max(len(value) // factor, 1)))
        if isinstance(value, (set, frozenset)):
            return type(value)(itertools.islice(value, max(len(value) // factor, 1)))
        if type(value) is tuple and len(value) <= 4:
            return tuple(map(less, value))
        rows = {len(one) if type(one) is list else -1 for one in value}
        if type(value) is list and rows == {len(value)}:
            side = max(int(len(value) / factor**0.5), 1)
            return [row[:side] for row in value[:side]]
        return value[: max(len(value) // factor, 1)]

    return tuple(map(less, args)), {name: less(one) for name, one in kwargs.items()}


def _number(value: int, variant: int) -> int:
    """A number near one: itself, the next prime, or the next odd one."""
    if variant != 1 or value > _MOST_PRIME:
        return value | 1 if variant else value
    while value > 3 and any(value % d == 0 for d in range(2, math.isqrt(value) + 1)):
        value += 1
    return value


def _different(value: Any, factor: float, chance: random.Random) -> Any:
    """A list whose items all differ, where they are numbers or texts; of a text, words."""
    if type(value) is str and value:
        return _words(value, max(int(len(value) * factor), len(value) + 1), chance)
    if type(value) is not list or not value:
        return _larger(value, factor, chance)
    kinds = {type(one) for one in value}
    count = max(int(len(value) * factor), len(value) + 1)
    if kinds == {int}:
        spread = max(int((max(value) - min(value)) * factor), 4 * count)
        found: list[Any] = chance.sample(range(min(value), min(value) + spread), count)
    elif kinds == {str}:
        make = _text_maker(value, factor, chance, distinct=True)
        found = list(dict.fromkeys(make() for _ in range(4 * count)))[:count]
    else:
        return _larger(value, factor, chance)
    return sorted(found) if _in_order(value) else found


def _words(value: str, count: int, chance: random.Random) -> str:
    """A text of so many letters, in words that come again, of the letters of another."""
    letters = [one for one in value if not one.isspace()] or ["a"]
    sizes = [chance.randint(1, _LONGEST_WORD) for _ in range(math.isqrt(count) + 1)]
    words = ["".join(chance.choices(letters, k=size)) for size in sizes]
    return " ".join(chance.choices(words, k=count))[:count]


def _larger(value: Any, factor: float, chance: random.Random) -> Any:
    if not _grows(value):
        return value
    if _is_record(value):
        return {key: _larger(one, factor, chance) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return _larger_array(value, factor, chance)
    if type(value) is tuple and len(value) <= 4:
        return tuple(_larger(one, factor, chance) for one in value)
    if isinstance(value, (str, bytes)):
        count = max(int(len(value) * factor), len(value) + 1)
        if isinstance(value, str):
            return "".join(chance.choices(value, k=count))
        return bytes(chance.choices(value, k=count))
    if type(value) is dict:
        return _larger_dict(value, factor, chance)
    return _larger_sequence(value, factor, chance)


def _larger_sequence(value: Any, factor: float, chance: random.Random) -> Any:
    items = list(value)
    if all(_is_container(one) and not isinstance(one, (str, bytes, dict)) for one in items):
        lengths = {len(one) for one in items}
        if len(lengths) == 1 and type(items[0]) is list and lengths != {0}:
            return _larger_table(value, items, factor, chance)
    make = _maker(items, factor, chance)
    count = max(int(len(items) * factor), len(items) + 1)
    found = [make() for _ in range(count)]
    if isinstance(value, (set, frozenset)):
        return type(value)(found)
    if _in_order(items):
        found.sort()
    elif _in_order(items[::-1]):
        found.sort(reverse=True)
    return type(value)(found)


def _in_order(items: Sequence[Any]) -> bool:
    if len(items) < 3 or type(items[0]) not in (int, float, str):
        return False
    if len({type(one) for one in items}) > 1:
        return False
    return all(a <= b for a, b in itertools.pairwise(items))


def _larger_table(value: Any, rows: list[Any], factor: float, chance: random.Random) -> Any:
    """Rows of one length: more rows, and longer ones where there are several."""
    wide = len(rows[0]) > 3 or len(rows[0]) == len(rows)
    side = factor**0.5 if wide else factor
    height = max(int(len(rows) * side), len(rows) + 1)
    width = max(int(len(rows[0]) * side), len(rows[0]) + 1) if wide else len(rows[0])
    if len(rows) == len(rows[0]) and wide:
        width = height
    if wide:
        make = _maker([cell for row in rows for cell in row], factor, chance)
        found = [[make() for _ in range(width)] for _ in range(height)]
    else:
        columns = [_maker([row[i] for row in rows], factor, chance) for i in range(width)]
        found = [[make() for make in columns] for _ in range(height)]
    return type(value)(found)


def _larger_dict(value: dict[Any, Any], factor: float, chance: random.Random) -> Any:
    count = max(int(len(value) * factor), len(value) + 1)
    key, inner = (
        _maker(list(value), factor, chance, distinct=True),
        _maker(list(value.values()), factor, chance),
    )
    return {key(): inner() for _ in range(count)}


def _larger_array(value: Any, factor: float, chance: random.Random) -> Any:
    side = factor ** (1 / value.ndim)
    shape = tuple(max(int(n * side), n + 1) for n in value.shape)
    generator = np.random.default_rng(chance.getrandbits(32))
    if value.size == 0:
        return np.zeros(shape, value.dtype)
    return generator.choice(value.ravel(), size=shape)


def _maker(
    items: list[Any], factor: float, chance: random.Random, *, distinct: bool = False
) -> Callable[[], Any]:
    """What makes items like some."""
    if not items:
        return lambda: 0
    kinds = {type(one) for one in items}
    if kinds == {int}:
        low, high = min(items), max(items)
        few = len(set(items)) <= max(2, len(items) // 3) and len(items) > 4 and not distinct
        if few or {low, high} <= {0, 1}:
            return lambda: chance.choice(items)
        # Where items were seldom the same, they stay so: the range grows with their number.
        spread = max(high - low, 1)
        more = int(spread * max(factor, 1.0))
        return lambda: chance.randint(low, low + more)
    if kinds == {float}:
        usual = [one for one in items if one == one and abs(one) != float("inf")] or [0.0]
        low, high = min(usual), max(usual)
        return lambda: chance.uniform(low, high if high > low else low + 1)
    if kinds == {str}:
        return _text_maker(items, factor, chance, distinct)
    if kinds == {tuple} and len({len(one) for one in items}) == 1:
        columns = [_maker([one[i] for one in items], factor, chance) for i in range(len(items[0]))]
        return lambda: tuple(make() for make in columns)
    if kinds == {list} and all(items):
        inner = _maker([cell for one in items for cell in one], factor, chance)
        sizes = [len(one) for one in items]
        return lambda: [inner() for _ in range(chance.choice(sizes))]
    if kinds == {dict} and len({tuple(one) for one in items}) == 1 and items[0]:
        fields = {key: _maker([one[key] for one in items], factor, chance) for key in items[0]}
        return lambda: {key: make() for key, make in fields.items()}
    return lambda: chance.choice(items)


def _text_maker(
    items: list[str], factor: float, chance: random.Random, distinct: bool
) -> Callable[[], str]:
    few = len(set(items)) <= max(2, len(items) // 3) and len(items) > 4
    letters = {letter for one in items for letter in one}
    if not letters or (few and not distinct):
        return lambda: chance.choice(items)
    for alphabet in (string.ascii_lowercase, string.digits, string.ascii_letters):
        if letters <= set(alphabet):
            letters = set(alphabet)
            break
    ordered = sorted(letters)
    # As many letters more as make texts as different as there are to be.
    extra = math.ceil(math.log(max(len(items) * factor, 2)) / math.log(max(len(ordered), 2)))
    shortest, longest = max(min(map(len, items)), 1), max(map(len, items)) + extra
    return lambda: "".join(chance.choices(ordered, k=chance.randint(shortest, longest)))
