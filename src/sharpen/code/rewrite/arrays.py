"""Tests of one float against all others: on a numpy array at once.

Harris et al., Array programming with NumPy, Nature 585, 2020. Differences, sums, products,
absolute values and comparisons of arrays of ``float64`` round each item as Python rounds a float,
so counting where a test holds, or whether it holds anywhere, gives the same. No item of the list,
and no number in the test, may be anything else than a float; sums over items would be added in
another order and are left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.tables import Inner, Outer, inner_loop, inner_loop_behind

__all__ = ["FLOAT_ARRAY"]


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For) or loop.orelse:
            continue
        inner = inner_loop_behind(code, loop.target, loop.iter) or inner_loop(
            code, loop.target, loop.iter, Outer(None, None, None)
        )
        if inner is None or (inner.index is not None and inner.item is not None):
            continue
        change = _change(code, loop, inner)
        if change is not None:
            yield change


def _change(code: Code, loop: ast.For, inner: Inner) -> Change | None:
    box = inner.box
    counted = code.match_any_block(("if T:\n c_ += 1", "if T:\n c_ = c_ + 1"), loop.body)
    leaves = code.match_block("if T:\n return V", loop.body)
    found = counted or leaves
    at = code.steady_from(loop, box)
    if not found or not isinstance(at, (ast.For, ast.While)):
        return None
    if not code.kinds.variable(box).only(list, tuple) or not code.kinds.items_of(box).only(float):
        return None
    if not all(code.is_unread(n, [loop]) for n in inner.variables):
        return None
    array, part = code.names.fresh(f"{box}_array"), code.names.fresh("others")
    test = _vector(code, found["T"], inner, part)
    if test is None:
        return None
    over = array if inner.after is None else f"{array}[{inner.after} + 1:]"
    lines = ['with numpy.errstate(all="ignore"):', f"    {part} = {over}"]
    if counted:
        name = counted["c_"]
        steady = code.kinds.variable(name).is_integer and code.effects.is_steady(name)
        if not steady or not code.is_bound_before(name, loop) or name in loads([counted["T"]]):
            return None
        lines.append(f"    {name} += int(numpy.count_nonzero({test}))")
    else:
        assert leaves is not None
        if not isinstance(leaves["V"], ast.Constant):
            return None
        lines += [f"    if numpy.any({test}):", f"        return {code.text(leaves['V'])}"]
    build = code.before(at, [f"{array} = numpy.array({box}, numpy.float64)"])
    edit = code.replace([loop], lines)
    if build is None or edit is None or binds(loop.body) & loads([found["T"]]):
        return None
    return Change(f"tests all items of {box} at once in an array", (build, edit), ("numpy",))


def _vector(code: Code, test: ast.expr, inner: Inner, part: str) -> str | None:
    """A comparison on all items; None where it is none of floats."""
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
        return None
    if not isinstance(test.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)):
        return None
    left = _operand(code, test.left, inner, part)
    right = _operand(code, test.comparators[0], inner, part)
    if left is None or right is None or part not in left + right:
        return None
    sign = {
        ast.Lt: "<",
        ast.LtE: "<=",
        ast.Gt: ">",
        ast.GtE: ">=",
        ast.Eq: "==",
        ast.NotEq: "!=",
    }[type(test.ops[0])]
    return f"{left} {sign} {right}"


def _operand(code: Code, node: ast.expr, inner: Inner, part: str) -> str | None:
    if _is_item(node, inner):
        return part
    if not code.type(node).only(float):
        return None
    if not loads([node]) & inner.variables:
        simple = isinstance(node, (ast.Name, ast.Constant, ast.Subscript))
        text = ast.unparse(node)
        return (text if simple else f"({text})") if code.effects.is_total(node) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        left = _operand(code, node.left, inner, part)
        right = _operand(code, node.right, inner, part)
        if left is None or right is None:
            return None
        sign = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}[type(node.op)]
        return f"({left} {sign} {right})"
    if isinstance(node, ast.Call) and code.names.stands_for(node.func) == "abs":
        inside = _operand(code, node.args[0], inner, part)
        return None if inside is None else f"numpy.abs({inside})"
    return None


def _is_item(node: ast.expr, inner: Inner) -> bool:
    text = ast.unparse(node)
    if inner.item is not None:
        return text == ast.unparse(inner.item)
    return text == f"{inner.box}[{inner.index}]"


FLOAT_ARRAY = Rewriter(
    name="float-array",
    summary="a loop that tests one float against all others: a numpy array",
    risk="types",
    find=_find,
    needs=("numpy",),
    example=(
        """\
def close_pairs(xs, threshold):
    count = 0
    for i in range(len(xs)):
        for j in range(i + 1, len(xs)):
            if abs(xs[i] - xs[j]) < threshold:
                count += 1
    return count
""",
        """\
import numpy


def close_pairs(xs, threshold):
    count = 0
    xs_array = numpy.array(xs, numpy.float64)
    for i in range(len(xs)):
        with numpy.errstate(all="ignore"):
            others = xs_array[i + 1:]
            count += int(numpy.count_nonzero(numpy.abs((xs[i] - others)) < threshold))
    return count
""",
    ),
)
