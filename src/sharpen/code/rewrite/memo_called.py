"""Recursive functions that another one calls: a table of results for as long as that one runs.

As in :mod:`sharpen.code.rewrite.memo`, where it is not the function itself that meets the same
arguments again, but one of the module that it calls, such as a helper that does the recursion. The
helper stays as it is for all others; the caller has a copy inside of itself, whose table serves all
of its calls.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.facts import Facts
from sharpen.code.rewrite.memo import (
    is_key,
    is_result,
    is_simple,
    keep_results,
    key_of,
    reads_what_stays,
    returns_of,
)
from sharpen.code.rewrite.names import binds, loads, parameters
from sharpen.code.rewrite.source import Source
from sharpen.code.rewrite.types import kind_from

__all__ = ["MEMO_CALLED"]


def _find(code: Code) -> Iterator[Change]:
    body = code.function.body
    if ast.get_docstring(code.function) is not None:
        body = body[1:]
    if not body:
        return
    for name, bound in code.names.module.items():
        helper = bound[0]
        if (
            len(bound) != 1
            or not isinstance(helper, ast.FunctionDef)
            or helper is code.function
            or code.names.has_star
            or not _is_called(code, helper)
        ):
            continue
        lines = _copy(code, helper)
        edit = code.before(body[0], lines)
        if edit is not None:
            yield Change(f"remembers the results of {name} while the function runs", (edit,))


def _is_called(code: Code, helper: ast.FunctionDef) -> bool:
    """Whether a function is called by the one that is looked at, in a plain way, and nothing else.

    What it reads must mean the same inside of that one.
    """
    if helper.name in code.names.local:
        return False
    uses = [n for n in ast.walk(code.function) if isinstance(n, ast.Name) and n.id == helper.name]
    for use in uses:
        call = code.effects.parent(use)
        if not isinstance(call, ast.Call) or call.func is not use or call.keywords:
            return False
        if len(call.args) != len(parameters(helper)):
            return False
        if any(isinstance(one, ast.Starred) for one in call.args):
            return False
    own = {*parameters(helper), *binds(helper.body), helper.name}
    return bool(uses) and not (loads(helper.body) - own) & code.names.local


def _copy(code: Code, helper: ast.FunctionDef) -> list[str] | None:
    """A function inside, with a table, that does what a function of the module does."""
    names = parameters(helper)
    types = {name: code.kinds.parameter(helper, name) for name in names}
    if not all(is_key(one) for one in types.values()):
        return None
    source = Source(code.source.text, code.source.tree, helper, helper.name)
    inner = Code(source, Facts({name: kind_from(one) for name, one in types.items()}))
    if not inner.is_plain or inner.is_generator or not is_simple(inner, helper):
        return None
    if not is_result(inner.kinds.result(helper)) or not reads_what_stays(inner, helper):
        return None
    returns = returns_of(helper)
    body = helper.body[1:] if ast.get_docstring(helper) is not None else helper.body
    if returns is None or not body:
        return None
    table, key = code.names.fresh("known"), key_of(names)
    kept = keep_results(inner, returns, key, table)
    lines = inner.shifted(body, kept, "    ") if kept is not None else None
    if lines is None:
        return None
    return [
        f"{table} = {{}}",
        "",
        f"def {helper.name}({', '.join(names)}):",
        f"    if {key} in {table}:",
        f"        return {table}[{key}]",
        *lines,
        "",
    ]


MEMO_CALLED = Rewriter(
    name="memo-called",
    summary="a pure function that calls itself again with the same arguments, and is called: a copy"
    " with a table of results",
    risk="memory",
    find=_find,
    example=(
        """\
def distance(a, b):
    return len(a) + len(b) - 2 * common(a, b, len(a), len(b))


def common(a, b, i, j):
    if i == 0 or j == 0:
        return 0
    if a[i - 1] == b[j - 1]:
        return 1 + common(a, b, i - 1, j - 1)
    return max(common(a, b, i - 1, j), common(a, b, i, j - 1))
""",
        """\
def distance(a, b):
    known = {}

    def common(a, b, i, j):
        if (a, b, i, j) in known:
            return known[(a, b, i, j)]
        if i == 0 or j == 0:
            return 0
        if a[i - 1] == b[j - 1]:
            found = known[(a, b, i, j)] = 1 + common(a, b, i - 1, j - 1)
            return found
        found = known[(a, b, i, j)] = max(common(a, b, i - 1, j), common(a, b, i, j - 1))
        return found

    return len(a) + len(b) - 2 * common(a, b, len(a), len(b))


def common(a, b, i, j):
    if i == 0 or j == 0:
        return 0
    if a[i - 1] == b[j - 1]:
        return 1 + common(a, b, i - 1, j - 1)
    return max(common(a, b, i - 1, j), common(a, b, i, j - 1))
""",
    ),
)
