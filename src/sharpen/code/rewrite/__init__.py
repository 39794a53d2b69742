"""Deterministic rewriting of functions into faster ones; see :func:`propose`."""

from __future__ import annotations

from sharpen.code.rewrite.base import Change, Rewrite, Rewriter, Risk
from sharpen.code.rewrite.code import Code
from sharpen.code.rewrite.facts import Facts, Kind, kind_of, observe
from sharpen.code.rewrite.propose import REWRITERS, propose
from sharpen.code.rewrite.source import Source

__all__ = [
    "REWRITERS",
    "Change",
    "Code",
    "Facts",
    "Kind",
    "Rewrite",
    "Rewriter",
    "Risk",
    "Source",
    "kind_of",
    "observe",
    "propose",
]
