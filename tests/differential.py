"""Two programs run side by side on drawn inputs: results, types, exceptions, changed arguments."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import itertools
import math
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from types import GeneratorType, ModuleType
from typing import Any

from hypothesis import strategies as st

from sharpen.code.rewrite import Facts, Rewrite, observe, propose

Call = tuple[Any, ...]
_STEPS = 200_000


def load(text: str) -> dict[str, Any]:
    """A module's names after its text has run."""
    module = ModuleType("checked")
    exec(compile(text, "<checked>", "exec"), module.__dict__)
    return module.__dict__


def find(names: dict[str, Any], entry: str) -> Callable[..., Any]:
    found: Any = names
    for part in entry.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found  # type: ignore[no-any-return]


def canonical(value: Any, depth: int = 0) -> Any:
    """A value with all of its classes, such that equal ones cannot be told apart."""
    if depth > 20:
        return "deep"
    kind = type(value).__module__ + "." + type(value).__qualname__
    if isinstance(value, float):
        return (kind, "nan" if math.isnan(value) else value.hex())
    if isinstance(value, (list, tuple)):
        return (kind, [canonical(v, depth + 1) for v in value])
    if isinstance(value, (set, frozenset)):
        return (kind, sorted(repr(canonical(v, depth + 1)) for v in value))
    if isinstance(value, dict):
        return (
            kind,
            [(canonical(k, depth + 1), canonical(v, depth + 1)) for k, v in value.items()],
        )
    if isinstance(value, (GeneratorType, map, filter, zip, enumerate, reversed)):
        return (kind, [canonical(v, depth + 1) for v in itertools.islice(value, 2000)])
    if isinstance(value, (int, str, bytes, type(None), range, complex, bool)):
        return (kind, repr(value))
    if hasattr(value, "__dict__"):
        return (kind, [(k, canonical(v, depth + 1)) for k, v in sorted(vars(value).items())])
    return (kind, repr(value))


class _TooLong(BaseException):
    pass


def outcome(function: Callable[..., Any], args: Call, steps: int = _STEPS) -> Any:
    """What a call does: its result or exception, what is printed, and its arguments afterwards.

    Returns:
        None where it takes more than some lines.
    """
    given = copy.deepcopy(args)
    left = steps

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != "<checked>":
            return None  # compilers at work
        left -= 1
        if left < 0:
            raise _TooLong
        return trace

    printed = io.StringIO()
    old = sys.gettrace()
    try:
        with contextlib.redirect_stdout(printed):
            sys.settrace(trace)
            try:
                result: Any = canonical(function(*given))
            except RecursionError:
                return None
            except Exception as error:
                result = ("raised", type(error).__qualname__)
            finally:
                sys.settrace(old)
    except _TooLong:
        return None
    return (result, printed.getvalue(), canonical(given))


def steps(function: Callable[..., Any], args: Call) -> int:
    """How many instructions of the interpreter a call takes."""
    found = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal found
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        found += event == "opcode"
        return trace

    given, old = copy.deepcopy(args), sys.gettrace()
    sys.settrace(trace)
    try:
        function(*given)
    finally:
        sys.settrace(old)
    return found


def facts_of(text: str, entry: str, calls: Iterable[Call], **options: Any) -> Facts:
    function = find(load(text), entry)
    return observe(inspect.signature(function), [(copy.deepcopy(c), {}) for c in calls], **options)


def drawn(like: Any, rng: random.Random, depth: int = 0) -> Any:
    """A value like another: same classes, small numbers, many equal items."""
    size = rng.choice((0, 1, 2, 3, 4, 6, 9, 14)) if depth == 0 else rng.choice((0, 1, 2, 3, 4))
    if isinstance(like, bool):
        return rng.random() < 0.5
    if type(like) is int:
        low = -4 if like <= 0 else 0
        return rng.choice((rng.randint(low, 6), rng.randint(low, 20), rng.randint(-99, 99), like))
    if type(like) is float:
        return rng.choice((0.5, -0.0, 0.0, 1.0, float("nan"), float("inf"), rng.uniform(-3, 3)))
    if type(like) is str:
        return "".join(rng.choice("aab cZé0" + like[:20]) for _ in range(size))
    if type(like) is bytes:
        return bytes(rng.choice(b"aab\x00\xff" + like[:20]) for _ in range(size * 3))
    if type(like) is tuple and depth:
        return tuple(drawn(v, rng, depth + 1) for v in like)
    if type(like) in (list, tuple, set, frozenset):
        samples = list(like)
        items = [drawn(rng.choice(samples), rng, depth + 1) for _ in range(size if samples else 0)]
        if all(isinstance(i, (list, str)) for i in items) and rng.random() < 0.6:
            items = [copy.deepcopy(items[0]) if len(i) != len(items[0]) else i for i in items]
        if items and rng.random() < 0.3:
            items += [copy.deepcopy(rng.choice(items)) for _ in range(3)]
        return type(like)(items)
    if type(like) is dict:
        pairs = [rng.choice(list(like.items())) for _ in range(size if like else 0)]
        return {drawn(k, rng, depth + 1): drawn(v, rng, depth + 1) for k, v in pairs}
    return copy.deepcopy(like)


def like(value: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of the classes of another."""
    most = 12 if depth == 0 else 4
    if type(value) is bool:
        return st.booleans()
    if type(value) is int:
        return st.integers(-9, 40) | st.integers(-(10**6), 10**6)
    if type(value) is float:
        return st.floats(-9, 9) | st.sampled_from([0.0, -0.0, 0.5, math.nan, math.inf])
    if type(value) is str:
        return st.text("ab cZé0" + value[:20], max_size=most)
    if type(value) is bytes:
        return st.binary(max_size=40)
    if type(value) is tuple and depth:
        return st.tuples(*(like(v, depth + 1) for v in value))
    if type(value) in (list, tuple, set):
        items = st.one_of([like(v, depth + 1) for v in value] or [st.nothing()])
        return st.lists(items, max_size=most).map(type(value))
    if type(value) is dict:
        keys = st.one_of([like(k, depth + 1) for k in value])
        values = st.one_of([like(v, depth + 1) for v in value.values()])
        return st.dictionaries(keys, values, max_size=most)
    return st.just(value)


def drawn_calls(calls: Sequence[Call], seed: int, count: int) -> list[Call]:
    """Calls like some."""
    rng = random.Random(seed)
    return [tuple(drawn(value, rng) for value in rng.choice(calls)) for _ in range(count)]


def assert_same(before: str, after: str, entry: str, calls: Sequence[Call]) -> int:
    """Both programs do the same on all calls; the number of those that were compared."""
    one, other = find(load(before), entry), find(load(after), entry)
    compared = 0
    for call in calls:
        expected = outcome(one, call)
        if expected is None:
            continue
        found = outcome(other, call)
        assert found is None or found == expected, (
            f"{entry}{call!r}\nwas {expected}\nis {found}\n--- before\n{before}\n--- after\n{after}"
        )
        compared += found is not None
    return compared


def closure(text: str, entry: str, facts: Facts, depth: int, most: int = 60) -> list[Rewrite]:
    """All rewrites within some steps, none twice; at most some of them."""
    found: dict[str, Rewrite] = {}
    level = [text]
    for _ in range(depth):
        following = []
        for one in level:
            for rewrite in propose(one, entry, facts):
                if rewrite.text not in found and rewrite.text != text and len(found) < most:
                    found[rewrite.text] = rewrite
                    following.append(rewrite.text)
        level = following
    return list(found.values())
