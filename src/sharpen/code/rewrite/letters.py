"""Loops over the letters of a text that count some of them, or look for a part: in C.

``text.count(letter)`` is a scan in C, so counting a few letters takes as many scans; and
``text.find(part, place)`` looks for the next place of a part (Crochemore and Perrin, "Two-way
string-matching", 1991, for long ones), overlapping ones too where it goes on one letter further.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.names import binds, loads

__all__ = ["FIND_LOOP", "LETTER_COUNT"]

_MOST = 16  # letters that are counted one by one
_COUNTED = ("if T:\n c_ += 1", "if T:\n c_ = c_ + 1")
_SUMS = (
    "sum(1 for x_ in XS if T)",
    "sum([1 for x_ in XS if T])",
    "len([x_ for x_ in XS if T])",
    "sum(T for x_ in XS)",
    "sum([T for x_ in XS])",
)


def _letters(node: ast.expr) -> str | None:
    """The letters that an expression writes, each once."""
    values: list[object] = []
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        values = list(node.value)
    elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        values = [e.value if isinstance(e, ast.Constant) else None for e in node.elts]
    texts = [v for v in values if isinstance(v, str) and len(v) == 1]
    found = "".join(dict.fromkeys(texts))
    return found if texts and len(texts) == len(values) and len(found) <= _MOST else None


def _count(code: Code, letter: str, test: ast.expr, text: ast.expr) -> str | None:
    """A template of how many letters of ``$text`` a test holds for."""
    if not code.type(text).only(str):
        return None
    found = code.match_any(("x_ == S", "S == x_"), test)
    if found and found["x_"] == letter and isinstance(found["S"], ast.Constant):
        one = _letters(found["S"])
        return f"$text.count({one!r})" if one and len(one) == 1 else None
    inside, outside = code.match("x_ in S", test), code.match("x_ not in S", test)
    found = inside or outside
    letters = _letters(found["S"]) if found and found["x_"] == letter else None
    if letters is None or not all(code.names.builtin(n) for n in ("sum", "map", "len")):
        return None
    many = f"sum(map($text.count, {letters!r}))"
    if inside:
        return many
    return f"len($text) - {many}" if isinstance(text, ast.Name) else None


def _find_counts(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not (isinstance(loop, ast.For) and isinstance(loop.target, ast.Name)) or loop.orelse:
            continue
        found = code.match_any_block(_COUNTED, loop.body)
        template = _count(code, loop.target.id, found["T"], loop.iter) if found else None
        if not found or template is None or not code.is_unread(loop.target.id, [loop]):
            continue
        count = found["c_"]
        whole = code.kinds.variable(count).is_integer and code.effects.is_steady(count)
        if not whole or count in loads([loop.iter]) or not code.is_bound_before(count, loop):
            continue
        line = code.line(f"{count} += {template}", {"text": loop.iter})
        edit = code.replace([loop], [line])
        if edit is not None:
            yield Change(_EXPLAIN, (edit,))
    for node in code.expressions():
        found = code.match_any(_SUMS, node)
        template = _count(code, found["x_"], found["T"], found["XS"]) if found else None
        if found and template is not None:
            template = f"({template})" if template.startswith("len") else template
            yield Change(_EXPLAIN, (code.swap(node, template, text=found["XS"]),))


_EXPLAIN = "lets the text count the letters"


LETTER_COUNT = Rewriter(
    name="letter-count",
    summary="counting some letters of a text in a loop: `count` for each of them",
    risk="types",
    find=_find_counts,
    example=(
        """\
def vowels_in(text):
    count = 0
    for letter in text:
        if letter in "aeiou":
            count += 1
    return count
""",
        """\
def vowels_in(text):
    count = 0
    count += sum(map(text.count, 'aeiou'))
    return count
""",
    ),
)

_HERE = ("t_[i_:i_ + M] == P", "P == t_[i_:i_ + M]", "t_.startswith(P, i_)")
_ALL_PLACES = ("range(N - M + 1)", "range(0, N - M + 1)", "range(N + 1 - M)")


def _find_places(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not (isinstance(loop, ast.For) and isinstance(loop.target, ast.Name)) or loop.orelse:
            continue
        found = code.match_block("if T:\n BODY", loop.body)
        here = code.match_any(_HERE, found["T"]) if found else None
        if not found or not here or here["i_"] != loop.target.id:
            continue
        text, place, part = here["t_"], loop.target.id, here["P"]
        if text not in code.names.local or not code.kinds.variable(text).only(str):
            continue
        if not code.type(part).only(str) or not (
            "M" not in here or _is_length(code, here["M"], part)
        ):
            continue
        if not _is_kept(code, loop, place, text, part, found["BODY"]):
            continue
        more = _condition(code, loop, place, text, part)
        block = code.source.block(found["BODY"], "    ")
        if more is None or block is None:
            continue
        p = code.text(part)
        lines = [
            f"{place} = {text}.find({p})",
            f"while {more}:",
            *block,
            f"    {place} = {text}.find({p}, {place} + 1)",
        ]
        edit = code.replace([loop], lines)
        if edit is not None:
            yield Change(f"lets {text} look for the next place of the part", (edit,))


def _is_length(code: Code, node: ast.expr, part: ast.expr) -> bool:
    if isinstance(part, ast.Name):
        return code.effects.is_length(node, part.id)
    return (
        isinstance(node, ast.Constant)
        and isinstance(part, ast.Constant)
        and isinstance(part.value, str)
        and type(node.value) is int
        and node.value == len(part.value)
    )


def _is_kept(
    code: Code, loop: ast.For, place: str, text: str, part: ast.expr, action: list[ast.stmt]
) -> bool:
    """Whether an action leaves the names of a search alone, and does not skip its next step."""
    names = {text} | loads([part])
    if names & binds([loop]) or place in names or place in binds(action):
        return False
    if not all(code.effects.is_steady(n) for n in names | {place}):
        return False
    skips = any(isinstance(n, ast.Continue) for s in action for n in ast.walk(s))
    return not skips and code.is_unread(place, [loop])


def _condition(code: Code, loop: ast.For, place: str, text: str, part: ast.expr) -> str | None:
    """Whether a place that was found is one of those that the loop would have come to."""
    found = code.match_any(_ALL_PLACES, loop.iter)
    if found and code.effects.is_length(found["N"], text) and _is_length(code, found["M"], part):
        return f"{place} >= 0"
    found = code.match_any(("range(N)", "range(0, N)"), loop.iter)
    if found and code.effects.is_length(found["N"], text):
        return f"0 <= {place} < {code.text(found['N'])}"
    return None


FIND_LOOP = Rewriter(
    name="find-loop",
    summary="a loop that compares a part of a text at each place: `find`",
    risk="types",
    find=_find_places,
    example=(
        """\
def places_of(text, part):
    out = []
    for i in range(len(text) - len(part) + 1):
        if text[i : i + len(part)] == part:
            out.append(i)
    return out
""",
        """\
def places_of(text, part):
    out = []
    i = text.find(part)
    while i >= 0:
        out.append(i)
        i = text.find(part, i + 1)
    return out
""",
    ),
)
