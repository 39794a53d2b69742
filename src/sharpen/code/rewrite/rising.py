"""The longest rising subsequence that ends at each item: patience sorting.

``least[k]`` is the least item at which a rising subsequence of ``k + 1`` items ends; it rises with
``k``, so a binary search tells the longest one that an item lengthens (Schensted, "Longest
increasing and decreasing subsequences", 1961; Fredman, 1975).

Time O(n log n) instead of O(n^2). Only for items that are all ``int`` or all ``str``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code

__all__ = ["RISING"]

_RISES = {"<": "left", "<=": "right"}
_OUTER = ("range(len(xs_))", "range(1, len(xs_))", "range(n_)", "range(1, n_)")
_KEPT = (
    "best_[i_] = max(best_[i_], best_[j_] + 1)",
    "best_[i_] = max(best_[i_], 1 + best_[j_])",
    "best_[i_] = max(best_[j_] + 1, best_[i_])",
)


def _patterns(sign: str) -> Iterator[str]:
    """The loops, where an item may follow another with ``other sign item``."""
    turned = sign.replace("<", ">")
    tests = (f"xs_[j_] {sign} xs_[i_]", f"xs_[i_] {turned} xs_[j_]")
    for over, test, kept in product(_OUTER, tests, _KEPT):
        yield f"for i_ in {over}:\n for j_ in range(i_):\n  if {test}:\n   {kept}"
    for over, test in product(_OUTER, tests):
        for more in ("best_[j_] + 1 > best_[i_]", "best_[i_] < best_[j_] + 1"):
            yield (
                f"for i_ in {over}:\n for j_ in range(i_):\n  if {test} and {more}:\n"
                "   best_[i_] = best_[j_] + 1"
            )


def _find(code: Code) -> Iterator[Change]:
    for loop in code.statements():
        if not isinstance(loop, ast.For) or loop.orelse or len(loop.body) != 1:
            continue
        for sign, side in _RISES.items():
            found = code.match_any(_patterns(sign), loop)
            if not found:
                continue
            change = _sorted(code, loop, side, found["xs_"], found["best_"], found)
            if change is not None:
                yield change


def _sorted(
    code: Code, loop: ast.For, side: str, box: str, best: str, found: dict[str, str]
) -> Change | None:
    items = code.kinds.items_of(box)
    if not code.kinds.variable(box).only(list, tuple) or not code.effects.is_private(best):
        return None
    if not (items.only(int) or items.only(str)) or not code.effects.keeps([loop], box):
        return None
    if len({box, best, found["i_"], found["j_"]}) < 4:
        return None
    block, at = code.home(loop)
    made = code.match_any(("best_ = [1] * N", "best_ = [1 for k_ in range(N)]"), block[at - 1])
    if at == 0 or not made or made["best_"] != best or not code.effects.is_length(made["N"], box):
        return None
    if "n_" in found and not code.effects.is_length(loop.iter.args[-1], box):  # type: ignore[attr-defined]
        return None
    if not all(code.is_unread(found[name], [loop]) for name in ("i_", "j_")):
        return None
    search, imports = code.library("bisect", f"bisect_{side}")
    fresh = code.names.fresh
    least, item, place = fresh("least"), fresh("item"), fresh("place")
    i = found["i_"]
    lines = [
        f"{least} = []",
        f"for {i}, {item} in enumerate({box}):",
        f"    {place} = {search}({least}, {item})",
        f"    {least}[{place}:{place} + 1] = [{item}]",
        f"    {best}[{i}] = {place} + 1",
    ]
    edit = code.replace([loop], lines)
    if edit is None or not code.names.builtin("enumerate"):
        return None
    return Change("finds the longest rising subsequences by binary search", (edit,), imports)


RISING = Rewriter(
    name="rising",
    summary="a table of the longest rising subsequences: binary search",
    risk="types",
    find=_find,
    example=(
        """\
def longest_rise(xs):
    best = [1] * len(xs)
    for i in range(len(xs)):
        for j in range(i):
            if xs[j] < xs[i]:
                best[i] = max(best[i], best[j] + 1)
    return max(best, default=0)
""",
        """\
import bisect


def longest_rise(xs):
    best = [1] * len(xs)
    least = []
    for i, item in enumerate(xs):
        place = bisect.bisect_left(least, item)
        least[place:place + 1] = [item]
        best[i] = place + 1
    return max(best, default=0)
""",
    ),
)
