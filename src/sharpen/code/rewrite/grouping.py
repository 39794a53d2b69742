"""Groups of items with equal keys, looked for one by one: a table of them.

Each item is compared with the first item of each group. As a key is equal to that of the group's
first item exactly if it is the group's, a table from keys to groups finds the same group.

Time O(1) for each item instead of O(groups); memory O(groups).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.linear import put_names
from sharpen.code.rewrite.names import loads

__all__ = ["GROUP_TABLE"]

_BODIES = (
    "f_ = False\nfor g_ in gs_:\n if K == L:\n  g_.append(x_)\n  f_ = True\n  break\n"
    "if not f_:\n gs_.append([x_])",
    "for g_ in gs_:\n if K == L:\n  g_.append(x_)\n  break\nelse:\n gs_.append([x_])",
)


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not (isinstance(loop, ast.For) and isinstance(loop.target, ast.Name)) or loop.orelse:
            continue
        found = code.match_any_block(_BODIES, loop.body)
        if not found or found["x_"] != loop.target.id:
            continue
        x, group, groups = found["x_"], found["g_"], found["gs_"]
        key = _key(code, x, group, found["K"], found["L"])
        if key is None or not _begins_empty(code, loop, groups):
            continue
        gone = [group, found["f_"]] if "f_" in found else [group]
        if len({x, groups, *gone}) < 2 + len(gone):
            continue
        if not all(code.is_unread(n, [loop]) for n in gone):
            continue
        table, name = code.names.fresh(f"{groups}_by_key"), code.names.fresh("key")
        lines = [
            f"{name} = {key}",
            f"if {name} in {table}:",
            f"    {table}[{name}].append({x})",
            "else:",
            f"    {table}[{name}] = [{x}]",
            f"    {groups}.append({table}[{name}])",
        ]
        edits = (code.before(loop, [f"{table} = {{}}"]), code.replace(loop.body, lines))
        if edits[0] is not None and edits[1] is not None:
            explain = f"finds the group of each item of {groups} in a table"
            yield Change(explain, (edits[0], edits[1]))


def _key(code: Code, x: str, group: str, one: ast.expr, other: ast.expr) -> str | None:
    """The text of what makes an item one of a group, as a key."""
    for node, first in ((one, other), (other, one)):
        if loads([node]) & {group} or put_names(node, **{x: f"{group}[0]"}) != ast.unparse(first):
            continue
        names = loads([node])
        if x not in names or not all(n == x or code.names.builtin(n) for n in names):
            return None
        if not code.effects.is_total(node):
            return None
        if code.type(node).is_exact:
            return code.text(node)
        listed = code.type(node).only(list) and code.items(node).is_exact
        return f"tuple({code.text(node)})" if listed and code.names.builtin("tuple") else None
    return None


def _begins_empty(code: Code, loop: ast.For, groups: str) -> bool:
    """Whether a private list is made empty before a loop, and not used until then."""
    if not code.effects.is_private(groups) or groups in loads([loop.iter]):
        return False
    block, at = code.home(loop)
    for statement in reversed(block[:at]):
        if groups in {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}:
            return (
                isinstance(statement, (ast.Assign, ast.AnnAssign))
                and statement.value is not None
                and ast.unparse(statement.value) == "[]"
            )
    return False


GROUP_TABLE = Rewriter(
    name="group-table",
    summary="a loop that looks for the group of each item: a table of groups",
    risk="types",
    find=_find,
    example=(
        """\
def groups_of(words):
    groups = []
    for word in words:
        placed = False
        for group in groups:
            if sorted(group[0]) == sorted(word):
                group.append(word)
                placed = True
                break
        if not placed:
            groups.append([word])
    return groups
""",
        """\
def groups_of(words):
    groups = []
    groups_by_key = {}
    for word in words:
        key = tuple(sorted(word))
        if key in groups_by_key:
            groups_by_key[key].append(word)
        else:
            groups_by_key[key] = [word]
            groups.append(groups_by_key[key])
    return groups
""",
    ),
)
