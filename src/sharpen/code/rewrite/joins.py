"""Loops in loops that look for equal values: a hash join.

``for x in xs: for y in ys: if x == y: ...`` compares all pairs. A table of where each value stands
in ``ys``, built once, gives the same pairs in the same order (a hash join; Knuth, The Art of
Computer Programming, volume 3, 6.4), and so it does for ``x + y == target`` and other sums of whole
numbers. Where the second loop starts behind the first (``range(i + 1, n)``, ``xs[i + 1:]``), each
place leaves the table when the first loop comes to it.

Time O(n + m + pairs found) instead of O(n m); memory O(m).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.linear import Equation, conjuncts, put_names, solve
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.source import Edit

__all__ = ["NESTED_JOIN"]

_SEQUENCES = frozenset({list, tuple, str, range})
_EXPLAIN = "looks pairs up in a table of values instead of comparing all of them"


@dataclass(frozen=True, slots=True)
class _Outer:
    """The first loop.

    Args:
        index: its variable that counts places of ``box``; None where it has none.
        item: its variable that holds the items.
        box: the name of the sequence; None where it is another.
    """

    index: str | None
    item: str | None
    box: str | None


@dataclass(frozen=True, slots=True)
class _Inner:
    """The second loop; arguments as above.

    Args:
        behind: whether it runs over the places behind the first loop's.
    """

    index: str | None
    item: str | None
    box: str
    behind: bool

    @property
    def variables(self) -> set[str]:
        """What it binds."""
        return {name for name in (self.index, self.item) if name is not None}


def _outer(code: Code, target: ast.expr, source: ast.expr, at: ast.AST) -> _Outer:
    if isinstance(target, ast.Name):
        if isinstance(source, ast.Name):
            return _Outer(None, target.id, source.id)
        box = _counted(code, source, at)
        return _Outer(target.id, None, box)
    found = code.match("enumerate(XS)", source)
    if found and isinstance(target, ast.Tuple) and len(target.elts) == 2:
        i, x = target.elts
        if (
            isinstance(i, ast.Name)
            and isinstance(x, ast.Name)
            and isinstance(found["XS"], ast.Name)
        ):
            return _Outer(i.id, x.id, found["XS"].id)
    return _Outer(None, None, None)


def _counted(code: Code, source: ast.expr, at: ast.AST) -> str | None:
    """The sequence whose places, all or all but the last ones, a range counts from 0 on."""
    found = code.match_any(("range(N)", "range(0, N)"), source)
    if not found:
        return None
    length = found["N"]
    if (
        isinstance(length, ast.BinOp)
        and isinstance(length.op, ast.Sub)
        and isinstance(length.right, ast.Constant)
    ):
        length = length.left
    return _sequence_of(code, length)


def _sequence_of(code: Code, length: ast.expr) -> str | None:
    """The name of the sequence that a number is the length of."""
    for name in sorted(code.names.local):
        if code.kinds.variable(name).within(_SEQUENCES) and code.effects.is_length(length, name):
            return name
    return None


def _inner(code: Code, target: ast.expr, source: ast.expr, outer: _Outer) -> _Inner | None:
    index = target.id if isinstance(target, ast.Name) else None
    pair = (
        [e.id for e in target.elts if isinstance(e, ast.Name)]
        if isinstance(target, ast.Tuple)
        else []
    )
    if index is not None:
        found = code.match_any(("range(N)", "range(0, N)"), source)
        if found and (box := _sequence_of(code, found["N"])):
            return _Inner(index, None, box, behind=False)
        found = code.match_any(("range(i_ + 1, N)", "range(1 + i_, N)"), source)
        if found and found["i_"] == outer.index:
            box = _sequence_of(code, found["N"])
            return _Inner(index, None, box, behind=True) if box and box == outer.box else None
        if isinstance(source, ast.Name):
            return _Inner(None, index, source.id, behind=False)
        found = code.match_any(("XS[i_ + 1:]", "XS[1 + i_:]"), source)
        if found and found["i_"] == outer.index and isinstance(found["XS"], ast.Name):
            same = found["XS"].id == outer.box
            return _Inner(None, index, found["XS"].id, behind=True) if same else None
    if len(pair) == 2 and isinstance(target, ast.Tuple) and len(target.elts) == 2:
        found = code.match("enumerate(XS)", source)
        if found and isinstance(found["XS"], ast.Name):
            return _Inner(pair[0], pair[1], found["XS"].id, behind=False)
        found = code.match_any(
            (
                "enumerate(XS[i_ + 1:], i_ + 1)",
                "enumerate(XS[i_ + 1:], start=i_ + 1)",
            ),
            source,
        )
        if found and found["i_"] == outer.index and isinstance(found["XS"], ast.Name):
            same = found["XS"].id == outer.box
            return _Inner(pair[0], pair[1], found["XS"].id, behind=True) if same else None
    return None


@dataclass(frozen=True, slots=True)
class _Join:
    """What both loops have in common with a table."""

    inner: _Inner
    equation: Equation
    rest: list[ast.expr]
    before: int  # how many conditions of ``rest`` stand before the equation


def _find_equation(
    code: Code, inner: _Inner, test: ast.expr, kept: list[ast.AST], changed: set[str]
) -> _Join | None:
    """The first condition that a table answers.

    Args:
        code: the function.
        inner: the second loop.
        test: its condition.
        kept: code, after the table is built, in which the sequence must stay as it is.
        changed: names bound in the first loop before the second.
    """
    box = inner.box
    if not code.kinds.variable(box).within(_SEQUENCES) or not code.effects.keeps(kept, box):
        return None
    parts = conjuncts(test)
    for i, part in enumerate(parts):
        equation = solve(code, part, inner.variables, changed)
        if equation is not None:
            steady = loads([equation.key]) - inner.variables
            if (
                not steady & binds(kept)
                and all(name in code.names.local or code.names.builtin(name) for name in steady)
                and all(code.effects.keeps(kept, n) for n in steady if n in code.names.local)
                and _terms_total(code, part)
            ):
                return _Join(inner, equation, [*parts[:i], *parts[i + 1 :]], i)
        if not code.effects.is_total(part):
            return None
    return None


def _terms_total(code: Code, part: ast.expr) -> bool:
    return isinstance(part, ast.Compare) and all(
        code.effects.is_total(side) for side in (part.left, *part.comparators)
    )


def _find_loops(code: Code) -> Iterator[Change]:
    for outer_loop in code.statements():
        if not isinstance(outer_loop, ast.For) or outer_loop.orelse:
            continue
        for i, inner_loop in enumerate(outer_loop.body):
            if isinstance(inner_loop, ast.For) and not inner_loop.orelse:
                change = _change_loops(code, outer_loop, i, inner_loop)
                if change is not None:
                    yield change


def _condition(
    code: Code, body: list[ast.stmt]
) -> tuple[ast.expr, list[ast.stmt], list[ast.stmt]] | None:
    """The test that all of a loop's body is under, and what is done where it holds."""
    if len(body) == 1 and isinstance(body[0], ast.If) and not body[0].orelse:
        return body[0].test, body[0].body, body
    return None


def _change_loops(code: Code, loop: ast.For, at: int, second: ast.For) -> Change | None:
    outer = _outer(code, loop.target, loop.iter, loop)
    inner = _inner(code, second.target, second.iter, outer)
    condition = _condition(code, second.body)
    if inner is None or condition is None:
        return None
    test, action, _ = condition
    changed = binds([loop.target, *loop.body]) - inner.variables
    join = _find_equation(code, inner, test, list(loop.body), changed)
    if join is None or not all(code.is_unread(v, [second]) for v in inner.variables):
        return None
    probe = join.equation.probe
    if loads([probe]) & binds(second.body) or not all(
        code.effects.keeps(second.body, n) for n in loads([probe]) & code.names.local
    ):
        return None
    if inner.variables & (binds(loop.body[:at]) | binds([loop.target])) or (
        inner.variables & binds(second.body)
    ):
        return None
    if inner.behind and (
        outer.index is None
        or outer.index in binds(loop.body)
        or not code.effects.keeps(loop.body, inner.box)
    ):
        return None
    locals_read = (loads([join.equation.key]) | {inner.box}) & code.names.local - inner.variables
    if not all(code.is_bound_before(n, loop) for n in locals_read):
        return None
    return _write_loops(code, loop, outer, join, second, action)


def _write_loops(
    code: Code,
    loop: ast.For,
    outer: _Outer,
    join: _Join,
    second: ast.For,
    action: list[ast.stmt],
) -> Change | None:
    inner, key, probe = join.inner, join.equation.key, join.equation.probe
    table = code.names.fresh("later" if inner.behind else "places")
    used = loads([*action, *join.rest])
    by_value = inner.index is None or inner.index not in used | loads([key])
    place = inner.index or code.names.fresh("place")
    item = inner.item
    if by_value and (item is None):
        by_value = False
    parts: dict[str, str] = {"t": table, "j": place, "xs": inner.box, "probe": ast.unparse(probe)}
    if by_value:
        assert item is not None
        parts["y"] = item
        parts["key"] = ast.unparse(key)
        over = f"reversed({inner.box})" if inner.behind else inner.box
        build = ["$t = {}", f"for $y in {over}:", "    $t.setdefault($key, []).append($y)"]
        target = item
    else:
        text = put_names(key, **({item: f"{inner.box}[{place}]"} if item else {}))
        parts["key"] = text
        span = (
            f"range(len({inner.box}) - 1, -1, -1)" if inner.behind else f"range(len({inner.box}))"
        )
        build = ["$t = {}", f"for $j in {span}:", "    $t.setdefault($key, []).append($j)"]
        target = place
    build = [code.line(x, dict(parts)) for x in build]
    edits: list[Edit | None] = [code.before(loop, build)]
    if inner.behind:
        assert outer.index is not None
        here = outer.item or f"{inner.box}[{outer.index}]"
        names = {inner.index: outer.index} if inner.index else {}
        if item:
            names[item] = here
        gone = f"{table}[{put_names(key, **names)}].pop()"
        edits.append(code.before(loop.body[0], [gone]))
    found = f"{table}.get({parts['probe']}, ())"
    count = _counted_action(code, action, loop) if not join.rest else None
    if count is not None:
        edits.append(code.replace([second], [f"{count} += len({found})"]))
    else:
        over = f"reversed({found})" if inner.behind else found
        lines = [f"for {target} in {over}:"]
        if not by_value and item is not None and item in used:
            lines.append(f"    {item} = {inner.box}[{place}]")
        rest = " and ".join(
            f"({code.text(x)})" if isinstance(x, (ast.BoolOp, ast.IfExp)) else code.text(x)
            for x in join.rest
        )
        shift = "    "
        if rest:
            lines.append(f"    if {rest}:")
            shift = "        "
        body = code.source.block(action, shift)
        if body is None:
            return None
        edits.append(code.replace([second], lines + body))
    if any(e is None for e in edits):
        return None
    return Change(_EXPLAIN, tuple(e for e in edits if e is not None))


def _counted_action(code: Code, action: list[ast.stmt], loop: ast.For) -> str | None:
    """The counter that is raised by one for each pair, and nothing else is done."""
    found = code.match_block("c_ += 1", action)
    if found and code.kinds.variable(found["c_"]).is_integer:
        name: str = found["c_"]
        if code.is_bound_before(name, loop):
            return name
    return None


NESTED_JOIN = Rewriter(
    name="hash-join",
    summary="a loop in a loop that looks for pairs: a table of values",
    risk="types",
    find=_find_loops,
    example=(
        """\
def pairs_with_sum(xs, target):
    out = []
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if xs[i] + xs[j] == target:
                out.append((xs[i], xs[j]))
    return out
""",
        """\
def pairs_with_sum(xs, target):
    out = []
    later = {}
    for j in range(len(xs) - 1, -1, -1):
        later.setdefault(xs[j], []).append(j)
    for i in range(len(xs)):
        later[xs[i]].pop()
        for j in reversed(later.get(target - xs[i], ())):
            out.append((xs[i], xs[j]))
    return out
""",
    ),
)
