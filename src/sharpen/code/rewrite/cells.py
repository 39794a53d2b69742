"""A cell of a table that an inner loop adds to: kept in a local until the loop ends.

``out[i][j] += a[i][k] * b[k][j]`` looks the same cell up twice in each round, and the row ``a[i]``
too. Where nobody else can see the cell meanwhile, a local takes the same sums in the same order,
so that floats are rounded as before.

Only products, sums and differences of numbers of one class; nothing is looked up where the loop
has no round.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.reductions import single_loops
from sharpen.code.rewrite.types import HASHABLE, items_of

__all__ = ["CELL_SUM"]


def _root(node: ast.expr) -> str | None:
    """``out`` of ``out[i]`` and ``out[i][j]``, where all indexes are variables or numbers."""
    while isinstance(node, ast.Subscript):
        if not isinstance(node.slice, (ast.Name, ast.Constant)):
            return None
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _depth(node: ast.expr) -> int:
    return 1 + _depth(node.value) if isinstance(node, ast.Subscript) else 0


def _find(code: Code) -> Iterator[Change]:
    for loop in single_loops(code):
        statement = loop.body[0]
        target, value = _added(statement)
        if target is None or value is None or not isinstance(loop.target, ast.Name):
            continue
        box = _root(target)
        if box is None or code.in_try(loop) or not _is_own_table(code, box, _depth(target)):
            continue
        bound = binds([loop.target])
        if loads([target]) & bound or box in loads([value, loop.iter]):
            continue
        leaves = _leaves(value)
        kinds = [code.type(node) for node in leaves or []]
        cells = code.kinds.items_of(box)
        kinds.append(items_of(cells) if _depth(target) == 2 else cells)
        same = any(all(k.only(t) for k in kinds) for t in (int, float))
        if not leaves or not same or not _runs(code, loop):
            continue
        edit = _write(code, loop, target, value, leaves)
        if edit is not None:
            yield edit


def _added(statement: ast.stmt) -> tuple[ast.Subscript | None, ast.expr | None]:
    """The cell and what is added to it, of ``cell += value`` and ``cell = cell + value``."""
    if isinstance(statement, ast.AugAssign):
        if isinstance(statement.op, ast.Add) and isinstance(statement.target, ast.Subscript):
            return statement.target, statement.value
        return None, None
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
            again = ast.unparse(value.left) == ast.unparse(target)
            if isinstance(target, ast.Subscript) and again:
                return target, value.right
    return None, None


def _is_own_table(code: Code, box: str, depth: int) -> bool:
    """Whether the cells of a table are seen through its name alone."""
    if depth > 2 or not code.effects.is_private(box):
        return False
    for node in code.effects.uses(box):
        parent = code.effects.parent(node)
        if isinstance(parent, (ast.Assign, ast.AnnAssign)) and isinstance(node.ctx, ast.Store):
            made = parent.value
            rows = isinstance(made, ast.ListComp) and code.effects.is_new(made.elt)
            if depth == 2 and not (rows and code.type(made.elt).only(list)):  # type: ignore[union-attr]
                return False
        elif isinstance(parent, ast.Subscript):
            outer = code.effects.parent(parent)
            cell = depth == 1 or (isinstance(outer, ast.Subscript) and outer.value is parent)
            sliced = isinstance(parent.slice, ast.Slice) or (
                isinstance(outer, ast.Subscript) and isinstance(outer.slice, ast.Slice)
            )
            if not cell or sliced:
                return False
        elif isinstance(parent, ast.Call):
            if code.names.stands_for(parent.func) != "len":
                return False
        elif not isinstance(parent, ast.Return):
            return False
    return True


def _leaves(node: ast.expr) -> list[ast.expr] | None:
    """What an expression computes with; None where it does more than add and multiply."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        left, right = _leaves(node.left), _leaves(node.right)
        return None if left is None or right is None else left + right
    if isinstance(node, (ast.Name, ast.Constant)) or _root(node) is not None:
        return [node]
    return None


def _runs(code: Code, loop: ast.For) -> bool:
    """Whether a loop runs over a range that can be asked whether it is empty."""
    return code.type(loop.iter).only(range) and code.effects.is_total(loop.iter)


def _write(
    code: Code, loop: ast.For, target: ast.Subscript, value: ast.expr, leaves: list[ast.expr]
) -> Change | None:
    text, first = ast.unparse(value), []
    if not all(_is_looked_up(code, leaf) for leaf in leaves):
        return None
    row = leaves[0].value if isinstance(leaves[0], ast.Subscript) else None
    if isinstance(row, ast.Subscript) and not loads([row]) & binds([loop]):
        # the first that each round looks up, so that what fails first still does
        spelled, name = ast.unparse(row), code.names.fresh(f"{_root(row)}_row")
        first = [f"    {name} = {spelled}"]
        text = re.sub(rf"\b{re.escape(spelled)}\[", f"{name}[", text)
    rounds, total = code.names.fresh("rounds"), code.names.fresh("total")
    cell = code.text(target)
    lines = [
        f"{rounds} = {code.text(loop.iter)}",
        f"if {rounds}:",
        f"    {total} = {cell}",
        *first,
        f"    for {code.text(loop.target)} in {rounds}:",
        f"        {total} += {text}",
        f"    {cell} = {total}",
    ]
    edit = code.replace([loop], lines)
    return Change(f"adds up in a local instead of in {cell}", (edit,)) if edit else None


def _is_looked_up(code: Code, node: ast.expr) -> bool:
    """Whether looking an item up changes nothing, and runs no code of a user."""
    while isinstance(node, ast.Subscript):
        if not code.type(node.value).within(HASHABLE | {list, tuple}):
            return False
        node = node.value
    return True


CELL_SUM = Rewriter(
    name="cell-sum",
    summary="a loop that adds to one cell of a table: a local",
    risk="types",
    find=_find,
    example=(
        """\
def product_of(a, b):
    out = [[0] * len(b[0]) for _ in range(len(a))]
    for i in range(len(a)):
        for j in range(len(b[0])):
            for k in range(len(b)):
                out[i][j] += a[i][k] * b[k][j]
    return out
""",
        """\
def product_of(a, b):
    out = [[0] * len(b[0]) for _ in range(len(a))]
    for i in range(len(a)):
        for j in range(len(b[0])):
            rounds = range(len(b))
            if rounds:
                total = out[i][j]
                a_row = a[i]
                for k in rounds:
                    total += a_row[k] * b[k][j]
                out[i][j] = total
    return out
""",
    ),
)
