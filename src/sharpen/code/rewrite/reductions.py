"""Loops that add up, count, or keep the least or largest: the builtin that does it in C.

Only for whole numbers (and extremes of texts), for which no order of operations matters and no
operation fails. A range that might leave the list keeps its loop for that case.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.source import Edit

__all__ = [
    "COUNT_LOOP",
    "EXTREMES",
    "EXTREME_LOOP",
    "SUM_LOOP",
    "guarded",
    "over_part",
    "single_loops",
]

_SEQUENCES = frozenset({list, tuple})
_ITERABLES = _SEQUENCES | {set, frozenset, range}


def single_loops(code: Code) -> Iterator[ast.For]:
    """The loops whose body is one statement."""
    for statement in code.statements():
        if isinstance(statement, ast.For) and not statement.orelse and len(statement.body) == 1:
            yield statement


def over_part(code: Code, loop: ast.For, item: ast.expr) -> tuple[str, str | None] | None:
    """The text of what a loop runs over, where ``item`` is what it takes, and a condition for it.

    That is ``xs`` of ``for x in xs`` and ``xs[a:b]`` of ``for i in range(a, b)`` with ``xs[i]``.
    """
    if not isinstance(loop.target, ast.Name) or not code.is_unread(loop.target.id, [loop]):
        return None
    if isinstance(item, ast.Name) and item.id == loop.target.id:
        if isinstance(loop.iter, (ast.Name, ast.Subscript)) and (
            code.type(loop.iter).within(_ITERABLES)
        ):
            return code.text(loop.iter), None
        return None
    found = code.match("xs_[i_]", item)
    if not found or found["i_"] != loop.target.id:
        return _over_row(code, loop, item)
    box = found["xs_"]
    if not code.kinds.variable(box).within(_SEQUENCES) or box not in code.names.local:
        return None
    bounds = code.match_any(("range(A, B)",), loop.iter) or code.match("range(B)", loop.iter)
    if not bounds or box in binds([loop]) or box == loop.target.id:
        return None
    low, high = bounds.get("A"), bounds["B"]
    if not all(code.type(b).is_integer and code.effects.is_total(b) for b in (low, high) if b):
        return None
    first = "" if low is None else ast.unparse(low)
    if code.effects.is_length(high, box) and low is None:
        return box, None
    text = f"{box}[{first}:{ast.unparse(high)}]"
    if code.effects.is_index(loop.target.id, box, loop.body[0]) and (
        code.effects.is_length(high, box)
        or (isinstance(high, ast.Name) and code.effects.is_index(high.id, box, loop))
    ):
        return text, None  # other ends may be below 0, which a slice takes for another place
    tests = ["0", *(_compared(b) for b in (low, high) if b is not None)]
    if isinstance(high, ast.Call) and code.effects.is_length(high, box):
        tests.pop()
    else:
        tests.append(f"len({box})")
    return text, " <= ".join(tests)


def _over_row(code: Code, loop: ast.For, item: ast.expr) -> tuple[str, str] | None:
    """The same for ``table[i][j]`` with ``for j in range(a, b)``.

    The row is only asked for where the loop would ask for it.
    """
    found, bounds = code.match("ROW[j_]", item), code.match("range(A, B)", loop.iter)
    if not found or not bounds or found["j_"] not in binds([loop.target]):
        return None
    row, low, high = found["ROW"], bounds["A"], bounds["B"]
    steady = isinstance(row, ast.Subscript) and isinstance(row.value, ast.Name)
    if not steady or not code.type(row).within(_SEQUENCES) or loads([row]) & binds([loop]):
        return None
    if not all(code.type(b).is_integer and code.effects.is_total(b) for b in (low, high)):
        return None
    if not all(code.effects.keeps([loop], n) for n in loads([row]) & code.names.local):
        return None
    text, begin, end = ast.unparse(row), _compared(low), _compared(high)
    return f"{text}[{begin}:{end}]", f"0 <= {begin} < {end} <= len({text})"


def _compared(node: ast.expr) -> str:
    text = ast.unparse(node)
    return f"({text})" if isinstance(node, (ast.IfExp, ast.BoolOp, ast.Compare)) else text


def guarded(code: Code, loop: ast.For, line: str, test: str | None) -> Edit | None:
    """The line in the place of a loop; where a condition is needed, the loop is the other case."""
    if test is None:
        return code.replace([loop], [line])
    block = code.source.block([loop], "    ")
    return code.exchange([loop], [f"if {test}:", f"    {line}", "else:", *block]) if block else None


def _is_sum(code: Code, name: str, item: ast.expr, loop: ast.For) -> bool:
    return (
        code.kinds.variable(name).is_integer
        and code.type(item).is_integer
        and code.effects.is_steady(name)
        and code.is_bound_before(name, loop)
        and name not in loads([loop.iter, item])
    )


def _find_sums(code: Code) -> Iterator[Change]:
    if not (code.names.builtin("sum") and code.names.builtin("len")):
        return
    for loop in single_loops(code):
        found = code.match_any_block(("t_ += X", "t_ = t_ + X", "t_ = X + t_"), loop.body)
        if not found or not _is_sum(code, found["t_"], found["X"], loop):
            continue
        part = over_part(code, loop, found["X"])
        total = found["t_"]
        if part is not None:
            edit = guarded(code, loop, f"{total} += sum({part[0]})", part[1])
        elif (
            isinstance(loop.iter, ast.Name)
            and code.type(loop.iter).within(_ITERABLES | {str})
            and all(code.is_unread(n, [loop]) for n in binds([loop.target]))
            and code.effects.is_pure_expression(found["X"])
            and (code.effects.is_total(found["X"]) or not code.in_try(loop))
            and not code.effects.may_recurse(found["X"])
            and code.effects.keeps([found["X"]], loop.iter.id)
        ):
            text = f"{total} += sum($x for {code.text(loop.target)} in {loop.iter.id})"
            edit = code.replace([loop], [code.line(text, {"x": found["X"]})])
        else:
            continue
        if edit is not None:
            yield Change(f"lets sum add up {total}", (edit,))


SUM_LOOP = Rewriter(
    name="sum-loop",
    summary="a loop that adds whole numbers up: `sum`",
    risk="types",
    find=_find_sums,
    example=(
        """\
def total_of(xs):
    total = 0
    for x in xs:
        total += x
    return total
""",
        """\
def total_of(xs):
    total = 0
    total += sum(xs)
    return total
""",
    ),
)


def _find_counts(code: Code) -> Iterator[Change]:
    for loop in single_loops(code):
        found = code.match_any_block(
            ("if X == Y:\n c_ += 1", "if X == Y:\n c_ = c_ + 1"), loop.body
        )
        if not found or not code.kinds.variable(found["c_"]).is_integer:
            continue
        for item, value in ((found["X"], found["Y"]), (found["Y"], found["X"])):
            change = _count(code, loop, found["c_"], item, value)
            if change is not None:
                yield change


def _count(code: Code, loop: ast.For, count: str, item: ast.expr, value: ast.expr) -> Change | None:
    names = binds([loop.target])
    if (
        names & loads([value])
        or count in loads([value, item])
        or not (
            code.type(value).is_exact and code.type(item).is_exact and code.effects.is_total(value)
        )
    ):
        return None
    if not code.is_bound_before(count, loop):
        return None
    part = over_part(code, loop, item)
    if part is None or not code.effects.is_steady(count):
        return None
    if isinstance(item, ast.Name) and not code.type(loop.iter).within(_SEQUENCES):
        return None
    edit = guarded(code, loop, code.line(f"{count} += {part[0]}.count($x)", {"x": value}), part[1])
    return Change(f"lets the list count for {count}", (edit,)) if edit is not None else None


COUNT_LOOP = Rewriter(
    name="count-loop",
    summary="a loop that counts equal items: `count`",
    risk="types",
    find=_find_counts,
    example=(
        """\
def ones(xs):
    count = 0
    for x in xs:
        if x == 1:
            count += 1
    return count
""",
        """\
def ones(xs):
    count = 0
    count += xs.count(1)
    return count
""",
    ),
)

EXTREMES = {
    "max": (
        "if X > m_:\n m_ = X",
        "if m_ < X:\n m_ = X",
        "m_ = max(m_, X)",
        "m_ = max(X, m_)",
    ),
    "min": (
        "if X < m_:\n m_ = X",
        "if m_ > X:\n m_ = X",
        "m_ = min(m_, X)",
        "m_ = min(X, m_)",
    ),
}


def _find_extremes(code: Code) -> Iterator[Change]:
    for loop in single_loops(code):
        for what, patterns in EXTREMES.items():
            found = code.match_any_block(patterns, loop.body)
            if not found or not code.names.builtin(what):
                continue
            best, item = found["m_"], found["X"]
            kinds = (code.kinds.variable(best), code.type(item))
            if not any(all(k.only(t) for k in kinds) for t in (int, str)):
                continue
            if not code.is_bound_before(best, loop) or not code.effects.is_steady(best):
                continue
            part = over_part(code, loop, item)
            if part is None or best in loads([loop.iter, item]):
                continue
            line = f"{best} = {what}({best}, {what}({part[0]}, default={best}))"
            edit = guarded(code, loop, line, part[1])
            if edit is not None:
                yield Change(f"lets {what} find {best}", (edit,))


EXTREME_LOOP = Rewriter(
    name="extreme-loop",
    summary="a loop that keeps the least or largest: `min`, `max`",
    risk="types",
    find=_find_extremes,
    example=(
        """\
def largest(xs):
    best = xs[0]
    for x in xs:
        if x > best:
            best = x
    return best
""",
        """\
def largest(xs):
    best = xs[0]
    best = max(best, max(xs, default=best))
    return best
""",
    ),
)
