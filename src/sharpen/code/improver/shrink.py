"""A smaller input for which two functions still differ.

Items are taken out, numbers made smaller, texts cut, each kept where the difference stays (delta
debugging: Zeller and Hildebrandt, *Simplifying and Isolating Failure-Inducing Input*, IEEE TSE,
2002, with one item at a time at the end).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sharpen.code.inputs import Input

__all__ = ["shrunk"]

_MOST_CHECKS, _MOST_ITEMS = 80, 12


def shrunk(call: Input, differs: Callable[[Input], bool]) -> Input:
    """A call that is no larger and for which ``differs`` holds as well.

    Args:
        call: one for which it holds.
        differs: whether two functions differ for a call.
    """
    left = _MOST_CHECKS
    found = call
    again = True
    while again and left > 0:
        again = False
        for smaller in _smaller_calls(found):
            if left <= 0:
                break
            left -= 1
            if differs(smaller):
                found, again = smaller, True
                break
    return found


def _smaller_calls(call: Input) -> Iterator[Input]:
    args, kwargs = call
    for i, value in enumerate(args):
        for one in _smaller(value):
            yield (*args[:i], one, *args[i + 1 :]), kwargs
    for name, value in kwargs.items():
        for one in _smaller(value):
            yield args, {**kwargs, name: one}


def _smaller(value: Any) -> Iterator[Any]:
    """Simpler values of the same class, those that take away most first."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield from dict.fromkeys(one for one in (0, value // 2) if abs(one) < abs(value))
    elif isinstance(value, (str, bytes, list, tuple)):
        yield from _shorter(value)
        if isinstance(value, list):
            for i, item in enumerate(value[:_MOST_ITEMS]):
                for one in _smaller(item):
                    yield [*value[:i], one, *value[i + 1 :]]
    elif isinstance(value, dict):
        for key in list(value)[:_MOST_ITEMS]:
            yield {k: v for k, v in value.items() if k != key}


def _shorter(value: Any) -> Iterator[Any]:
    """A sequence without a half of it, or without an item."""
    half = len(value) // 2
    if half:
        yield value[:half]
        yield value[half:]
        for i in range(min(len(value), _MOST_ITEMS)):
            yield value[:i] + value[i + 1 :]
    elif len(value):
        yield value[:0]
