"""``x in list`` in loops: a set beside the list, or in its place.

A list compares its items one by one, a set finds an equal one by its hash. Both take an object to
be in them that is the same or equal, so they agree wherever equal values have equal hashes and
hashing cannot fail: for the classes of ``Type.is_hashable``.

Time O(1) for each test instead of O(n); memory O(n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import loads
from sharpen.code.rewrite.source import Edit

__all__ = ["GROWING_SET", "PLACES", "SET_MEMBERSHIP", "growth_of"]

_TESTS = (ast.In, ast.NotIn)


def _tests(code: Code) -> Iterator[tuple[ast.Compare, str]]:
    """Tests of whether something hashable is in a list or tuple that has a name."""
    for node in ast.walk(code.function):
        if not (
            isinstance(node, ast.Compare)
            and len(node.ops) == 1
            and isinstance(node.ops[0], _TESTS)
            and isinstance(node.comparators[0], ast.Name)
        ):
            continue
        box = node.comparators[0]
        items = code.items(box)
        if (
            code.type(box).only(list, tuple)
            and code.type(node.left).is_hashable
            and (items.is_hashable or code.kinds.is_empty(items))
        ):
            yield node, box.id


def _find_hoisted(code: Code) -> Iterator[Change]:
    places: dict[tuple[str, ast.stmt], list[ast.Compare]] = {}
    for node, box in _tests(code):
        at = code.steady_from(node, box)
        if at is not None:
            places.setdefault((box, at), []).append(node)
    for (box, at), nodes in places.items():
        name = code.names.fresh(f"{box}_set")
        edits: list[Edit | None] = [code.before(at, [f"{name} = set({box})"])]
        edits += [code.swap(node.comparators[0], name) for node in nodes]
        if all(edits):
            yield Change(
                f"makes a set of {box} once, in which a value is found without a search",
                tuple(e for e in edits if e is not None),
            )


SET_MEMBERSHIP = Rewriter(
    name="set-membership",
    summary="`in` a list that a loop leaves as it is: a set, made once",
    risk="types",
    find=_find_hoisted,
    example=(
        """\
def common(xs, ys):
    out = []
    for x in xs:
        if x in ys:
            out.append(x)
    return out
""",
        """\
def common(xs, ys):
    out = []
    ys_set = set(ys)
    for x in xs:
        if x in ys_set:
            out.append(x)
    return out
""",
    ),
)


def _find_growing(code: Code) -> Iterator[Change]:
    tests: dict[str, list[ast.Compare]] = {}
    for node, box in _tests(code):
        if code.effects.is_private(box):
            tests.setdefault(box, []).append(node)
    for box, nodes in tests.items():
        change = _grow(code, box, nodes)
        if change is not None:
            yield change


Made = tuple[ast.stmt, ast.List]
Added = tuple[ast.stmt, ast.expr, ast.expr]


def growth_of(
    code: Code, box: str, asked: Sequence[ast.expr]
) -> tuple[list[Made], list[Added], bool] | None:
    """How a list grows: where it is made, what is appended, and whether it is read otherwise.

    Args:
        code: the function.
        box: the list; nobody else may hold it.
        asked: comparisons or calls of its methods that are to be answered by something else.

    Returns:
        None where it changes in another way, or where what is appended is no key.
    """
    made: list[Made] = []
    added: list[Added] = []
    others = False
    for node in code.effects.uses(box):
        parent = code.effects.parent(node)
        if isinstance(parent, (ast.Assign, ast.AnnAssign)):
            if parent.value is None or not isinstance(parent.value, ast.List):
                return None
            made.append((parent, parent.value))
        elif isinstance(parent, ast.Compare) and parent in asked:
            continue
        elif isinstance(parent, ast.Attribute):
            call = code.effects.parent(parent)
            assert isinstance(call, ast.Call)
            if call in asked:
                continue
            if parent.attr in ("sort", "reverse", "index", "count"):
                others = True
                continue
            statement = code.effects.parent(call)
            if not (
                parent.attr == "append"
                and len(call.args) == 1
                and not call.keywords
                and isinstance(statement, ast.Expr)
                and code.type(call.args[0]).is_hashable
            ):
                return None
            added.append((statement, call.args[0], parent))
        elif isinstance(parent, ast.Call) and code.effects.changes_first(parent):
            return None
        elif isinstance(parent, (ast.Subscript, ast.AugAssign, ast.Delete)):
            if not isinstance(parent, ast.Subscript) or not isinstance(parent.ctx, ast.Load):
                return None
            others = True
        else:
            others = True
    if not made or not added or any(isinstance(e, ast.Starred) for _, v in made for e in v.elts):
        return None
    return made, added, others


def _grow(code: Code, box: str, tests: list[ast.Compare]) -> Change | None:
    """A set that holds what a list holds: made with it, added to with it."""
    found = growth_of(code, box, tests)
    if found is None:
        return None
    made, added, others = found
    if others:
        return _companion(code, box, tests, made, added)
    edits: list[Edit] = []
    for statement, value in made:
        if isinstance(statement, ast.AnnAssign):
            return _companion(code, box, tests, made, added)
        inside = code.text(value).strip()[1:-1].strip().rstrip(",")
        edits.append(code.swap(value, f"{{{inside}}}" if inside else "set()"))
    for _, _, method in added:
        assert isinstance(method, ast.Attribute)
        edits.append(code.swap(method, f"{box}.add"))
    return Change(f"keeps {box} as a set, in which a value is found without a search", tuple(edits))


def _companion(
    code: Code,
    box: str,
    tests: list[ast.Compare],
    made: list[Made],
    added: list[Added],
) -> Change | None:
    name = code.names.fresh(f"{box}_set")
    edits: list[Edit | None] = []
    for statement, value in made:
        start = f"set({box})" if value.elts else "set()"
        edits.append(code.after(statement, [f"{name} = {start}"]))
    for statement, item, _ in added:
        if not code.effects.is_total(item) or box in loads([item]):
            return None
        edits.append(code.after(statement, [code.line(f"{name}.add($x)", {"x": item})]))
    edits += [code.swap(node.comparators[0], name) for node in tests]
    if not all(edits):
        return None
    return Change(
        f"keeps a set of what is in {box}, in which a value is found without a search",
        tuple(e for e in edits if e is not None),
    )


GROWING_SET = Rewriter(
    name="growing-set",
    summary="`in` a list that grows: a set that grows with it",
    risk="types",
    find=_find_growing,
    example=(
        """\
def unique(xs):
    out = []
    for x in xs:
        if x not in out:
            out.append(x)
    return out
""",
        """\
def unique(xs):
    out = []
    out_set = set()
    for x in xs:
        if x not in out_set:
            out.append(x)
            out_set.add(x)
    return out
""",
    ),
)


def _find_places(code: Code) -> Iterator[Change]:
    """``in xs[i + 1:]`` and ``in xs[:i]`` where ``i`` is an index of ``xs``."""
    for node in code.expressions():
        if not (
            isinstance(node, ast.Compare)
            and len(node.ops) == 1
            and isinstance(node.ops[0], _TESTS)
            and code.type(node.left).is_hashable
        ):
            continue
        later = code.match_any(("xs_[i_ + 1:]", "xs_[1 + i_:]", "xs_[i_:]"), node.comparators[0])
        found = later or code.match_any(("xs_[:i_]", "xs_[0:i_]"), node.comparators[0])
        if found is None:
            continue
        box, index = found["xs_"], found["i_"]
        at = code.steady_from(node, box)
        if (
            at is None
            or not code.kinds.variable(box).only(list, tuple)
            or not code.kinds.items_of(box).is_hashable
            or not code.effects.is_index(index, box, node)
        ):
            continue
        name = code.names.fresh("last_place" if later else "first_place")
        place, item = code.names.fresh("place"), code.names.fresh("item")
        inside = isinstance(node.ops[0], ast.In)
        part = node.comparators[0]
        behind = (
            isinstance(part, ast.Subscript)
            and isinstance(part.slice, ast.Slice)
            and isinstance(part.slice.lower, ast.BinOp)
        )
        if later:
            over = f"enumerate({box})"
            least = ">" if behind else ">="
            test = (
                f"{name}.get($x, -1) {least if inside else {'>': '<=', '>=': '<'}[least]} {index}"
            )
        else:
            over = f"zip(range(len({box}) - 1, -1, -1), reversed({box}))"
            test = f"{name}.get($x, {index}) {'<' if inside else '>='} {index}"
        build = f"{name} = {{{item}: {place} for {place}, {item} in {over}}}"
        edit = code.before(at, [build])
        if edit is not None:
            yield Change(
                f"looks up where a value stands in {box} instead of searching a part of it",
                (edit, code.swap(node, test, x=node.left)),
            )


PLACES = Rewriter(
    name="places",
    summary="`in` a part of a list that a loop moves along: a table of places",
    risk="types",
    find=_find_places,
    example=(
        """\
def has_pair(xs, target):
    for i, x in enumerate(xs):
        if target - x in xs[i + 1:]:
            return True
    return False
""",
        """\
def has_pair(xs, target):
    last_place = {item: place for place, item in enumerate(xs)}
    for i, x in enumerate(xs):
        if last_place.get(target - x, -1) > i:
            return True
    return False
""",
    ),
)
