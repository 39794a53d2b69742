"""What a rewriter is: it finds places of a function that could be faster and changes one each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.source import Edit

__all__ = ["Change", "Rewrite", "Rewriter", "Risk"]

Risk = Literal["exact", "types", "float-reorder", "overflow", "memory"]
"""What a rewrite rests on: ``exact`` on nothing, ``types`` on the kinds of arguments seen,
``float-reorder`` changes how sums are rounded, ``overflow`` on the bounds of numbers, ``memory``
keeps values that were not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A changed module."""

    rewriter: str
    """The name of what made it, such as ``set-membership``."""

    explain: str
    """One sentence for the user: what was done, and why it is the same and faster."""

    risk: Risk
    text: str
    """The whole module after the change; all outside of the change is byte for byte the same."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a rewriter does in one place.

    Args:
        explain: one sentence for the user.
        edits: of the module's text.
        imports: modules to import by their names where the module does not yet, such as ``bisect``.
    """

    explain: str
    edits: tuple[Edit, ...]
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriter:
    """A technique.

    Args:
        name: in lower case with hyphens.
        summary: what it changes, in a few words.
        risk: the worst that its rewrites rest on.
        find: gives one change a place; it raises nothing, whatever the code is.
        example: a function before and after.
        needs: packages that it imports; without them in ``Facts.allow`` it is not asked.
        in_generators: whether it is right in generators too, which stop between statements: it
            changes one expression or statement in place.
    """

    name: str
    summary: str
    risk: Risk
    find: Callable[[Code], Iterator[Change]]
    example: tuple[str, str] = ("", "")
    needs: tuple[str, ...] = ()
    in_generators: bool = False
