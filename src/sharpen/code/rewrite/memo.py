"""Recursion that meets the same arguments again: a table of what is known (memoization).

D. Michie, "Memo" functions and machine learning, Nature 218, 1968. The table lives as long as the
outermost call, and the function calls itself directly, so that depth and memory are those of the
recursion (``functools.cache`` would take a second level of the interpreter's stack for each call
and keep all results forever).

The function must change nothing and return what cannot be changed; its arguments must be of one
class each that can be a key (with 1 and True, or 0.0 and -0.0, the first would answer for both).
Lists become tuples where the function only reads their items and slices them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads, parameters, same_scope
from sharpen.code.rewrite.source import Edit, Function
from sharpen.code.rewrite.types import Type

__all__ = [
    "MEMO",
    "is_key",
    "is_result",
    "is_simple",
    "keep_results",
    "key_of",
    "reads_what_stays",
    "returns_of",
]

_EXPLAIN = "remembers the results of its own calls, which meet the same arguments again and again"


def is_key(kind: Type) -> bool:
    """Whether equal values of a type are of one class, at any depth."""
    if kind.anything or not kind.names:
        return False
    if not kind.names <= {int, bool, str, bytes, tuple, type(None)}:
        return False
    if {int, bool} <= kind.names:
        return False
    return (
        tuple not in kind.names
        or kind.items is None
        or is_key(kind.items)
        or (not kind.items.names and not kind.items.anything)
    )


def is_result(kind: Type) -> bool:
    """Whether values of a type can be given out twice."""
    if kind.anything or not kind.names:
        return False
    known = {int, bool, float, str, bytes, tuple, type(None), complex}
    inner = tuple not in kind.names or kind.items is None or is_result(kind.items)
    return kind.names <= known and inner


def _own_calls(function: Function) -> list[ast.Call]:
    return [
        n
        for n in same_scope(function.body)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Name)
        and n.func.id == function.name
        and not n.keywords
        and not any(isinstance(a, ast.Starred) for a in n.args)
    ]


def _branches(code: Code, function: Function, calls: list[ast.Call]) -> bool:
    """Whether one call may make two: two of them in the text, or one in a loop."""
    if len(calls) > 1:
        return True
    at = code.effects.parent(calls[0]) if calls else None
    while at is not None and at is not function:
        if isinstance(at, (ast.For, ast.While, ast.ListComp, ast.GeneratorExp, ast.SetComp)):
            return True
        at = code.effects.parent(at)
    return False


def is_simple(code: Code, function: Function) -> bool:
    """Whether a function is pure, calls itself more than once, and is nothing else than that."""
    a = function.args
    if a.vararg or a.kwarg or a.kwonlyargs or a.posonlyargs or a.defaults:
        return False
    if function.decorator_list or isinstance(function, ast.AsyncFunctionDef):
        return False
    names = parameters(function)
    inner_scopes = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.AsyncFunctionDef)
    if not names or any(isinstance(n, inner_scopes) for n in same_scope(function.body)):
        return False
    if set(names) & binds(function.body) or function.name in binds(function.body):
        return False
    calls = _own_calls(function)
    uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == function.name]
    if len(uses) != len(calls) or any(len(c.args) != len(names) for c in calls):
        return False
    return _branches(code, function, calls) and code.effects.is_pure(function)


def _only_sliced(code: Code, function: Function, name: str, at: int) -> bool:
    """Whether a list parameter is only read, and passed on as itself or its slices."""
    for node in ast.walk(function):
        if not (isinstance(node, ast.Name) and node.id == name):
            continue
        parent = code.effects.parent(node)
        if isinstance(parent, ast.Subscript) and parent.value is node:
            if not isinstance(parent.slice, ast.Slice):
                continue
            node, parent = parent, code.effects.parent(parent)
        if isinstance(parent, ast.Call):
            what = code.names.stands_for(parent.func)
            if what in ("len", "sum", "min", "max", "any", "all", "enumerate", "zip", "sorted"):
                continue
            if parent in _own_calls(function) and parent.args[at : at + 1] == [node]:
                continue
            return False
        if isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not):
            continue
        if isinstance(parent, (ast.For, ast.comprehension)) and parent.iter is node:
            continue
        if isinstance(parent, (ast.If, ast.IfExp, ast.While)) and parent.test is node:
            continue
        if isinstance(parent, ast.Compare) and isinstance(node, ast.Name):
            if all(isinstance(o, (ast.In, ast.NotIn)) for o in parent.ops) and (
                parent.left is not node
            ):
                continue
            return False
        if isinstance(parent, ast.BoolOp) and _is_tested(code, parent):
            continue
        return False
    return True


def _is_tested(code: Code, node: ast.AST) -> bool:
    """Whether only the truth of an expression matters."""
    parent = code.effects.parent(node)
    if isinstance(parent, (ast.If, ast.While, ast.IfExp)):
        return parent.test is node
    if isinstance(parent, ast.UnaryOp):
        return isinstance(parent.op, ast.Not)
    return isinstance(parent, ast.BoolOp) and _is_tested(code, parent)


def returns_of(function: Function) -> list[ast.Return] | None:
    """The returns whose results are worth keeping; None where one gives none, or the end is met."""
    calls = _own_calls(function)
    first = min((c.lineno, c.col_offset) for c in calls)
    found = []
    for node in same_scope(function.body):
        if isinstance(node, ast.Return):
            if node.value is None:
                return None
            if (node.end_lineno or 0, node.end_col_offset or 0) > first:
                found.append(node)
    last = function.body[-1]
    return found if isinstance(last, (ast.Return, ast.Raise, ast.If)) and found else None


def keep_results(code: Code, returns: list[ast.Return], key: str, table: str) -> list[Edit] | None:
    """What puts results into a table before they are returned; None where lines are shared."""
    edits = []
    found = code.names.fresh("found")
    for node in returns:
        assert node.value is not None
        if isinstance(node.value, (ast.Constant, ast.Name)):
            lines = [code.line(f"{table}[{key}] = $x", {"x": node.value}), code.text(node)]
        else:
            lines = [
                code.line(f"{found} = {table}[{key}] = $x", {"x": node.value}),
                f"return {found}",
            ]
        edit = code.replace([node], lines)
        if edit is None:
            return None
        edits.append(edit)
    return edits


def key_of(names: list[str]) -> str:
    """Parameters as a key."""
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def _find(code: Code) -> Iterator[Change]:
    for statement in code.function.body:
        if isinstance(statement, ast.FunctionDef) and is_simple(code, statement):
            change = _remember_inside(code, statement)
            if change is not None:
                yield change
    if (
        isinstance(code.function, ast.FunctionDef)
        and "." not in code.source.entry
        and is_simple(code, code.function)
    ):
        change = _remember(code)
        if change is not None:
            yield change


def reads_what_stays(code: Code, function: Function) -> bool:
    """Whether all that a function reads beside its parameters stays the same."""
    outer = loads(function.body) - set(parameters(function)) - binds(function.body)
    outer.discard(function.name)
    for name in outer:
        if code.names.builtin(name) or name in code.names.imported:
            continue
        if name in code.names.local and function is not code.function:
            if not code.effects.keeps(code.function.body, name) and not _is_settled(code, name):
                return False
        elif name in code.names.local or not code.kinds.constant(name).is_hashable:
            return False
    return True


def _is_settled(code: Code, name: str) -> bool:
    """Whether a local is bound once, at the top of the function, to what is not changed later."""
    body = code.function.body
    at = [i for i, s in enumerate(body) if name in binds([s])]
    return (
        len(at) == 1
        and isinstance(body[at[0]], (ast.Assign, ast.AnnAssign))
        and code.effects.keeps(body[at[0] + 1 :], name)
    )


def _remember_inside(code: Code, function: ast.FunctionDef) -> Change | None:
    """A table beside a function inside; it only lives in one call of the outer one."""
    names = parameters(function)
    types = [code.kinds.parameter(function, n) for n in names]
    if not (
        code.is_only_called(function)
        and all(is_key(t) for t in types)
        and is_result(code.kinds.result(function))
        and reads_what_stays(code, function)
    ):
        return None
    returns = returns_of(function)
    if returns is None:
        return None
    table = code.names.fresh("known")
    key = key_of(names)
    skip = ast.get_docstring(function) is not None
    edits: list[Edit | None] = [
        code.before(function, [f"{table} = {{}}"]),
        code.before(
            function.body[1 if skip else 0], [f"if {key} in {table}:", f"    return {table}[{key}]"]
        ),
    ]
    kept = keep_results(code, returns, key, table)
    if kept is None or not all(edits):
        return None
    return Change(_EXPLAIN, tuple(e for e in (*edits, *kept) if e is not None))


def _remember(code: Code) -> Change | None:
    """The function as one inside itself, with a table."""
    function = code.function
    assert isinstance(function, ast.FunctionDef)
    names = parameters(function)
    as_tuples = []
    for i, name in enumerate(names):
        kind = code.kinds.variable(name)
        if kind.only(list, tuple) and not kind.only(tuple):
            items = code.kinds.items_of(name)
            if not (is_key(items) and _only_sliced(code, function, name, i)):
                return None
            as_tuples.append(name)
        elif not is_key(kind):
            return None
    if not is_result(code.kinds.result(function)) or not reads_what_stays(code, function):
        return None
    returns = returns_of(function)
    body = function.body
    inner = body[1:] if ast.get_docstring(function) is not None else body
    if returns is None or not inner:
        return None
    table = code.names.fresh("known")
    key = key_of(names)
    kept = keep_results(code, returns, key, table)
    lines = code.shifted(inner, kept, "    ") if kept is not None else None
    if lines is None:
        return None
    call = ", ".join(f"tuple({n})" if n in as_tuples else n for n in names)
    text = [
        f"{table} = {{}}",
        "",
        f"def {function.name}({', '.join(names)}):",
        f"    if {key} in {table}:",
        f"        return {table}[{key}]",
        *lines,
        "",
        f"return {function.name}({call})",
    ]
    return Change(_EXPLAIN, (code.exchange(inner, text),))


MEMO = Rewriter(
    name="memo",
    summary="a pure function that calls itself again with the same arguments: a table of results",
    risk="memory",
    find=_find,
    example=(
        """\
def fibonacci(n):
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)
""",
        """\
def fibonacci(n):
    known = {}

    def fibonacci(n):
        if n in known:
            return known[n]
        if n < 2:
            return n
        found = known[n] = fibonacci(n - 1) + fibonacci(n - 2)
        return found

    return fibonacci(n)
""",
    ),
)
