"""Sums, least and largest items of parts of a list, asked for in a loop: tables over all parts.

Prefix sums: with ``S[k] = xs[0] + ... + xs[k - 1]``, ``sum(xs[a:b]) = S[b] - S[a]``, exactly for
whole numbers. Running maxima (Blelloch, "Prefix sums and their applications", 1990, for any
associative operation): ``M[i] = max(xs[:i + 1])``.

Time O(1) for each part instead of its length; memory O(n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds

__all__ = ["PREFIX_SUMS", "RUNNING_EXTREMES"]


def _parts(code: Code, functions: tuple[str, ...]) -> Iterator[tuple[ast.Call, str, ast.Slice]]:
    """Calls such as ``sum(xs[a:b])``."""
    for node in code.expressions():
        if not (isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords):
            continue
        part = node.args[0]
        if (
            code.names.stands_for(node.func) in functions
            and isinstance(part, ast.Subscript)
            and isinstance(part.value, ast.Name)
            and isinstance(part.slice, ast.Slice)
            and part.slice.step is None
            and code.type(part.value).only(list, tuple)
        ):
            yield node, part.value.id, part.slice


def _place(code: Code, bound: ast.expr, box: str, node: ast.AST) -> bool:
    """Whether a bound is between 0 and the length: an index, or one more."""
    found = code.match_any(("i_", "i_ + 1", "1 + i_"), bound)
    return bool(found and code.effects.is_index(found["i_"], box, node))


def _in_order(code: Code, low: ast.expr, high: ast.expr) -> bool:
    """Whether one bound is not above another: the loop of the second starts at the first."""
    found = code.match_any(("j_", "j_ + 1"), high)
    first = code.match("i_", low)
    if not found or not first:
        return False
    at = code.effects.parent(high)
    while at is not None and at is not code.function:
        loops = getattr(at, "generators", [at] if isinstance(at, ast.For) else [])
        for loop in loops:
            if found["j_"] in binds([loop.target]):
                begun = code.match_any(("range(i_, N)", "range(i_ + 1, N)"), loop.iter)
                return bool(begun and begun["i_"] == first["i_"])
        at = code.effects.parent(at)
    return False


def _find_sums(code: Code) -> Iterator[Change]:
    for node, box, part in _parts(code, ("sum",)):
        at = code.steady_from(node, box)
        bounds = [b for b in (part.lower, part.upper) if b is not None]
        if at is None or not bounds or not code.kinds.items_of(box).is_integer:
            continue
        if not all(code.type(b).is_integer for b in bounds):
            continue
        sums = code.names.fresh(f"{box}_sums")
        accumulate, imports = code.library("itertools", "accumulate")
        build = [f"{sums} = list({accumulate}({box}, initial=0))"]
        low, high = part.lower, part.upper
        known = all(_place(code, b, box, node) for b in bounds)
        if known and low is None and high is not None:
            text = f"{sums}[{ast.unparse(high)}]"
        elif known and high is None and low is not None:
            text = f"({sums}[-1] - {sums}[{ast.unparse(low)}])"
        elif known and low is not None and high is not None and _in_order(code, low, high):
            text = f"({sums}[{ast.unparse(high)}] - {sums}[{ast.unparse(low)}])"
        else:
            places, span = code.names.fresh(f"{box}_places"), code.names.fresh("span")
            build.append(f"{places} = range(len({box}))")
            cut = f"{ast.unparse(low) if low else ''}:{ast.unparse(high) if high else ''}"
            difference = f"{sums}[{span}.stop] - {sums}[{span}.start]"
            text = f"({difference} if ({span} := {places}[{cut}]) else 0)"
        edit = code.before(at, build)
        if edit is not None:
            yield Change(
                f"takes sums of parts of {box} from sums of its beginnings",
                (edit, code.swap(node, _bare(code, node, text))),
                imports,
            )


def _bare(code: Code, node: ast.expr, text: str) -> str:
    """The text without parentheses where nothing else stands around it."""
    parent = code.effects.parent(node)
    alone = isinstance(parent, (ast.Assign, ast.Return, ast.AugAssign)) or (
        isinstance(parent, ast.Call) and node in parent.args
    )
    return text[1:-1] if alone and text.startswith("(") and ":=" not in text else text


PREFIX_SUMS = Rewriter(
    name="prefix-sums",
    summary="`sum` of parts of a list in a loop: differences of prefix sums",
    risk="types",
    find=_find_sums,
    example=(
        """\
def balance_point(xs):
    for i in range(len(xs)):
        if sum(xs[:i]) == i:
            return i
    return -1
""",
        """\
import itertools


def balance_point(xs):
    xs_sums = list(itertools.accumulate(xs, initial=0))
    for i in range(len(xs)):
        if xs_sums[i] == i:
            return i
    return -1
""",
    ),
)


def _find_extremes(code: Code) -> Iterator[Change]:
    for node, box, _ in _parts(code, ("min", "max")):
        at = code.steady_from(node, box)
        if at is None:
            continue
        what = code.names.stands_for(node.func)
        items = code.kinds.items_of(box)
        accumulate, imports = code.library("itertools", "accumulate")
        head = code.match_any(("xs_[:i_ + 1]", "xs_[0:i_ + 1]", "xs_[:1 + i_]"), node.args[0])
        tail = code.match("xs_[i_:]", node.args[0])
        behind = code.match_any(("xs_[i_ + 1:]", "xs_[1 + i_:]"), node.args[0])
        found = head or tail or behind
        if not found or not code.effects.is_index(found["i_"], box, node):
            continue
        if not (items.only(int) or items.only(str)):
            continue
        above = code.effects.parent(node)
        if behind and isinstance(above, ast.IfExp) and above.orelse is node:
            continue  # of no items
        name = code.names.fresh(f"{box}_{'least' if what == 'min' else 'largest'}")
        if head:
            build = f"{name} = list({accumulate}({box}, {what}))"
        else:
            name = code.names.fresh(f"{name}_behind")
            build = f"{name} = list({accumulate}(reversed({box}), {what}))[::-1]"
        edit = code.before(at, [build])
        text, place = f"{name}[{found['i_']}]", f"{found['i_']} + 1"
        if behind:
            text = f"({name}[{place}] if {place} < len({name}) else $old)"
        if edit is not None:
            yield Change(
                f"keeps the {'least' if what == 'min' else 'largest'} items of parts of {box}",
                (edit, code.swap(node, text, old=node)),
                imports,
            )


RUNNING_EXTREMES = Rewriter(
    name="running-extremes",
    summary="`min` or `max` of the beginning or end of a list in a loop: running extremes",
    risk="types",
    find=_find_extremes,
    example=(
        """\
def running_maxima(xs):
    out = []
    for i in range(len(xs)):
        out.append(max(xs[: i + 1]))
    return out
""",
        """\
import itertools


def running_maxima(xs):
    out = []
    xs_largest = list(itertools.accumulate(xs, max))
    for i in range(len(xs)):
        out.append(xs_largest[i])
    return out
""",
    ),
)
