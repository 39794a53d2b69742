"""Lists, dicts and texts that are built in loops.

``out = out + part`` copies what is there each time, ``out += part`` does not; a list that a loop
fills with ``append`` is a comprehension, which calls no method; ``sum`` of lists copies all that
came before. A list may only be changed in place where nobody else holds it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads, same_scope

__all__ = ["COMPREHENSION", "DICT_GET", "EXTEND", "FLATTEN"]


def _find_extend(code: Code) -> Iterator[Change]:
    for statement in code.statements():
        found = code.match("xs_ = xs_ + X", statement)
        if not found or not code.loops(statement):
            continue
        name, part = found["xs_"], found["X"]
        if not (code.type(part).only(list) and code.kinds.variable(name).only(list)):
            continue
        if not code.effects.is_private(name) or name in loads([part]):
            continue
        heads = [loop.iter for loop in code.loops(statement) if isinstance(loop, ast.For)]
        if name in loads(heads):
            continue
        one = isinstance(part, ast.List) and len(part.elts) == 1
        if one and not isinstance(part.elts[0], ast.Starred):
            line = code.line(f"{name}.append($x)", {"x": part.elts[0]})
        else:
            line = code.line(f"{name} += $x", {"x": part})
        edit = code.replace([statement], [line])
        if edit is not None:
            yield Change(f"adds to {name} without a copy of it", (edit,))


EXTEND = Rewriter(
    name="extend",
    summary="`out = out + part` in a loop: `out += part`",
    risk="types",
    find=_find_extend,
    example=(
        """\
def joined(lists):
    out = []
    for part in lists:
        out = out + part
    return out
""",
        """\
def joined(lists):
    out = []
    for part in lists:
        out += part
    return out
""",
    ),
)


def _find_flatten(code: Code) -> Iterator[Change]:
    for node in code.expressions():
        found = code.match("sum(XS, [])", node)
        if found and code.items(found["XS"]).only(list):
            chain, imports = code.library("itertools", "chain")
            yield Change(
                "joins lists without copies of those before",
                (code.swap(node, f"list({chain}.from_iterable($xs))", xs=found["XS"]),),
                imports,
            )


FLATTEN = Rewriter(
    name="flatten",
    summary="`sum(lists, [])`: `itertools.chain`",
    risk="types",
    find=_find_flatten,
    example=(
        """\
def flat(lists):
    return sum(lists, [])
""",
        """\
import itertools


def flat(lists):
    return list(itertools.chain.from_iterable(lists))
""",
    ),
)

_APPENDS = ("xs_.append(E)", "xs_.add(E)", "xs_[K] = E")


def _find_comprehensions(code: Code) -> Iterator[Change]:
    for block in code.blocks():
        for made, loop in pairwise(block):
            if isinstance(loop, ast.For) and isinstance(made, (ast.Assign, ast.AnnAssign)):
                change = _comprehend(code, made, loop)
                if change is not None:
                    yield change


def _comprehend(code: Code, made: ast.Assign | ast.AnnAssign, loop: ast.For) -> Change | None:
    target = made.target if isinstance(made, ast.AnnAssign) else made.targets[0]
    if isinstance(made, ast.Assign) and len(made.targets) > 1:
        return None
    if not isinstance(target, ast.Name) or made.value is None or code.in_try(loop):
        return None
    name, empty = target.id, ast.unparse(made.value)
    if not code.effects.is_steady(name) or name in code.names.captured:
        return None
    if code.effects.may_recurse(loop):
        return None
    if empty not in ("[]", "{}") and code.match("set()", made.value) is None:
        return None
    fors: list[str] = []
    bound: set[str] = set()
    statement: ast.stmt = loop
    while not isinstance(statement, ast.Expr | ast.Assign):
        if isinstance(statement, ast.For) and not statement.orelse and len(statement.body) == 1:
            fors.append(f"for {code.text(statement.target)} in {_inside(code, statement.iter)}")
            bound |= binds([statement.target])
            simple = (ast.Name, ast.Tuple, ast.expr_context)
            if not all(isinstance(n, simple) for n in ast.walk(statement.target)):
                return None
        elif isinstance(statement, ast.If) and not statement.orelse and len(statement.body) == 1:
            fors.append(f"if {_inside(code, statement.test)}")
        else:
            return None
        statement = statement.body[0]
    element = _element(code, statement, name, empty)
    if element is None or not all(code.is_unread(n, [loop]) for n in bound):
        return None
    inner = [n for n in same_scope([loop]) if isinstance(n, ast.expr)]
    uses = [n for n in inner if isinstance(n, ast.Name) and n.id == name]
    odd = (ast.Lambda, ast.NamedExpr, ast.Yield, ast.Await)
    if len(uses) != 1 or any(isinstance(n, odd) for n in inner) or name in bound:
        return None
    if binds([loop]) - bound or "super" in loads([loop]) or "__class__" in loads([loop]):
        return None
    brackets = "[]" if empty == "[]" else "{}"
    text = f"{brackets[0]}{element} {' '.join(fors)}{brackets[1]}"
    start = code.text(target)
    if isinstance(made, ast.AnnAssign):
        start += f": {code.text(made.annotation)}"
    edit = code.replace([made, loop], [f"{start} = {text}"])
    return Change(f"builds {name} in a comprehension", (edit,)) if edit is not None else None


def _inside(code: Code, node: ast.expr) -> str:
    text = code.text(node)
    bare = isinstance(node, (ast.IfExp, ast.Lambda, ast.Tuple)) and text[0] != "("
    return f"({text})" if bare else text


def _element(code: Code, statement: ast.stmt, name: str, empty: str) -> str | None:
    for pattern, kind in zip(_APPENDS, ("[]", "set()", "{}"), strict=True):
        found = code.match(pattern, statement)
        if not found or found["xs_"] != name or empty != kind:
            continue
        if kind != "{}":
            text = code.text(found["E"])
            return f"({text})" if isinstance(found["E"], ast.Tuple) and text[0] != "(" else text
        if code.effects.is_total(found["K"]) or code.effects.is_total(found["E"]):
            return f"{_inside(code, found['K'])}: {_inside(code, found['E'])}"
    return None


COMPREHENSION = Rewriter(
    name="comprehension",
    summary="a loop that only fills a list, set or dict: a comprehension",
    risk="exact",
    find=_find_comprehensions,
    example=(
        """\
def squares_of_even(xs):
    out = []
    for x in xs:
        if x % 2 == 0:
            out.append(x * x)
    return out
""",
        """\
def squares_of_even(xs):
    out = [x * x for x in xs if x % 2 == 0]
    return out
""",
    ),
)

_COUNTED = (
    "if K in d_:\n d_[K] += V\nelse:\n d_[K] = W",
    "if K in d_:\n d_[K] = d_[K] + V\nelse:\n d_[K] = W",
    "if K not in d_:\n d_[K] = W\nelse:\n d_[K] += V",
    "if K not in d_:\n d_[K] = W\nelse:\n d_[K] = d_[K] + V",
    "if K in d_.keys():\n d_[K] += V\nelse:\n d_[K] = W",
    "if K in d_.keys():\n d_[K] = d_[K] + V\nelse:\n d_[K] = W",
)


def _find_gets(code: Code) -> Iterator[Change]:
    for statement in code.statements():
        found = code.match_any(_COUNTED, statement) if isinstance(statement, ast.If) else None
        if not found or not code.kinds.variable(found["d_"]).only(dict):
            continue
        values = code.kinds.values_of(found["d_"])
        if not values.is_number:
            continue
        value, first = ast.unparse(found["V"]), ast.unparse(found["W"])
        whole = code.type(found["V"]).only(int) and code.effects.is_total(found["V"])
        total = code.effects.is_total(found["K"]) and code.type(found["K"]).is_hashable
        if value != first or not whole or not total:
            continue
        line = code.line(
            "$d[$k] = $d.get($k, 0) + $v", {"d": found["d_"], "k": found["K"], "v": found["V"]}
        )
        edit = code.replace([statement], [line])
        if edit is not None:
            yield Change("looks a key up once less", (edit,))


DICT_GET = Rewriter(
    name="dict-get",
    summary="adding to an item of a dict that may be missing: `get`",
    risk="types",
    find=_find_gets,
    example=(
        """\
def tally(xs):
    counts = {}
    for x in xs:
        if x in counts:
            counts[x] += 1
        else:
            counts[x] = 1
    return counts
""",
        """\
def tally(xs):
    counts = {}
    for x in xs:
        counts[x] = counts.get(x, 0) + 1
    return counts
""",
    ),
)
