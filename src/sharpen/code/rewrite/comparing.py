"""The larger or smaller of a few values in a loop: compared in place, without a call.

``max(a, b)`` gives ``a`` unless ``b > a`` holds, and ``min(a, b)`` gives ``a`` unless ``b < a``
(the Python Language Reference, built-in functions): of equal values, and where a comparison with
NaN does not hold, the first. A call of a builtin costs some times as much as a comparison, which
tells in the inner loops of dynamic programs.

Values are evaluated in the order in which they stand, each once. Two are compared as the builtin
compares them; of more than two the comparisons come between the values, so that they must be
numbers, which can always be compared.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.pattern import same
from sharpen.code.rewrite.source import Edit
from sharpen.code.rewrite.types import MAPPINGS

__all__ = ["EXTREME_STEP"]

_SIGNS = {"max": ">", "min": "<"}
_NAMES = {"max": "most", "min": "least"}
_MOST = 4  # values: more are better left to the builtin
_KEEPERS = frozenset({list}) | MAPPINGS


def _find(code: Code) -> Iterator[Change]:
    edits: list[Edit] = []
    for statement in code.statements():
        if not isinstance(statement, (ast.Assign, ast.Return)) or statement.value is None:
            continue
        call = statement.value
        what = code.names.stands_for(call.func) if isinstance(call, ast.Call) else None
        if what not in _SIGNS or not code.loops(statement) or not isinstance(call, ast.Call):
            continue
        values = call.args
        if call.keywords or not 2 <= len(values) <= _MOST or not _are_plain(code, values):
            continue
        if isinstance(statement, ast.Assign) and len(statement.targets) != 1:
            continue
        edit = code.replace([statement], _lines(code, what, statement, values))
        if edit is not None:
            edits.append(edit)
    if edits:
        yield Change("compares values in place of calls of max and min", tuple(edits))


def _are_plain(code: Code, values: Sequence[ast.expr]) -> bool:
    for value in values:
        if isinstance(value, ast.Starred) or binds([value]):
            return False
        if any(isinstance(n, (ast.Yield, ast.YieldFrom, ast.Await)) for n in ast.walk(value)):
            return False
    return len(values) == 2 or all(code.type(value).is_number for value in values)


def _lines(
    code: Code, what: str, statement: ast.Assign | ast.Return, values: Sequence[ast.expr]
) -> list[str] | None:
    sign, best = _SIGNS[what], code.names.fresh(_NAMES[what])
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    first, *rest = values
    if target is not None and len(rest) == 1 and _stays(code, target, first):
        return _step(code, sign, target, rest[0])
    lines = [code.line(f"{best} = $x", {"x": first})]
    for value in rest:
        name = code.names.fresh("other")
        lines += [
            code.line(f"{name} = $x", {"x": value}),
            f"if {name} {sign} {best}:",
            f"    {best} = {name}",
        ]
    if target is None:
        return [*lines, f"return {best}"]
    return [*lines, code.line(f"$t = {best}", {"t": target})]


def _stays(code: Code, target: ast.expr, first: ast.expr) -> bool:
    """Whether nothing happens where a target is bound to the value that it has.

    That is a variable of the function, or a place of a list or dict that can be read once more.
    """
    if not same(target, first):
        return False
    if isinstance(target, ast.Name):
        return target.id in code.names.local and target.id not in code.names.captured
    if not isinstance(target, ast.Subscript) or isinstance(target.slice, ast.Slice):
        return False
    names = all(
        isinstance(n, (ast.Name, ast.Subscript, ast.BinOp, ast.Constant, ast.operator))
        for n in ast.walk(target)
        if not isinstance(n, ast.expr_context)
    )
    return (
        names
        and code.type(target.value).within(_KEEPERS)
        and code.type(target).is_number
        and not loads([target]) & code.names.captured
    )


def _step(code: Code, sign: str, target: ast.expr, value: ast.expr) -> list[str] | None:
    if isinstance(value, (ast.Name, ast.Constant)) and isinstance(target, ast.Name):
        return [
            code.line(f"if $x {sign} $t:", {"x": value, "t": target}),
            code.line("    $t = $x", {"x": value, "t": target}),
        ]
    name = code.names.fresh("other")
    if isinstance(target, ast.Name):
        # A local keeps its value while the other is evaluated.
        return [
            code.line(f"{name} = $x", {"x": value}),
            code.line(f"if {name} {sign} $t:", {"t": target}),
            code.line(f"    $t = {name}", {"t": target}),
        ]
    best = code.names.fresh("most" if sign == ">" else "least")
    return [
        code.line(f"{best} = $t", {"t": target}),
        code.line(f"{name} = $x", {"x": value}),
        f"if {name} {sign} {best}:",
        code.line(f"    $t = {name}", {"t": target}),
    ]


EXTREME_STEP = Rewriter(
    name="extreme-step",
    summary="`max` or `min` of a few values in a loop: a comparison in place of a call",
    risk="types",
    find=_find,
    example=(
        """\
def most_robbed(houses):
    last = now = 0
    for house in houses:
        last, before = now, last
        now = max(now, before + house)
    return now
""",
        """\
def most_robbed(houses):
    last = now = 0
    for house in houses:
        last, before = now, last
        other = before + house
        if other > now:
            now = other
    return now
""",
    ),
)
