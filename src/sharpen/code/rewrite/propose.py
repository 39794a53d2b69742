"""All that the rewriters have to say of a function."""

from __future__ import annotations

import ast
from itertools import pairwise

from sharpen.code.rewrite.arrays import FLOAT_ARRAY
from sharpen.code.rewrite.bags import BAG
from sharpen.code.rewrite.base import Change, Rewrite, Rewriter
from sharpen.code.rewrite.bits import BIT_COUNT
from sharpen.code.rewrite.buffers import BYTE_ROWS, ROW_PARTS
from sharpen.code.rewrite.building import COMPREHENSION, DICT_GET, EXTEND, FLATTEN
from sharpen.code.rewrite.cells import CELL_SUM
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.comparing import EXTREME_STEP
from sharpen.code.rewrite.compiled import COMPILED
from sharpen.code.rewrite.comprehension_joins import COMPREHENSION_JOIN
from sharpen.code.rewrite.counting_order import COUNT_BEHIND, COUNT_BELOW
from sharpen.code.rewrite.counts import COUNTER, FIRST_PLACES
from sharpen.code.rewrite.differences import RANGE_ADD
from sharpen.code.rewrite.divisor_lists import DIVISORS
from sharpen.code.rewrite.divisors import DIVISOR_PAIRS, LEAST_DIVISOR
from sharpen.code.rewrite.draining import DRAIN
from sharpen.code.rewrite.euclid import COMMON_DIVISOR, COMMON_MULTIPLE
from sharpen.code.rewrite.facts import Facts
from sharpen.code.rewrite.following import NEXT_BEYOND
from sharpen.code.rewrite.fronts import FRONT
from sharpen.code.rewrite.grouping import GROUP_TABLE
from sharpen.code.rewrite.growing_counts import GROWING_COUNTS
from sharpen.code.rewrite.hand_sorts import HAND_SORT
from sharpen.code.rewrite.helpers import own_helpers
from sharpen.code.rewrite.hoisting import HOIST
from sharpen.code.rewrite.inline import INLINE
from sharpen.code.rewrite.inner_tables import INNER_TABLE, ROW_SETS
from sharpen.code.rewrite.iteration import ITEM_LOOP
from sharpen.code.rewrite.joins import HASH_JOIN, INDEXED_LOOP
from sharpen.code.rewrite.leaving import EARLY_EXIT
from sharpen.code.rewrite.letters import FIND_LOOP, LETTER_COUNT
from sharpen.code.rewrite.listed import LISTED
from sharpen.code.rewrite.membership import GROWING_SET, PLACES, SET_MEMBERSHIP
from sharpen.code.rewrite.memo import MEMO
from sharpen.code.rewrite.memo_called import MEMO_CALLED
from sharpen.code.rewrite.powers import MODULAR_POWER, POWER_LOOP
from sharpen.code.rewrite.products import PRODUCT_LOOP
from sharpen.code.rewrite.queues import DEQUE
from sharpen.code.rewrite.ranges import PREFIX_SUMS, RUNNING_EXTREMES
from sharpen.code.rewrite.reductions import COUNT_LOOP, EXTREME_LOOP, SUM_LOOP
from sharpen.code.rewrite.redundant import REDUNDANT_COPY, REMOVE_ALL
from sharpen.code.rewrite.rising import RISING
from sharpen.code.rewrite.roots import ROOT
from sharpen.code.rewrite.searching import PASS_ON, SEARCH_LOOP
from sharpen.code.rewrite.selection import SELECTION
from sharpen.code.rewrite.shifting import SHIFT
from sharpen.code.rewrite.sorting import INSORT, PARTIAL_SORT
from sharpen.code.rewrite.source import Edit, Source
from sharpen.code.rewrite.spreads import SPREAD
from sharpen.code.rewrite.stabbing import INTERVALS
from sharpen.code.rewrite.stretches import STRETCHES
from sharpen.code.rewrite.subexpressions import COMMON_SUBEXPRESSION
from sharpen.code.rewrite.texts import JOIN
from sharpen.code.rewrite.windows import WINDOW_EXTREMES

__all__ = ["REWRITERS", "propose"]

REWRITERS: tuple[Rewriter, ...] = (
    HASH_JOIN,
    INDEXED_LOOP,
    COMPREHENSION_JOIN,
    SET_MEMBERSHIP,
    GROWING_SET,
    PLACES,
    MEMO,
    MEMO_CALLED,
    COUNTER,
    GROWING_COUNTS,
    FIRST_PLACES,
    LEAST_DIVISOR,
    DIVISOR_PAIRS,
    DIVISORS,
    COMMON_DIVISOR,
    COMMON_MULTIPLE,
    ROOT,
    BIT_COUNT,
    DEQUE,
    PREFIX_SUMS,
    RUNNING_EXTREMES,
    WINDOW_EXTREMES,
    NEXT_BEYOND,
    COUNT_BELOW,
    COUNT_BEHIND,
    INTERVALS,
    RANGE_ADD,
    RISING,
    SPREAD,
    GROUP_TABLE,
    HAND_SORT,
    SELECTION,
    INSORT,
    PARTIAL_SORT,
    POWER_LOOP,
    MODULAR_POWER,
    DRAIN,
    SHIFT,
    EXTEND,
    JOIN,
    FLATTEN,
    STRETCHES,
    BAG,
    FRONT,
    ROW_SETS,
    INNER_TABLE,
    SEARCH_LOOP,
    PASS_ON,
    LETTER_COUNT,
    FIND_LOOP,
    FLOAT_ARRAY,
    BYTE_ROWS,
    ROW_PARTS,
    COMPILED,
    CELL_SUM,
    HOIST,
    EARLY_EXIT,
    SUM_LOOP,
    PRODUCT_LOOP,
    COUNT_LOOP,
    EXTREME_LOOP,
    REMOVE_ALL,
    COMMON_SUBEXPRESSION,
    REDUNDANT_COPY,
    INLINE,
    EXTREME_STEP,
    LISTED,
    ITEM_LOOP,
    DICT_GET,
    COMPREHENSION,
)
"""In the order in which they are tried: what changes how time grows comes first."""


def propose(text: str, entry: str, facts: Facts) -> list[Rewrite]:
    """The rewrites of one step, each of one place; none twice.

    Those of private functions that nothing else calls come after those of the function itself.

    Call it again on a result for further steps. Same arguments, same rewrites in the same order.

    Args:
        text: of the module.
        entry: the function, such as ``f`` or ``Class.method``.
        facts: of its arguments.

    Raises:
        FileFormatError: the text is no Python.
        ConfigError: there is no such function.
    """
    code = Code(Source.parse(text, entry), facts)
    found: dict[str, Rewrite] = {}
    if not code.is_plain:
        return []
    _collect(code, "", found)
    for helper in own_helpers(code):
        if helper.is_plain:
            _collect(helper, f"in {helper.source.entry}: ", found)
    return list(found.values())


def _collect(code: Code, where: str, found: dict[str, Rewrite]) -> None:
    """Add the rewrites of one function to those that are found, by their text."""
    for rewriter in REWRITERS:
        if not code.facts.allow.issuperset(rewriter.needs):
            continue
        if code.is_generator and not rewriter.in_generators:
            continue
        for change in rewriter.find(code):
            edits = _with_imports(code, change)
            if edits is None:
                continue
            new = code.source.apply(edits)
            if new != code.source.text:
                found.setdefault(
                    new,
                    Rewrite(
                        rewriter=rewriter.name,
                        explain=where + change.explain,
                        risk=rewriter.risk,
                        text=new,
                    ),
                )


def _with_imports(code: Code, change: Change) -> list[Edit] | None:
    """The edits with those that import modules.

    Returns:
        None where such a name means something else, or one edit lies in another.
    """
    edits = list(change.edits)
    spans = sorted((e.start, e.end) for e in edits)
    if spans[0][0] < 0 or any(one[1] > other[0] for one, other in pairwise(spans)):
        return None
    missing = []
    for name in change.imports:
        if code.names.imported.get(name) == name:
            continue
        if name in code.names.used:
            return None
        missing.append(name)
    if missing:
        edits.insert(0, _import(code.source, sorted(missing)))
    return edits


def _import(source: Source, modules: list[str]) -> Edit:
    """Import statements after those at the top of a module, else before its first statement."""
    last: ast.stmt | None = None
    for statement in source.tree.body:
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if isinstance(statement, (ast.Import, ast.ImportFrom)) or (last is None and is_text):
            last = statement
        else:
            break
    lines = "".join(f"import {name}\n" for name in modules)
    if last is None:
        start, _ = source.span(source.tree.body[0])
        return Edit(start, start, lines + "\n\n")
    _, end = source.whole_lines([last])
    gap = "" if isinstance(last, (ast.Import, ast.ImportFrom)) else "\n"
    return Edit(end, end, "\n" + gap + lines.rstrip("\n"))
