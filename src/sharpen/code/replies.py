"""What is code in the replies of language models."""

from __future__ import annotations

import ast
import re
import textwrap

__all__ = ["function_in"]

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


def function_in(reply: str, name: str) -> str | None:
    """The code in a reply that defines a function; None where there is none.

    Args:
        reply: of a language model: code between fences, or nothing but code.
        name: of the function.
    """
    blocks = _FENCE.findall(reply) or [reply]
    for block in reversed(blocks):
        try:
            tree = ast.parse(textwrap.dedent(block))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        if any(isinstance(one, kinds) and one.name == name for one in tree.body):
            return textwrap.dedent(block).strip("\n") + "\n"
    return None
