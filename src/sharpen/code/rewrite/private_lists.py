"""Lists that a function makes and nobody else holds: another container in their place."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence

from sharpen.code.rewrite.base import Change
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.source import Edit

__all__ = ["in_place_of_lists"]

Use = Callable[[Code, str, ast.Name, ast.AST | None], tuple[Sequence[Edit], bool] | None]
"""What changes where a list is used, and whether that is what the container is for: of its name,
the use, and what the use stands in. None where the other container does something else."""


def in_place_of_lists(
    code: Code,
    maker: tuple[str, str],
    use: Use,
    *,
    explain: str,
    may: Callable[[str], bool] = lambda name: True,
) -> Iterator[Change]:
    """Changes that make another container in the place of a private list, one a list.

    Args:
        code: the function.
        maker: module and name of the container.
        use: what changes at each use that does not bind the name.
        explain: with ``{}`` for the list.
        may: whether a list is looked at.
    """
    made, _ = code.library(*maker)
    for name in sorted(code.names.local):
        private = code.effects.is_private(name) and code.kinds.variable(name).only(list)
        if not private or not may(name):
            continue
        edits: list[Edit] = []
        wanted = False
        for node in code.effects.uses(name):
            parent = code.effects.parent(node)
            if isinstance(parent, (ast.Assign, ast.AnnAssign)):
                if parent.value is None:
                    break
                empty = isinstance(parent.value, ast.List) and not parent.value.elts
                text = f"{made}()" if empty else f"{made}($x)"
                edits.append(code.swap(parent.value, text, x=parent.value))
                continue
            found = use(code, name, node, parent)
            if found is None:
                break
            edits += found[0]
            wanted = wanted or found[1]
        else:
            if wanted:
                _, imports = code.library(*maker)
                yield Change(explain.format(name), tuple(edits), imports)
