"""Loops that count up to the root of a number: ``math.isqrt``.

From ``r >= 0`` on, ``while r * r <= n: r += 1`` ends at ``isqrt(n) + 1``, or at once where ``r`` is
above the root already. Below 0 squares fall before they rise; the loop stays for that case.

Time O(log n) multiplications instead of O(sqrt n).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.base import Change, Rewriter
from sharpen.code.rewrite.code import Code

__all__ = ["ROOT"]

_ENDS = {
    "(r_ + 1) * (r_ + 1) <= N": "{root}({n})",
    "(r_ + 1) ** 2 <= N": "{root}({n})",
    "r_ * r_ <= N": "{root}({n}) + 1",
    "r_ ** 2 <= N": "{root}({n}) + 1",
    "r_ * r_ < N": "{root}({n} - 1) + 1",
    "r_ ** 2 < N": "{root}({n} - 1) + 1",
}


def _find(code: Code) -> Iterator[Change]:
    if not code.names.builtin("max"):
        return
    root, imports = code.library("math", "isqrt")
    for loop in code.statements():
        if not isinstance(loop, ast.While) or loop.orelse:
            continue
        step = code.match_any_block(("r_ += 1", "r_ = r_ + 1"), loop.body)
        if not step or not code.effects.is_steady(step["r_"]):
            continue
        r = step["r_"]
        for pattern, end in _ENDS.items():
            found = code.match(pattern, loop.test)
            if not found or found["r_"] != r or not isinstance(found["N"], ast.Name):
                continue
            n = found["N"].id
            block = code.source.block([loop], "    ")
            numbers = code.kinds.variable(r).only(int) and code.type(found["N"]).only(int)
            done = code.is_otherwise(loop, "r_ >= 0 < n_")
            if done or n == r or not numbers or block is None:
                continue
            line = f"    {r} = max({r}, {end.format(root=root, n=n)})"
            edit = code.exchange([loop], [f"if {r} >= 0 < {n}:", line, "else:", *block])
            yield Change("takes the root instead of counting up to it", (edit,), imports)
            break


ROOT = Rewriter(
    name="root",
    summary="counting up to the root of a number: `math.isqrt`",
    risk="types",
    find=_find,
    example=(
        """\
def whole_root(n):
    root = 0
    while (root + 1) * (root + 1) <= n:
        root += 1
    return root
""",
        """\
import math


def whole_root(n):
    root = 0
    if root >= 0 < n:
        root = max(root, math.isqrt(n))
    else:
        while (root + 1) * (root + 1) <= n:
            root += 1
    return root
""",
    ),
)
