"""Types of what builtin functions and methods return, and what they store into their arguments."""

from __future__ import annotations

import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence

from sharpen.code.rewrite.types import ANY, MAPPINGS, NOTHING, Type, items_of, of

__all__ = ["MUTATORS", "PURE_MODULES", "call_type", "constructed", "method_type", "stored"]

PURE_MODULES = frozenset(
    {"math", "cmath", "itertools", "functools", "operator", "collections", "heapq", "bisect"}
    | {"string", "re", "statistics", "fractions", "decimal", "typing", "copy", "datetime"}
    | {"json", "cmath", "random", "time", "typing"}
)
"""Modules whose functions change nothing of what a program holds, but for heaps and ``insort``."""

MUTATORS = frozenset(
    {"append", "appendleft", "add", "insert", "extend", "extendleft", "update", "setdefault"}
    | {"pop", "popleft", "popitem", "remove", "discard", "clear", "sort", "reverse", "rotate"}
    | {"intersection_update", "difference_update", "symmetric_difference_update", "subtract"}
    | {"move_to_end", "__setitem__", "__delitem__", "__iadd__"}
)
"""Methods that change the object they are called on."""

_INT = of(int)
_BOOL = of(bool)
_STR = of(str)
_FLOAT = of(float)
_NONE = of(type(None))
_WHOLE = {int, bool}

Arguments = Sequence[Type]


def _sum(a: Arguments) -> Type:
    if not a:
        return NOTHING
    items = items_of(a[0])
    start = a[1] if len(a) > 1 else _INT
    found = items | start
    if found.anything or not found.names <= {int, bool, float}:
        return found if len(a) > 1 and (found.only(list) or found.only(tuple)) else ANY
    return _INT if found.names <= _WHOLE else of(int, float)


def _extreme(a: Arguments) -> Type:
    if len(a) == 1:
        return items_of(a[0])
    found = NOTHING
    for one in a:
        found |= one
    return found


def _absolute(a: Arguments) -> Type:
    if len(a) != 1 or a[0].anything:
        return ANY
    if a[0].names <= {int, bool, float}:
        return Type(frozenset(int if n is bool else n for n in a[0].names))
    return ANY


def _round(a: Arguments) -> Type:
    if a and a[0].names <= {int, bool, float} and not a[0].anything:
        return _INT if len(a) == 1 or a[0].names <= _WHOLE else of(int, float)
    return ANY


def _items(a: Arguments) -> Type:
    return items_of(a[0]) if a else NOTHING


def _mapping(a: Arguments) -> tuple[Type, Type]:
    """Keys and values of ``dict(x)``."""
    if not a:
        return NOTHING, NOTHING
    if a[0].within(MAPPINGS):
        return a[0].items or NOTHING, a[0].values or NOTHING
    pair = items_of(items_of(a[0]))
    return pair, pair


def _power(a: Arguments) -> Type:
    if len(a) == 3:
        return _INT
    return of(int, float) if all(x.is_integer for x in a) else ANY


_ITERATOR = types.GeneratorType
_FUNCTIONS: dict[str, Callable[[Arguments], Type]] = {
    "len": lambda a: _INT,
    "ord": lambda a: _INT,
    "hash": lambda a: _INT,
    "id": lambda a: _INT,
    "int": lambda a: _INT,
    "float": lambda a: _FLOAT,
    "bool": lambda a: _BOOL,
    "str": lambda a: _STR,
    "repr": lambda a: _STR,
    "chr": lambda a: _STR,
    "bin": lambda a: _STR,
    "hex": lambda a: _STR,
    "oct": lambda a: _STR,
    "format": lambda a: _STR,
    "bytes": lambda a: of(bytes),
    "bytearray": lambda a: of(bytearray),
    "any": lambda a: _BOOL,
    "all": lambda a: _BOOL,
    "isinstance": lambda a: _BOOL,
    "callable": lambda a: _BOOL,
    "abs": _absolute,
    "round": _round,
    "sum": _sum,
    "min": _extreme,
    "max": _extreme,
    "pow": _power,
    "divmod": lambda a: (
        of(tuple, items=_INT) if all(x.is_integer for x in a) else of(tuple, items=ANY)
    ),
    "range": lambda a: of(range),
    "list": lambda a: of(list, items=_items(a)),
    "tuple": lambda a: of(tuple, items=_items(a)),
    "set": lambda a: of(set, items=_items(a)),
    "frozenset": lambda a: of(frozenset, items=_items(a)),
    "sorted": lambda a: of(list, items=_items(a)),
    "reversed": lambda a: of(reversed, items=_items(a)),
    "iter": lambda a: of(_ITERATOR, items=_items(a)),
    "enumerate": lambda a: of(enumerate, items=of(tuple, items=_INT | _items(a), arity=2)),
    "zip": lambda a: of(
        zip, items=of(tuple, items=_extreme([items_of(x) for x in a] or [NOTHING]))
    ),
    "dict": lambda a: of(dict, items=_mapping(a)[0], values=_mapping(a)[1]),
    "filter": lambda a: of(filter, items=items_of(a[1]) if len(a) > 1 else ANY),
    "map": lambda a: of(map, items=ANY),
    "print": lambda a: _NONE,
    "next": lambda a: _items(a[:1]) | (a[1] if len(a) > 1 else NOTHING),
    "math.sqrt": lambda a: _FLOAT,
    "math.floor": lambda a: _INT if a and a[0].is_number else ANY,
    "math.ceil": lambda a: _INT if a and a[0].is_number else ANY,
    "math.isqrt": lambda a: _INT,
    "math.gcd": lambda a: _INT,
    "math.lcm": lambda a: _INT,
    "math.factorial": lambda a: _INT,
    "math.comb": lambda a: _INT,
    "math.log": lambda a: _FLOAT,
    "math.log2": lambda a: _FLOAT,
    "math.log10": lambda a: _FLOAT,
    "math.sin": lambda a: _FLOAT,
    "math.cos": lambda a: _FLOAT,
    "math.exp": lambda a: _FLOAT,
    "math.hypot": lambda a: _FLOAT,
    "collections.deque": lambda a: of(deque, items=_items(a[:1])),
    "collections.Counter": lambda a: of(
        Counter,
        items=(a[0].items or NOTHING) if a and a[0].within(MAPPINGS) else _items(a),
        values=(_INT | (a[0].values or NOTHING)) if a and a[0].within(MAPPINGS) else _INT,
    ),
    "collections.OrderedDict": lambda a: of(
        OrderedDict, items=_mapping(a)[0], values=_mapping(a)[1]
    ),
    "itertools.combinations": lambda a: of(_ITERATOR, items=of(tuple, items=_items(a[:1]))),
    "itertools.permutations": lambda a: of(_ITERATOR, items=of(tuple, items=_items(a[:1]))),
    "itertools.chain": lambda a: of(
        _ITERATOR, items=_extreme([items_of(x) for x in a] or [NOTHING])
    ),
    "heapq.heappop": lambda a: _items(a[:1]),
    "heapq.nsmallest": lambda a: of(list, items=_items(a[1:2])),
    "heapq.nlargest": lambda a: of(list, items=_items(a[1:2])),
    "heapq.heappush": lambda a: _NONE,
    "heapq.heapify": lambda a: _NONE,
    "bisect.bisect_left": lambda a: _INT,
    "bisect.bisect_right": lambda a: _INT,
    "bisect.bisect": lambda a: _INT,
}


def call_type(name: str, arguments: Arguments, has_keywords: bool) -> Type | None:
    """What a builtin or library function returns; None where it is not known."""
    if name == "dict" and has_keywords:
        return of(dict, items=ANY, values=ANY)
    found = _FUNCTIONS.get(name)
    if found is None:
        return None
    if name == "sum" and has_keywords:
        return ANY
    if name in ("min", "max") and len(arguments) == 1 and arguments[0].anything:
        return ANY
    return found(arguments)


constructed = frozenset({"list", "dict", "set", "sorted", "bytearray"})
"""Builtins whose result is always new and can be changed."""

_TEXT = frozenset({str, bytes, bytearray})
_TEXT_TO_SAME = frozenset(
    {"lower", "upper", "strip", "lstrip", "rstrip", "replace", "title", "capitalize", "swapcase"}
    | {"join", "zfill", "center", "ljust", "rjust", "format", "casefold", "translate"}
    | {"removeprefix", "removesuffix", "expandtabs"}
)
_TEXT_TO_BOOL = frozenset(
    {"startswith", "endswith", "isdigit", "isalpha", "isalnum", "isupper", "islower", "isspace"}
    | {"isdecimal", "isnumeric", "istitle", "isidentifier", "isprintable", "isascii"}
)
_TO_NONE = frozenset(
    {"append", "appendleft", "extend", "extendleft", "insert", "add", "remove", "discard", "clear"}
    | {"sort", "reverse", "update", "rotate", "difference_update", "intersection_update"}
)
_SEQUENCES = frozenset({list, tuple, deque})
_SETS = frozenset({set, frozenset})


def method_type(receiver: Type, method: str, arguments: Arguments) -> Type:
    """What a method returns."""
    if receiver.anything:
        return ANY
    found = NOTHING
    for name in receiver.names:
        found |= _method(name, receiver, method, arguments)
    return found


def _method(name: type, receiver: Type, method: str, arguments: Arguments) -> Type:
    items, values = receiver.items or NOTHING, receiver.values or NOTHING
    if method in ("count", "index", "find", "rfind", "rindex", "bit_length", "bit_count"):
        return _INT
    if name in _TEXT:
        if method in _TEXT_TO_SAME:
            return of(name)
        if method in _TEXT_TO_BOOL:
            return _BOOL
        if method in ("split", "rsplit", "splitlines"):
            return of(list, items=of(name))
        if method in ("partition", "rpartition"):
            return of(tuple, items=of(name))
        if method == "encode":
            return of(bytes)
        return of(str) if method == "decode" else ANY
    if method in _TO_NONE and name in _SEQUENCES | _SETS | MAPPINGS:
        return _NONE
    if name in _SEQUENCES and method in ("pop", "popleft"):
        return items
    if name in MAPPINGS:
        if method == "keys":
            return of(list, items=items)
        if method == "values":
            return of(list, items=values)
        if method in ("items", "most_common"):
            return of(list, items=of(tuple, items=items | values, arity=2))
        if method in ("get", "setdefault", "pop"):
            default = arguments[1] if len(arguments) > 1 else _NONE
            return values | (NOTHING if method == "pop" and len(arguments) < 2 else default)
    if name in _SETS:
        if method == "pop":
            return items
        if method in ("issubset", "issuperset", "isdisjoint"):
            return _BOOL
        if method in ("union", "intersection", "difference", "symmetric_difference"):
            found = items
            for one in arguments:
                found |= items_of(one)
            return of(name, items=found)
    if method == "copy":
        return Type(frozenset({name}), receiver.items, receiver.values)
    return ANY


def stored(method: str, arguments: Arguments) -> tuple[Type, Type]:
    """What a method puts into its object: items (or keys), and values of a mapping."""
    first = arguments[0] if arguments else NOTHING
    if method in ("append", "appendleft", "add"):
        return first, NOTHING
    if method == "insert" and len(arguments) > 1:
        return arguments[1], NOTHING
    if method == "setdefault":
        return first, arguments[1] if len(arguments) > 1 else _NONE
    if method in ("extend", "extendleft", "symmetric_difference_update"):
        return items_of(first), NOTHING
    if method in ("update", "subtract"):
        if not arguments:
            return ANY, ANY
        keys, values = _mapping([first])
        whole = items_of(first)
        return keys | whole, values | _INT
    if method in ("__setitem__", "__iadd__"):
        return ANY, ANY
    return NOTHING, NOTHING
