"""Private functions that nothing but the function calls: they are rewritten like a part of it.

What they are called with is known from it, so that what is right for those kinds of values is right
for all their calls. A name that begins with an underscore says that other modules do not call them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.facts import Facts
from sharpen.code.rewrite.names import parameters
from sharpen.code.rewrite.source import Source
from sharpen.code.rewrite.types import kind_from

__all__ = ["own_helpers"]


def own_helpers(code: Code) -> Iterator[Code]:
    """Each of them, with what is known of its arguments."""
    for name, bound in code.names.module.items():
        helper = bound[0]
        if (
            len(bound) == 1
            and isinstance(helper, ast.FunctionDef)
            and helper is not code.function
            and _is_private(name)
            and not helper.decorator_list
            and not code.names.has_star
            and _is_only_called_here(code, helper)
        ):
            source = Source(code.source.text, code.source.tree, helper, name)
            kinds = {
                one: kind_from(found)
                for one in parameters(helper)
                if not (found := code.kinds.parameter(helper, one)).anything and found.names
            }
            yield Code(source, Facts(kinds, code.facts.allow, code.facts.close))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_only_called_here(code: Code, helper: ast.FunctionDef) -> bool:
    """Whether all that the module does with it is to call it, in the function or in itself."""
    if helper.name in code.names.local:
        return False
    places = [id(n) for one in (code.function, helper) for n in ast.walk(one)]
    calls = {
        id(n.func)
        for one in (code.function, helper)
        for n in ast.walk(one)
        if isinstance(n, ast.Call)
    }
    uses = 0
    for node in ast.walk(code.source.tree):
        if isinstance(node, ast.Constant) and node.value == helper.name:
            return False  # such as in __all__
        if isinstance(node, ast.Name) and node.id == helper.name:
            if id(node) not in places or id(node) not in calls:
                return False
            uses += 1
    return uses > 0
