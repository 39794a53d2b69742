"""What an inner loop evaluates for each item anew in each round of the outer one: a list of it.

``for w in words: for i in range(len(lines)): ... lines[i].split()`` splits each line once a word.
The expression must depend on the item of the inner loop alone, change nothing and be unable to
fail; its value must be one that cannot be changed, or is only looked into. ``x in rows[i]`` becomes
a look into a set of each row in the same way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads
from sharpen.code.rewrite.source import Edit
from sharpen.code.rewrite.types import EXACT, MAPPINGS

__all__ = ["INNER_TABLE", "ROW_SETS"]


def _find_tables(code: Code) -> Iterator[Change]:
    groups: dict[tuple[str, str, str, ast.stmt], list[ast.expr]] = {}
    for node in code.expressions():
        if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Attribute, ast.Name)):
            continue
        inside = node.func.value if isinstance(node.func, ast.Attribute) else None
        if inside is None and len(node.args) == 1:
            inside = node.args[0]
        found = code.match("xs_[i_]", inside) if inside is not None else None
        if not found or loads([node]) - {found["xs_"], found["i_"]} - _builtins(code, node):
            continue
        box, index = found["xs_"], found["i_"]
        if not code.effects.is_index(index, box, node) or not code.effects.is_total(node):
            continue
        at = code.steady_from(node, box)
        if at is None or len(code.loops(node)) < 2 or _binds_outermost(code, node, index, at):
            continue
        if not _is_looked_into(code, node):
            continue
        groups.setdefault((ast.unparse(node), box, index, at), []).append(node)
    for (_, box, index, at), nodes in groups.items():
        table, item = code.names.fresh(f"of_{box}"), code.names.fresh("item")
        place = {f"{box}[{index}]": item}
        text = _with_item(nodes[0], place)
        edits: list[Edit | None] = [code.before(at, [f"{table} = [{text} for {item} in {box}]"])]
        edits += [code.swap(node, f"{table}[{index}]") for node in nodes]
        if all(edits):
            yield Change(
                f"evaluates what depends on items of {box} alone once for each",
                tuple(e for e in edits if e is not None),
            )


def _builtins(code: Code, node: ast.expr) -> set[str]:
    return {n for n in loads([node]) if code.names.builtin(n)}


def _binds_outermost(code: Code, node: ast.expr, index: str, at: ast.stmt) -> bool:
    """Whether the index is that of the loop before which the table would be made."""
    return isinstance(at, ast.For) and index in {
        n.id for n in ast.walk(at.target) if isinstance(n, ast.Name)
    }


def _is_looked_into(code: Code, node: ast.expr) -> bool:
    """Whether a value is of a class that cannot change, or nobody could change it here."""
    if code.type(node).within(EXACT):
        return True
    parent = code.effects.parent(node)
    if isinstance(parent, ast.Compare):
        return parent.left is not node and isinstance(parent.ops[0], (ast.In, ast.NotIn))
    if isinstance(parent, ast.Call):
        return code.names.stands_for(parent.func) in ("len", "sum", "min", "max", "sorted")
    return isinstance(parent, ast.For) and parent.iter is node


def _with_item(node: ast.expr, place: dict[str, str]) -> str:
    """The text of an expression with a variable in the place of a part."""
    text = ast.unparse(node)
    for part, name in place.items():
        text = text.replace(part, name)
    return text


INNER_TABLE = Rewriter(
    name="inner-table",
    summary="what an inner loop evaluates of its items alone: once for each item",
    risk="types",
    find=_find_tables,
    example=(
        """\
def lines_with(lines, words):
    count = 0
    for word in words:
        for i in range(len(lines)):
            if word in lines[i].split():
                count += 1
    return count
""",
        """\
def lines_with(lines, words):
    count = 0
    of_lines = [item.split() for item in lines]
    for word in words:
        for i in range(len(lines)):
            if word in of_lines[i]:
                count += 1
    return count
""",
    ),
)


def _find_row_sets(code: Code) -> Iterator[Change]:
    groups: dict[tuple[str, ast.stmt], list[ast.Subscript]] = {}
    for node in code.expressions():
        if not (
            isinstance(node, ast.Compare)
            and len(node.ops) == 1
            and isinstance(node.ops[0], (ast.In, ast.NotIn))
            and isinstance(node.comparators[0], ast.Subscript)
            and isinstance(node.comparators[0].value, ast.Name)
            and not isinstance(node.comparators[0].slice, ast.Slice)
        ):
            continue
        part = node.comparators[0]
        assert isinstance(part.value, ast.Name)
        box = part.value.id
        rows, kind = code.type(part), code.kinds.variable(box)
        items = code.items(part)
        if not (rows.only(list) and kind.only(list, dict) and items.is_hashable):
            continue
        if not code.type(node.left).is_hashable:
            continue
        if kind.within(MAPPINGS) is not kind.only(dict):
            continue
        at = code.steady_from(node, box)
        if at is not None:
            groups.setdefault((box, at), []).append(part)
    for (box, at), parts in groups.items():
        name = code.names.fresh(f"{box}_sets")
        key, row = code.names.fresh("key"), code.names.fresh("row")
        if code.kinds.variable(box).only(dict):
            build = f"{name} = {{{key}: set({row}) for {key}, {row} in {box}.items()}}"
        elif code.kinds.variable(box).only(list):
            build = f"{name} = [set({row}) for {row} in {box}]"
        else:
            continue
        edits: list[Edit | None] = [code.before(at, [build])]
        edits += [code.swap(part.value, name) for part in parts]
        if all(edits) and code.names.builtin("set"):
            yield Change(
                f"makes a set of each list in {box} once, in which values are found at once",
                tuple(e for e in edits if e is not None),
            )


ROW_SETS = Rewriter(
    name="row-sets",
    summary="`in` one of several lists: a set of each, made once",
    risk="types",
    find=_find_row_sets,
    example=(
        """\
def common_friends(friends, one, other):
    return [f for f in friends[one] if f in friends[other]]
""",
        """\
def common_friends(friends, one, other):
    friends_sets = {key: set(row) for key, row in friends.items()}
    return [f for f in friends[one] if f in friends_sets[other]]
""",
    ),
)
