"""Examples for arguments: from type hints, and from the values that were seen.

Values are made by hypothesis (MacIver et al., *Hypothesis: A new approach to property-based
testing*, JOSS 2019), without randomness of its own: the same seed gives the same examples.
"""

from __future__ import annotations

import ast
import collections
import collections.abc
import datetime
import decimal
import fractions
import inspect
import string
import typing
import warnings
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from sharpen.code.improver.target import Function
from sharpen.code.inputs import Input

__all__ = ["call_strategy", "examples", "from_hint", "is_open", "like"]

Strategy = st.SearchStrategy[Any]

_LONGEST = 24  # items of a container that is made up
_TEXT = string.ascii_letters + string.digits + " _-.,\n"
_UNICODE = "äßéЖ中\U0001f600\u0301"
_PLAIN = (int, float, bool, str, bytes, complex, type(None))
_NAMES: dict[str, Any] = {
    **{one.__name__: one for one in (*_PLAIN[:-1], list, tuple, dict, set, frozenset)},
    **{name: getattr(typing, name) for name in typing.__all__},
    **{name: getattr(collections.abc, name) for name in collections.abc.__all__},
    "typing": typing,
    "collections": collections,
    "deque": deque,
    "Counter": Counter,
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
    "decimal": decimal,
    "datetime": datetime,
    "None": None,
}
_OPEN = (list, typing.List, typing.Sequence, typing.Iterable, typing.Collection)  # noqa: UP006
_NODES = (
    *(ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant),
    *(ast.BinOp, ast.BitOr, ast.Load, ast.UnaryOp, ast.USub),
)


def from_hint(node: ast.expr | None) -> Strategy | None:
    """Values of a type hint; None for a hint of a class of the program's, or none at all."""
    if node is None:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node = ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return None
    tree = ast.Expression(node)
    if not all(isinstance(one, _NODES) for one in ast.walk(tree)):
        return None
    try:
        kind = eval(compile(ast.fix_missing_locations(tree), "<hint>", "eval"), dict(_NAMES))
        return _of_type(kind)
    except (NameError, AttributeError, TypeError, KeyError, HypothesisException):
        return None


def _of_type(kind: Any) -> Strategy | None:
    origin, given_types = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind in (typing.Hashable, object):
        return None
    if kind is int:
        return _ints(-20, 20)
    if kind is float:
        return _floats([])
    if kind is str:
        return _texts([], None)
    if origin in _SEQUENCES or kind in _OPEN:
        if not given_types:
            return _open_lists()
        inner = _of_type(given_types[0])
        return None if inner is None else st.lists(inner, max_size=_LONGEST)
    if origin in (collections.abc.Iterator, collections.abc.Generator, collections.abc.Callable):
        return None
    if (origin is tuple and len(given_types) != 2) or (
        origin is tuple and given_types[1] is not ...
    ):
        parts = [_of_type(one) for one in given_types]
        whole = [one for one in parts if one is not None]
        return st.tuples(*whole) if len(whole) == len(parts) else None
    if origin is tuple:
        inner = _of_type(given_types[0])
        return None if inner is None else st.lists(inner, max_size=_LONGEST).map(tuple)
    if origin in (set, frozenset, collections.abc.Set) and given_types:
        inner = _of_type(given_types[0])
        make = st.frozensets if origin is frozenset else st.sets
        return None if inner is None else make(inner, max_size=_LONGEST)
    if origin in (dict, collections.abc.Mapping) and len(given_types) == 2:
        key, inner = map(_of_type, given_types)
        if key is None or inner is None:
            return None
        return st.dictionaries(key, inner, max_size=_LONGEST)
    if origin is typing.Union or type(kind).__name__ == "UnionType":
        options = [_of_type(one) for one in given_types]
        found = [one for one in options if one is not None]
        return st.one_of(*found) if found else None
    return st.from_type(kind)


def _open_lists() -> Strategy:
    """Lists of a hint that does not say of what: of one kind, of lists, and of all sorts."""
    numbers, words = _ints(-20, 20), st.text("abc", max_size=3)
    rows = st.lists(st.integers(0, 3), max_size=3)
    mixed = st.one_of(numbers, words, rows, st.booleans(), st.none(), _floats([]))
    return st.one_of(
        *(st.lists(one, max_size=_LONGEST) for one in (numbers, _floats([]), words, rows, mixed))
    )


def is_open(node: ast.expr | None) -> bool:
    """Whether a hint names a sequence without saying of what."""
    name = getattr(node, "id", getattr(node, "attr", ""))
    return name in ("list", "List", "Sequence", "Iterable", "Collection")


_SEQUENCES = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def _ints(low: int, high: int) -> Strategy:
    """Near the range that was seen, and its corners."""
    span = max(high - low, 3)
    near = st.integers(low - span // 2 - 1, high + span // 2 + 1)
    if low >= 0:
        near = st.one_of(st.integers(low, high + span // 2 + 1), near)
    return st.one_of(near, st.sampled_from([0, 1, -1, low, high]))


def _floats(seen: Sequence[float]) -> Strategy:
    usual = [one for one in seen if one == one and abs(one) != float("inf")]
    bound = max([abs(one) for one in usual], default=100.0) * 2 + 1
    corners = [0.0, -0.0, 1.0, float("inf"), float("-inf"), float("nan"), 0.1, *usual[:20]]
    return st.one_of(
        st.floats(-bound, bound, allow_nan=False),
        st.sampled_from(corners),
        st.floats(-4, 4).map(round).map(float),
    )


def _texts(seen: Sequence[str], longest: int | None) -> Strategy:
    alphabet = "".join(sorted(set("".join(seen[:200])))) or _TEXT
    size = (
        min(max([len(one) for one in seen], default=12) * 2 + 2, 40) if longest is None else longest
    )
    some = st.text(alphabet, max_size=size)
    # Few letters make repetitions, which is what algorithms on texts are about.
    few = st.text(alphabet[:3], max_size=size)
    odd = st.text(alphabet[:8] + _UNICODE, max_size=size)
    known = [st.sampled_from(list(seen[:50]))] if seen else []
    return st.one_of(some, few, odd, *known)


def like(values: Sequence[Any]) -> Strategy:
    """Values of the classes that were seen, near what was seen.

    Args:
        values: what one argument, or the items of one container, has been; not empty.
    """
    by_type: dict[type, list[Any]] = {}
    for one in values:
        by_type.setdefault(type(one), []).append(one)
    return st.one_of(*[_like_type(kind, some) for kind, some in by_type.items()])


def _like_type(kind: type, values: list[Any]) -> Strategy:
    if kind is bool:
        return st.booleans()
    if kind is int:
        return _ints(min(values), max(values))
    if kind is float:
        return _floats(values)
    if kind is str:
        return _texts(values, None)
    if kind is bytes:
        return st.binary(max_size=max(map(len, values)) * 2 + 2)
    if kind is complex:
        return st.complex_numbers(max_magnitude=10)
    if kind in (list, set, frozenset, deque):
        return _container(kind, values)
    if kind is tuple:
        return _tuples(values)
    if kind is dict:
        return _dicts(values)
    if kind is np.ndarray:
        return _arrays(values)
    return st.sampled_from(values)


def _container(kind: type, values: list[Any]) -> Strategy:
    items = [item for one in values for item in list(one)[:100]][:1000]
    if not items:
        return st.sampled_from(values)
    inner = like(items)
    longest = max(min(max(map(len, values)) * 2 + 2, _LONGEST), 4)
    if kind in (set, frozenset):
        return st.sets(inner, max_size=longest).map(kind)
    plain = st.lists(inner, max_size=longest)
    # Repetitions: few different items.
    few = st.lists(st.sampled_from(items[:50]), max_size=longest)
    options = [plain, few]
    rows = [item for item in items if type(item) is list]
    if len(rows) == len(items) and len({len(row) for row in rows}) < len(rows):
        cells = [cell for row in rows for cell in row[:50]][:1000]
        if cells:
            options.append(_grids(like(cells)))
    if all(_is_sorted(one) for one in values if len(one) > 2) and _sortable(items):
        options.append(plain.map(_sorted))
    made = st.one_of(*options)
    return made.map(deque) if kind is deque else made


def _is_sorted(values: Any) -> bool:
    try:
        return all(a <= b for a, b in zip(values, list(values)[1:], strict=False))
    except TypeError:
        return False


def _sortable(items: list[Any]) -> bool:
    return all(type(item) in (int, str) for item in items) and len({type(i) for i in items}) == 1


def _sorted(values: list[Any]) -> list[Any]:
    return sorted(values)


def _grids(cells: Strategy) -> Strategy:
    """Rows of one length."""
    sizes = st.tuples(st.integers(0, 6), st.integers(0, 6))
    return sizes.flatmap(
        lambda size: st.lists(
            st.lists(cells, min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]
        )
    )


def _tuples(values: list[tuple[Any, ...]]) -> Strategy:
    lengths = {len(one) for one in values}
    if len(lengths) > 3 or (0 in lengths and len(lengths) > 1):
        items = [item for one in values for item in one]
        return st.lists(like(items), max_size=_LONGEST).map(tuple) if items else st.just(())
    options = []
    for length in sorted(lengths):
        some = [one for one in values if len(one) == length]
        options.append(st.tuples(*[like([one[i] for one in some]) for i in range(length)]))
    return st.one_of(*options)


def _dicts(values: list[dict[Any, Any]]) -> Strategy:
    keys = [key for one in values for key in one]
    if not keys:
        return st.sampled_from(values)
    common = set(values[0]).intersection(*values[1:])
    if len(common) == len(set(keys)) and all(isinstance(key, str) for key in common):
        fields = {key: like([one[key] for one in values]) for key in values[0]}
        return st.fixed_dictionaries(fields)  # a record
    inner = like([one for value in values for one in value.values()][:1000])
    known = st.sampled_from(keys[:100])
    longest = max(min(max(map(len, values)) * 2 + 2, _LONGEST), 4)
    return st.dictionaries(st.one_of(like(keys[:1000]), known), inner, max_size=longest)


def _arrays(values: list[Any]) -> Strategy:
    from hypothesis.extra import numpy as extra

    first = values[0]
    if first.dtype.kind not in "biuf":
        return st.sampled_from(values)
    shapes = (
        extra.array_shapes(min_dims=first.ndim, max_dims=first.ndim, min_side=0, max_side=8)
        if first.ndim
        else st.just(())
    )
    elements = None
    if first.dtype.kind in "iu":
        low, high = (
            min(int(v.min()) for v in values if v.size),
            max(int(v.max()) for v in values if v.size),
        )
        elements = st.integers(low, high)
    return extra.arrays(first.dtype, shapes, elements=elements)


def call_strategy(
    node: Function, signature: inspect.Signature, seen: Sequence[Input]
) -> st.SearchStrategy[Input] | None:
    """Whole calls: some made up argument by argument, some that change one argument of a call seen.

    Args:
        node: the function, for its hints.
        signature: without what a method is bound to; what a method's object holds is its first
            argument in ``seen`` and stays there.
        seen: calls that are known, or none.

    Returns:
        None where an argument that has no default is of an unknown kind.
    """
    hints = {
        one.arg: one.annotation
        for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    }
    if not seen:
        parts: dict[str, Strategy] = {}
        for name, parameter in signature.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            made = from_hint(hints.get(name))
            if made is not None:
                parts[name] = made
            elif parameter.default is parameter.empty:
                return None
        return _bound(signature, parts)
    options: list[st.SearchStrategy[Input]] = []
    shapes: dict[tuple[int, tuple[str, ...]], list[Input]] = {}
    for args, kwargs in seen:
        shapes.setdefault((len(args), tuple(kwargs)), []).append((args, kwargs))
    names = list(signature.parameters)
    for (count, keys), some in list(shapes.items())[:6]:
        offset = count - len(names) if count > len(names) else 0
        columns = []
        for i in range(count):
            values = like([args[i] for args, _ in some])
            name = names[i - offset] if 0 <= i - offset < len(names) else ""
            hint = hints.get(name)
            hinted = None if is_open(hint) else from_hint(hint)
            columns.append(values if hinted is None else st.one_of(values, values, hinted))
        named = {key: like([kwargs[key] for _, kwargs in some]) for key in keys}
        whole = st.tuples(st.tuples(*columns), st.fixed_dictionaries(named))
        options.append(whole)
        if count:
            options.append(_changed(some, columns))
    return st.one_of(*options)


def _bound(signature: inspect.Signature, parts: dict[str, Strategy]) -> st.SearchStrategy[Input]:
    by_position = [
        name
        for name, one in signature.parameters.items()
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    first = []
    for name in by_position:  # up to the first that is left to its default
        if name not in parts:
            break
        first.append(name)
    rest = {name: made for name, made in parts.items() if name not in first}
    rest = {
        n: m
        for n, m in rest.items()
        if signature.parameters[n].kind is not inspect.Parameter.POSITIONAL_ONLY
    }
    return st.tuples(st.tuples(*[parts[name] for name in first]), st.fixed_dictionaries(rest))


def _changed(some: list[Input], columns: list[Strategy]) -> st.SearchStrategy[Input]:
    """A call that was seen with one argument made up."""
    chosen = st.tuples(st.sampled_from(range(len(some))), st.sampled_from(range(len(columns))))

    def with_one(pick: tuple[int, int]) -> st.SearchStrategy[Input]:
        args, kwargs = some[pick[0]]

        def put(value: Any) -> Input:
            return (*args[: pick[1]], value, *args[pick[1] + 1 :]), kwargs

        return columns[pick[1]].map(put)

    return chosen.flatmap(with_one)


def examples(strategy: st.SearchStrategy[Input], count: int, number: int) -> list[Input]:
    """Some values of a strategy, the same each time.

    Args:
        strategy: of calls.
        count: how many; fewer where the strategy has no more.
        number: another one, other values.
    """
    found: list[Input] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Input) -> None:
        found.append(value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            collect()
        except HypothesisException:
            return found
    return found[:count]
