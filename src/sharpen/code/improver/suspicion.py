"""What a proposed text may not contain, since it could look right without being so.

A test of equal results sees what a program gives for the inputs that are tried. Code that looks at
its callers, at the tests, or that holds the expected results as constants passes it without doing
the work; code that remembers results in its module is fast the second time alone.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from typing import Any

from sharpen.code.improver.target import functions_of, parameters_of

__all__ = ["complaint", "imports_of", "suspicions"]

SAFE_IMPORTS = frozenset(
    {
        *("__future__", "array", "bisect", "collections", "contextlib", "copy", "dataclasses"),
        *("decimal", "enum", "fractions", "functools", "heapq", "itertools", "math", "operator"),
        *("re", "statistics", "string", "struct", "typing", "types"),
    }
)
"""Modules of the standard library that a proposal may import."""

_FORBIDDEN = {
    **dict.fromkeys(("exec", "eval", "compile", "__import__", "open", "input"), "a call of {}()"),
    **dict.fromkeys(("globals", "locals", "vars", "setattr", "delattr"), "a call of {}()"),
}
_ATTRIBUTES = frozenset(
    {
        *("_getframe", "f_back", "f_locals", "f_globals", "f_code", "tb_frame", "gi_frame"),
        *("settrace", "setprofile", "__globals__", "__closure__", "__code__", "__builtins__"),
        *("__subclasses__", "get_objects", "get_referrers", "modules", "__dict__", "cr_frame"),
    }
)
_LARGE = 40  # characters of a result's text from which a constant of it is no coincidence


def imports_of(tree: ast.AST) -> set[str]:
    """Top-level names of the modules that a text imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").partition(".")[0])
    return found


def complaint(old: str, new: str, entry: str, allow: Collection[str]) -> str | None:
    """Why a text may not stand for a module at all; None where it may.

    Args:
        old: the module as it is.
        new: as it is proposed.
        entry: the function.
        allow: packages that it may import beside those that the module imports.
    """
    try:
        tree = ast.parse(new.removeprefix("\ufeff"))
        compile(tree, "<proposal>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"it is no Python: {error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it cannot be compiled: {error}"
    before = ast.parse(old.removeprefix("\ufeff"))
    functions, known = functions_of(tree), functions_of(before)
    if entry not in functions:
        return f"it does not define '{entry}'"
    (node, _), (original, _) = functions[entry], known[entry]
    if type(node) is not type(original):
        return "it is async where the original is not, or the other way round"
    if _signature(node) != _signature(original):
        return f"its arguments are ({ast.unparse(node.args)}), not ({ast.unparse(original.args)})"
    gone = [name for name in known if name not in functions]
    if gone:
        return f"it lacks '{gone[0]}', which the module defines"
    added = imports_of(tree) - imports_of(before) - set(allow) - SAFE_IMPORTS
    if added:
        names = ", ".join(sorted(added))
        return f"it imports {names}, which is not allowed (--allow {names})"
    return None


def _signature(node: Any) -> list[tuple[str, int, str]]:
    return [(one.name, int(one.kind), repr(one.default)) for one in parameters_of(node)]


def suspicions(old: str, new: str, expected: Sequence[Any]) -> list[str]:
    """What in a text of a language model's could deceive a test.

    Args:
        old: the module as it is; what it holds already counts for nothing.
        new: as it is proposed.
        expected: results that are known.
    """
    before = ast.parse(old.removeprefix("\ufeff"))
    tree = ast.parse(new.removeprefix("\ufeff"))
    mine, its = _marks(tree), _marks(before)
    found = [text for key, text in mine.items() if key not in its]
    found += _constants(before, tree, expected)
    return found + _module_caches(before, tree)


def _marks(tree: ast.AST) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name in _FORBIDDEN:
                found[name] = f"line {node.lineno}: {_FORBIDDEN[name].format(name)}"
        elif isinstance(node, ast.Attribute) and node.attr in _ATTRIBUTES:
            found[node.attr] = f"line {node.lineno}: it reads .{node.attr}"
        elif isinstance(node, (ast.Global, ast.Nonlocal)) and isinstance(node, ast.Global):
            found[f"global {node.names}"] = f"line {node.lineno}: global {', '.join(node.names)}"
    return found


def _constants(before: ast.AST, tree: ast.AST, expected: Sequence[Any]) -> list[str]:
    known = {ast.dump(one) for one in ast.walk(before) if isinstance(one, _LITERALS)}
    results = {repr(one) for one in expected}
    results = {text for text in results if len(text) >= _LARGE}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, _LITERALS) or ast.dump(node) in known:
            continue
        try:
            text = repr(ast.literal_eval(node))
        except (ValueError, TypeError, SyntaxError, RecursionError):
            continue
        if text in results:
            found.append(f"line {node.lineno}: a constant is a result that is expected")
    return found


_LITERALS = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set)


def _module_caches(before: ast.Module, tree: ast.Module) -> list[str]:
    """Variables of the module that hold containers and were not there."""
    known = {ast.dump(one) for one in before.body}
    found = []
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or ast.dump(node) in known:
            continue
        if isinstance(node.value, (ast.Dict, ast.List, ast.Set, ast.Call, ast.DictComp)):
            found.append(f"line {node.lineno}: a variable of the module that could keep results")
    return found
