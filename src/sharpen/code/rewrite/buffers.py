"""Least, largest and sum over rows of numbers that lie in one buffer, a stride apart.

``for x in range(w): v = data[y * stride + x]; ...`` runs over a part of the buffer: ``min``,
``max`` and ``sum`` of that part say the same. With numpy, the rows of bytes of an image are one
array of two dimensions on the same memory (its strides are those of the buffer), reduced at once.

Only for whole numbers. Where a row would leave the buffer, the loop stays, with its IndexError.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.linear import put_names
from sharpen.code.rewrite.names import binds, loads
from sharpen.code.rewrite.reductions import EXTREMES

__all__ = ["BYTE_ROWS", "ROW_PARTS"]

_BUFFERS = frozenset({list, tuple, bytes, bytearray})


@dataclass(frozen=True, slots=True)
class _Row:
    """A loop over a part of a buffer.

    Args:
        box: the name of the buffer.
        start: the expression of its first place.
        length: how many places there are.
        results: what is done: ``min``, ``max`` or ``sum``, and the variable that takes it.
    """

    box: str
    start: str
    length: str
    results: tuple[tuple[str, str], ...]


def _row(code: Code, loop: ast.For) -> _Row | None:
    """What a loop takes of a buffer; None where it does anything else."""
    if not isinstance(loop.target, ast.Name) or loop.orelse:
        return None
    bounds = code.match("range(N)", loop.iter)
    if not bounds:
        return None
    body, names = loop.body, {loop.target.id}
    item: ast.expr | None = None
    first = code.match("v_ = X", body[0]) if len(body) > 1 else None
    if first and isinstance(first["X"], ast.Subscript):
        item, body = first["X"], body[1:]
        names.add(first["v_"])
    results: list[tuple[str, str]] = []
    for statement in body:
        found = _reduction(code, statement)
        if found is None:
            return None
        what, name, value = found
        if item is None:
            item = value
        if not _is_item(code, value, item, first["v_"] if first else None):
            return None
        results.append((what, name))
    if item is None or not all(code.is_unread(n, [loop]) for n in names):
        return None
    row = _place(code, loop, item, bounds["N"])
    targets = [name for _, name in results]
    if row is None or len(set(targets)) < len(targets) or names & set(targets):
        return None
    reads = loads([loop.iter, item])
    if reads & set(targets) or not all(code.is_bound_before(t, loop) for t in targets):
        return None
    box, start = row
    return _Row(box, start, _term(bounds["N"]), tuple(results))


def _reduction(code: Code, statement: ast.stmt) -> tuple[str, str, ast.expr] | None:
    for what, patterns in EXTREMES.items():
        found = code.match_any(patterns, statement)
        if found and code.names.builtin(what) and code.kinds.variable(found["m_"]).only(int):
            return what, found["m_"], found["X"]
    found = code.match("t_ += X", statement)
    if found and code.names.builtin("sum") and code.kinds.variable(found["t_"]).only(int):
        return "sum", found["t_"], found["X"]
    return None


def _is_item(code: Code, value: ast.expr, item: ast.expr, name: str | None) -> bool:
    if name is not None and isinstance(value, ast.Name) and value.id == name:
        return True
    return ast.unparse(value) == ast.unparse(item) and isinstance(value, ast.Subscript)


def _place(code: Code, loop: ast.For, item: ast.expr, length: ast.expr) -> tuple[str, str] | None:
    """The buffer of ``data[start + x]``, and the start."""
    assert isinstance(loop.target, ast.Name)
    found = code.match_any(("xs_[O + i_]", "xs_[i_ + O]", "xs_[i_]"), item)
    if not found or found["i_"] != loop.target.id:
        return None
    box = found["xs_"]
    kind = code.kinds.variable(box)
    if not kind.within(_BUFFERS) or not code.effects.keeps([loop], box):
        return None
    if not code.kinds.items_of(box).only(int) and not kind.only(bytes):
        return None
    offset = found.get("O")
    parts = [length] if offset is None else [length, offset]
    if any(loads([p]) & binds([loop]) or not code.effects.is_total(p) for p in parts):
        return None
    if not all(code.type(p).only(int) for p in parts):
        return None
    return box, _term(offset) if offset is not None else "0"


def _term(node: ast.expr) -> str:
    """The text of what can be added to something."""
    arithmetic = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)
    plain = isinstance(node, (ast.Name, ast.Constant, ast.Call, ast.Subscript)) or (
        isinstance(node, ast.BinOp) and isinstance(node.op, arithmetic)
    )
    return ast.unparse(node) if plain else f"({ast.unparse(node)})"


def _line(what: str, name: str, part: str) -> str:
    if what == "sum":
        return f"{name} += sum({part})"
    return f"{name} = {what}({name}, {what}({part}, default={name}))"


def _find_parts(code: Code) -> Iterator[Change]:
    if not code.names.builtin("len"):
        return
    for loop in code.statements():
        row = _row(code, loop) if isinstance(loop, ast.For) else None
        if row is None or (row.start == "0" and len(row.results) < 2):
            continue
        part = code.names.fresh("part")
        start, end = row.start, f"{row.start} + {row.length}"
        if row.start == "0":
            end = row.length
        block = code.source.block([loop], "    ")
        if block is None:
            continue
        lines = [
            f"if 0 <= {start} <= {end} <= len({row.box}):",
            f"    {part} = {row.box}[{start}:{end}]",
            *("    " + _line(what, name, part) for what, name in row.results),
            "else:",
            *block,
        ]
        yield Change(f"lets builtins run over parts of {row.box}", (code.exchange([loop], lines),))


ROW_PARTS = Rewriter(
    name="row-parts",
    summary="a loop over a row of a buffer that keeps extremes or sums: builtins on the part",
    risk="types",
    find=_find_parts,
    example=(
        """\
def row_sum(data, start, width):
    total = 0
    high = 0
    for x in range(width):
        value = data[start + x]
        total += value
        if value > high:
            high = value
    return total, high
""",
        """\
def row_sum(data, start, width):
    total = 0
    high = 0
    if 0 <= start <= start + width <= len(data):
        part = data[start:start + width]
        total += sum(part)
        high = max(high, max(part, default=high))
    else:
        for x in range(width):
            value = data[start + x]
            total += value
            if value > high:
                high = value
    return total, high
""",
    ),
)


def _find_rows(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if isinstance(loop, ast.For) and not loop.orelse and isinstance(loop.target, ast.Name):
            change = _rows(code, loop)
            if change is not None:
                yield change


def _rows(code: Code, loop: ast.For) -> Change | None:
    """Both loops over an image, where the rows begin at ``y * stride`` from the first on."""
    assert isinstance(loop.target, ast.Name)
    y = loop.target.id
    bounds = code.match("range(N)", loop.iter)
    inner = loop.body[-1]
    row = _row(code, inner) if isinstance(inner, ast.For) and bounds else None
    if row is None or bounds is None or len(loop.body) > 2 or not code.is_unread(y, [loop]):
        return None
    if not code.kinds.variable(row.box).only(bytes) or y in loads([inner.iter]):  # type: ignore[attr-defined]
        return None
    start = row.start
    if len(loop.body) == 2:
        named = code.match("o_ = X", loop.body[0])
        if not named or not code.is_unread(named["o_"], [loop]):
            return None
        start = put_names(
            ast.parse(start, mode="eval").body, **{named["o_"]: f"({ast.unparse(named['X'])})"}
        )
        if not code.effects.is_total(named["X"]) or not code.type(named["X"]).only(int):
            return None
    stride = _stride(start, y)
    height = bounds["N"]
    if stride is None or not code.type(height).only(int) or not code.effects.is_total(height):
        return None
    first, step = stride
    read = loads([height, inner.iter, ast.parse(f"({first}, {step})")])  # type: ignore[attr-defined]
    if read & binds([loop]) or any(
        not code.effects.keeps([loop], n) for n in read & code.names.local
    ):
        return None
    block = code.source.block([loop], "    ")
    if block is None:
        return None
    view, last = code.names.fresh("rows"), f"({_term(height)} - 1) * {step} + {row.length}"
    if first != "0":
        last = f"{first} + {last}"
    shape = f"({_term(height)}, {row.length})"
    lines = [
        "if (",
        f"    type({row.box}) is bytes",
        f"    and {_term(height)} > 0 < {row.length}",
        f"    and {step} >= 0" + ("" if first == "0" else f" <= {first}"),
        f"    and {last} <= len({row.box})",
        "):",
        f"    {view} = numpy.ndarray({shape}, numpy.uint8, {row.box}, {first}, ({step}, 1))",
        *("    " + _array_line(what, name, view) for what, name in row.results),
        "else:",
        *block,
    ]
    return Change(
        f"lets numpy run over the rows of {row.box} at once",
        (code.exchange([loop], lines),),
        ("numpy",),
    )


def _array_line(what: str, name: str, view: str) -> str:
    if what == "sum":
        return f"{name} += int({view}.sum(dtype=numpy.int64))"
    return f"{name} = {what}({name}, int({view}.{what}()))"


def _stride(start: str, y: str) -> tuple[str, str] | None:
    """The first place and the distance of rows of ``first + y * stride``."""
    node = ast.parse(start, mode="eval").body
    first = "0"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = (node.left, node.right)
        product = next((s for s in sides if y in loads([s])), None)
        other = next((s for s in sides if s is not product), None)
        if product is None or other is None or y in loads([other]):
            return None
        node, first = product, _atom(other)
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
        return None
    for one, other in ((node.left, node.right), (node.right, node.left)):
        if isinstance(one, ast.Name) and one.id == y and y not in loads([other]):
            return first, _atom(other)
    return None


def _atom(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if isinstance(node, (ast.Name, ast.Constant)) else f"({text})"


BYTE_ROWS = Rewriter(
    name="byte-rows",
    summary="loops over the rows of an image in bytes that keep extremes or sums: a numpy array",
    risk="types",
    find=_find_rows,
    needs=("numpy",),
    example=(
        """\
def extrema(data, width, height, stride):
    low, high = 255, 0
    for y in range(height):
        for x in range(width):
            value = data[y * stride + x]
            if value < low:
                low = value
            if value > high:
                high = value
    return low, high
""",
        """\
import numpy


def extrema(data, width, height, stride):
    low, high = 255, 0
    if (
        type(data) is bytes
        and height > 0 < width
        and stride >= 0
        and (height - 1) * stride + width <= len(data)
    ):
        rows = numpy.ndarray((height, width), numpy.uint8, data, 0, (stride, 1))
        low = min(low, int(rows.min()))
        high = max(high, int(rows.max()))
    else:
        for y in range(height):
            for x in range(width):
                value = data[y * stride + x]
                if value < low:
                    low = value
                if value > high:
                    high = value
    return low, high
""",
    ),
)
