"""Python functions that an agent may call by writing ``name(argument, ...)``.

Arguments are literals: numbers, texts, lists, dicts. Nothing that an agent writes is evaluated.
What a function raises comes back as text, so that the agent can try again.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from sharpen.core.errors import ConfigError

__all__ = ["Toolbox", "read_call"]

_MOST = 10_000  # characters of a call


def read_call(text: str) -> tuple[str, list[Any], dict[str, Any]] | None:
    """The name and the literal arguments of a call; None where a text is none.

    Examples:
        >>> read_call("search('who', limit=3)")
        ('search', ['who'], {'limit': 3})
        >>> read_call("search(open('x'))") is None
        True
    """
    try:
        tree = ast.parse(text.strip()[:_MOST], mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            return None
        args = [ast.literal_eval(one) for one in tree.args]
        named = {one.arg: ast.literal_eval(one.value) for one in tree.keywords if one.arg}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    if len(named) != len(tree.keywords):
        return None
    return tree.func.id, args, named


class Toolbox:
    """Functions by name.

    Args:
        functions: their names and docstrings are what an agent is told.

    Raises:
        ConfigError: two have one name, or one has no docstring.

    Examples:
        >>> def add(a: int, b: int) -> int:
        ...     "The sum of two numbers."
        ...     return a + b
        >>> tools = Toolbox([add])
        >>> tools.call("add(2, 3)")
        ('5', True)
        >>> tools.call("add(2)")
        ("add: missing a required argument: 'b'", False)
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        self._functions = {function.__name__: function for function in functions}
        if len(self._functions) != len(functions):
            raise ConfigError("two tools have one name: rename one.")
        for name, function in self._functions.items():
            if not inspect.getdoc(function):
                raise ConfigError(f"the tool '{name}' has no docstring, which tells what it does.")

    def describe(self) -> str:
        """A line for each: its signature and the first line of its docstring."""
        return "\n".join(
            f"{name}{inspect.signature(one)}: {(inspect.getdoc(one) or '').splitlines()[0]}"
            for name, one in self._functions.items()
        )

    def call(self, text: str) -> tuple[str, bool]:
        """What a call gives, as text, and whether it went well."""
        found = read_call(text)
        if found is None:
            return "This is no call. Write name(argument, ...) with literals.", False
        name, args, named = found
        function = self._functions.get(name)
        if function is None:
            return f"There is no tool '{name}'. Tools: {', '.join(self._functions)}.", False
        try:
            inspect.signature(function).bind(*args, **named)
        except TypeError as error:
            return f"{name}: {error}", False
        try:
            return str(function(*args, **named)), True
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}", False
