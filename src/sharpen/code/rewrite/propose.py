"""All that the rewriters have to say of a function."""

from __future__ import annotations

from sharpen.code.rewrite.base import Rewrite, Rewriter
from sharpen.code.rewrite.facts import Facts
from sharpen.code.rewrite.source import Source

__all__ = ["REWRITERS", "propose"]

REWRITERS: tuple[Rewriter, ...] = ()
"""In the order in which they are tried: what changes how time grows comes first."""


def propose(text: str, entry: str, facts: Facts) -> list[Rewrite]:
    """The rewrites of one step, each of one place; none twice.

    Call it again on a result for further steps. Same arguments, same rewrites in the same order.

    Args:
        text: of the module.
        entry: the function, such as ``f`` or ``Class.method``.
        facts: of its arguments.

    Raises:
        FileFormatError: the text is no Python.
        ConfigError: there is no such function.
    """
    source = Source.parse(text, entry)
    found: list[Rewrite] = []
    seen = {text}
    for rewriter in REWRITERS:
        if not facts.allow.issuperset(rewriter.needs):
            continue
        for rewrite in rewriter.find(source, facts):
            if rewrite.text not in seen:
                seen.add(rewrite.text)
                found.append(rewrite)
    return found
