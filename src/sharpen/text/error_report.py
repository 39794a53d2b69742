"""What an exception of an operation looks like to whoever mends it: short, with the line marked."""

from __future__ import annotations

import inspect
import linecache
import re
import textwrap
import traceback
from collections.abc import Callable
from types import CodeType
from typing import Any

__all__ = ["error_report"]

_AROUND = 3
_DEF = re.compile(r"\s*(async\s+)?def\s")
_MAX_CHARS = 2000


def error_report(error: BaseException, name: str, function: Callable[..., Any] | None) -> str:
    """The kind and message of ``error``, and the lines of ``function`` around where it happened.

    Args:
        error: what was raised, with its traceback.
        name: of the operation.
        function: whose body raised; None where there is no body to show.

    Returns:
        Lines such as::

            ZeroDivisionError in 'rate': division by zero
              2     total = sum(xs)
            > 3     return total / len(xs)
    """
    message = str(error)
    if len(message) > _MAX_CHARS:
        message = f"{message[:_MAX_CHARS]} [{len(message) - _MAX_CHARS} more characters]"
    lines = [f"{type(error).__name__} in '{name}': {message}"]
    code = getattr(function, "__code__", None)
    if code is not None:
        lines.extend(_marked(error, code))
    return "\n".join(lines)


def _marked(error: BaseException, code: CodeType) -> list[str]:
    at = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    if not at:
        return []
    source = linecache.getlines(code.co_filename)
    first = code.co_firstlineno - 1
    body = inspect.getblock(source[first:]) if source else []
    if not body:
        return [f"at line {at[-1] - first} of it"]
    above = next((k for k, line in enumerate(body) if _DEF.match(line)), 0)  # decorators
    body, marked = body[above:], at[-1] - code.co_firstlineno - above
    low, high = max(0, marked - _AROUND), min(len(body), marked + _AROUND + 1)
    body = textwrap.dedent("".join(body)).splitlines()
    width = len(str(high))
    return [
        f"{'>' if i == marked else ' '} {i + 1:>{width}} {body[i].rstrip()}"
        for i in range(low, high)
    ]
