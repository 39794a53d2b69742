"""What can be seen of a call: its result, what it raised, changed, printed and left in its module.

This file is also sent into the sandbox as it is, so it knows the standard library alone. Values
become plain ones that cross to another process:

* a container that can be changed and was met before is a ``Ref`` to where, so that a result that is
  its argument differs from a copy;
* an object of a class of the program is a ``Thing``: the class's name and its attributes;
* an iterator is used up: what it gives counts, not when;
* what is none of these crosses as opaque, which is equal to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

__all__ = ["MOST_ITEMS", "Ref", "Thing", "observe", "snapshot", "state_of"]

MOST_ITEMS = 100_000
"""Items of an iterator that are looked at; some never end."""

_SCALARS = (type(None), bool, int, float, complex, str, bytes, range)
_MOST_PRINTED = 1 << 20


class Ref(NamedTuple):
    """A container that was met before, by the number of where."""

    number: int


class Thing(NamedTuple):
    """A value that is not plain: its class and what it is made of."""

    type_name: str
    parts: Any


def snapshot(value: Any, met: dict[int, int], keep: list[Any]) -> Any:
    """A value as plain data.

    Args:
        value: any.
        met: numbers of the containers met so far, by ``id``; grows.
        keep: holds them, so that no ``id`` is used twice.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is tuple:
        return tuple([snapshot(one, met, keep) for one in value])
    if kind is frozenset:
        return _set(value, "frozenset", met, keep)
    if id(value) in met:
        return Ref(met[id(value)])
    met[id(value)] = len(met)
    keep.append(value)
    if kind is list:
        return [snapshot(one, met, keep) for one in value]
    if kind is dict:
        return _pairs(value, met, keep)
    if kind is set:
        return _set(value, "set", met, keep)
    if kind is deque:
        return Thing("deque", ([snapshot(one, met, keep) for one in value], value.maxlen))
    if kind in (Counter, OrderedDict):
        return Thing(kind.__name__, _pairs(value, met, keep))
    if kind is defaultdict:
        factory = getattr(value.default_factory, "__name__", None)
        return Thing("defaultdict", (factory, _pairs(value, met, keep)))
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
        return Thing("name", f"{value.__module__}.{value.__qualname__}")
    if isinstance(value, BaseException):
        return Thing(_name(kind), [snapshot(one, met, keep) for one in value.args])
    if hasattr(kind, "__next__"):
        return Thing("iterator", _consumed(value, met, keep))
    return _object(value, kind, met, keep)


def _name(kind: type) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _plain_key(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_plain_key, value))
    return type(value) in _SCALARS


def _pairs(value: Mapping[Any, Any], met: dict[int, int], keep: list[Any]) -> Any:
    if all(map(_plain_key, value)):
        return {key: snapshot(one, met, keep) for key, one in value.items()}
    pairs = [(snapshot(k, met, keep), snapshot(v, met, keep)) for k, v in value.items()]
    return Thing("dict", pairs)


def _set(value: Any, name: str, met: dict[int, int], keep: list[Any]) -> Any:
    if all(map(_plain_key, value)):
        return value
    items = [snapshot(one, met, keep) for one in value]
    with contextlib.suppress(TypeError):
        items.sort(key=_canonical)
    return Thing(name, items)


def _canonical(value: Any) -> str:
    """A text that equal snapshots share, and others do not.

    Raises:
        TypeError: it holds a value that is opaque.
    """
    kind = type(value)
    if kind in _SCALARS:
        return repr(value)
    if kind in (set, frozenset):
        return f"{kind.__name__}({','.join(sorted(map(_canonical, value)))})"
    if kind is dict:
        return f"{{{','.join(f'{_canonical(k)}:{_canonical(v)}' for k, v in value.items())}}}"
    if kind in (list, tuple, Ref, Thing):
        return f"{kind.__name__}({','.join(map(_canonical, value))})"
    if kind.__module__ == "numpy":
        return f"{value.dtype.str}{value.shape}{value.tobytes().hex()}"
    if kind.__module__.partition(".")[0] in _NATIVE:
        return repr(value)
    raise TypeError(kind.__name__)


def _consumed(value: Iterator[Any], met: dict[int, int], keep: list[Any]) -> Any:
    """What an iterator gives, and what it raised in the end."""
    items: list[Any] = []
    try:
        items.extend(snapshot(one, met, keep) for one in islice(value, MOST_ITEMS))
    except Exception as error:
        return (items, snapshot(error, met, keep))
    return (items, None)


def _object(value: Any, kind: type, met: dict[int, int], keep: list[Any]) -> Any:
    for base in (int, float, str, bytes, list, tuple, dict, set, frozenset):
        if issubclass(kind, base):
            held = vars(value) if hasattr(value, "__dict__") else {}
            if base in (list, tuple):
                inner: Any = [snapshot(one, met, keep) for one in base.__iter__(value)]
            elif base is dict:
                inner = _pairs(dict(dict.items(value)), met, keep)
            elif base in (set, frozenset):
                inner = _set(set(value), "set", met, keep)
            else:
                inner = (
                    base(value) if base is bytes else getattr(base, f"__{base.__name__}__")(value)
                )
            return Thing(_name(kind), (inner, _attributes(held, met, keep)))
    if kind.__module__.partition(".")[0] in _NATIVE:
        return value
    held = dict(vars(value)) if hasattr(value, "__dict__") else {}
    slots = [name for one in kind.__mro__ for name in _slots(one) if hasattr(value, name)]
    if not held and not slots:
        return value
    held |= {name: getattr(value, name) for name in slots}
    return Thing(_name(kind), _attributes(held, met, keep))


_NATIVE = ("numpy", "decimal", "fractions", "datetime")  # the codec knows them


def _slots(kind: type) -> tuple[str, ...]:
    found = kind.__dict__.get("__slots__", ())
    names = (found,) if isinstance(found, str) else tuple(found)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _attributes(held: Mapping[str, Any], met: dict[int, int], keep: list[Any]) -> dict[str, Any]:
    return {str(name): snapshot(one, met, keep) for name, one in held.items()}


def observe(
    function: Callable[..., Any], args: list[Any] | tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Call a function and tell what can be seen of it.

    Returns:
        ``value``, or ``error`` (class and arguments) where it raised; ``args`` and ``kwargs`` after
        the call; ``out`` and ``err``, what it printed; ``seconds`` of processor time.
    """
    met: dict[int, int] = {}
    keep: list[Any] = []
    out, err = io.StringIO(), io.StringIO()
    value: Any = None
    error: BaseException | None = None
    begin = time.thread_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            value = function(*args, **kwargs)
            if isinstance(value, types.CoroutineType):
                value = asyncio.run(value)
        except (Exception, SystemExit) as raised:
            error = raised
        if hasattr(type(value), "__next__"):  # it may print, and change its arguments
            value = Thing("iterator", _consumed(value, {}, keep))
    seconds = time.thread_time() - begin
    after = snapshot(list(args), met, keep), snapshot(kwargs, met, keep)
    return {
        "value": value if isinstance(value, Thing) else snapshot(value, met, keep),
        "error": None if error is None else snapshot(error, met, keep),
        "args": after[0],
        "kwargs": after[1],
        "out": out.getvalue()[:_MOST_PRINTED],
        "err": err.getvalue()[:_MOST_PRINTED],
        "seconds": seconds,
    }


def state_of(names: Mapping[str, Any]) -> dict[str, bytes]:
    """A digest of each variable of a module that holds data and can be compared."""
    found = {}
    for name, value in names.items():
        kind = type(value)
        if name.startswith("__") or isinstance(value, _NO_DATA) or hasattr(kind, "__next__"):
            continue
        if kind.__module__.partition(".")[0] == "numba":  # functions, with all of the compiler
            continue
        try:
            text = _canonical(snapshot(value, {}, []))
        except (TypeError, ValueError, RecursionError):
            continue
        data = text.encode("utf-8", "surrogatepass")
        found[name] = blake2b(data, digest_size=16).digest()
    return found


_NO_DATA = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
