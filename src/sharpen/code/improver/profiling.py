"""Which lines take the time: instructions of Python's interpreter by line, the same in every run.

Both are shown to a language model, as in Huang et al., *Effi-Code*, 2024. Memory by line comes from
``tracemalloc``: what a line has allocated that is alive when the call ends.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sharpen.core.sandbox.inside.codec import decode

__all__ = ["count_lines"]

_MOST_OPCODES = 3_000_000


class _Enough(Exception):
    """The count is long enough to tell where time goes."""


def count_lines(function: Callable[..., Any], file: str, inputs: Sequence[bytes]) -> dict[str, Any]:
    """Instructions and memory of each line of a file.

    Args:
        function: what is called.
        file: lines of other files count for the line that called them last.
        inputs: arguments of each call, as they cross.

    Returns:
        ``opcodes``: pairs of line and instructions; ``bytes``: pairs of line and memory.
    """
    opcodes: Counter[int] = Counter()
    left = _MOST_OPCODES
    line = 0

    def each(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left, line
        if event == "opcode":
            if frame.f_code.co_filename == file and frame.f_lineno is not None:
                line = frame.f_lineno
            opcodes[line] += 1
            left -= 1
            if left < 0:
                raise _Enough
        elif event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return each

    for data in inputs:
        args, kwargs = decode(data)
        sys.settrace(each)
        try:
            result = function(*args, **kwargs)
            if hasattr(result, "__next__"):
                for _ in result:
                    pass
        except Exception:  # what it raises is no matter here
            if left < 0:
                break
        finally:
            sys.settrace(None)
    return {"opcodes": sorted(opcodes.items()), "bytes": _memory(function, file, inputs[0])}


def _memory(function: Callable[..., Any], file: str, data: bytes) -> list[tuple[int, int]]:
    """What each line allocated of what is alive when the call ends."""
    args, kwargs = decode(data)
    found: Counter[int] = Counter()
    tracemalloc.start(1)
    try:
        held = function(*args, **kwargs)
        for one in tracemalloc.take_snapshot().statistics("lineno"):
            if one.traceback[0].filename == file:
                found[one.traceback[0].lineno] += one.size
        del held
    except Exception:
        return []
    finally:
        tracemalloc.stop()
    return sorted(found.items())
