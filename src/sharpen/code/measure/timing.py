"""What a child process does to time or count calls; it knows the standard library alone.

Clocks are bound here, before a program is loaded, so that one that replaces ``time.thread_time``
changes nothing. ``cpu`` is the clock of the thread where ``RLIMIT_CPU`` is set: then the kernel
counts the process clock in ticks of milliseconds and short work reads as nothing.
"""

from __future__ import annotations

import gc
import pickle
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

from sharpen.core.sandbox.inside.codec import decode

__all__ = ["CLOCKS", "call_once", "count_opcodes", "time_inputs"]

CLOCKS: dict[str, Callable[[], int]] = {
    "cpu": time.process_time_ns,
    "thread": time.thread_time_ns,
    "wall": time.perf_counter_ns,
}
_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes)
_COPIES_BYTES = 1 << 25  # of arguments that wait to be used
_LIMIT = resource.getrlimit
_exhaust: Callable[[Any], None] = deque[Any](maxlen=0).extend


def _is_immutable(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_immutable, value))
    return isinstance(value, _IMMUTABLE)


def _clock(name: str) -> Callable[[], int]:
    if name == "cpu" and _LIMIT(resource.RLIMIT_CPU)[0] != resource.RLIM_INFINITY:
        name = "thread"
    return CLOCKS[name]


def _calls(
    encoded: bytes, loops: int
) -> Iterator[tuple[Sequence[Any], dict[str, Any], int] | list[Any]]:
    """Arguments that may be used again with how often, or lists of copies that may not."""
    args, kwargs = decode(encoded)
    if all(map(_is_immutable, (*args, *kwargs.values()))):
        yield args, kwargs, loops
        return
    at_once = max(1, min(loops, _COPIES_BYTES // max(len(encoded), 1)))
    copy = _copier(encoded)
    while loops > 0:
        yield [copy() for _ in range(min(at_once, loops))]
        loops -= at_once


def _copier(encoded: bytes) -> Callable[[], Any]:
    """What makes the arguments anew; by pickle where that is possible, since it is faster."""
    value = decode(encoded)
    try:
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:  # of the types that the program has
        return lambda: decode(encoded)
    return lambda: pickle.loads(data)  # of this process's own making


def time_inputs(
    function: Callable[..., Any], inputs: Sequence[bytes], loops: int, clock: str
) -> list[int]:
    """[inputs] nanoseconds of ``loops`` calls with each; results that are iterators are used up.

    Every call has arguments of its own, unless nothing can change them.
    """
    now = _clock(clock)
    args, kwargs = decode(inputs[0])
    first = function(*args, **kwargs)  # caches fill, and imports within happen
    run = _consume(function) if hasattr(first, "__next__") else function
    if run is not function:
        _exhaust(first)
    del first, args, kwargs
    gc.collect()
    gc.disable()
    found = []
    for encoded in inputs:
        total = 0
        for some in _calls(encoded, loops):
            if isinstance(some, tuple):
                args, kwargs, times = some
                begin = now()
                for _ in repeat(None, times):
                    run(*args, **kwargs)
                total += now() - begin
            else:
                begin = now()
                for args, kwargs in some:
                    run(*args, **kwargs)
                total += now() - begin
        found.append(total)
    return found


def _consume(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> None:
        _exhaust(function(*args, **kwargs))

    return run


def call_once(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Call a function; a result that is an iterator is used up."""
    result = function(*args, **kwargs)
    if hasattr(result, "__next__"):
        _exhaust(result)


def count_opcodes(function: Callable[..., Any], inputs: Sequence[bytes]) -> list[int]:
    """[inputs] instructions of Python's interpreter that a call runs; the same in every run.

    It sees no work in C. Numbers of two versions of Python cannot be compared.
    """
    count = 0

    def each(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        elif event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return each

    found = []
    for encoded in inputs:
        args, kwargs = decode(encoded)
        count = 0
        before = sys.gettrace()
        sys.settrace(each)
        try:
            result = function(*args, **kwargs)
            if hasattr(result, "__next__"):
                _exhaust(result)
        finally:
            sys.settrace(before)
        found.append(count)
    return found
