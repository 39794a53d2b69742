"""Mappers and splitters: texts cleaned, cut, masked and rewritten."""

from __future__ import annotations

from sharpen.data.ops.mappers import (
    augment,
    cleaning,
    privacy,
    questions,
    rewriting,
    sentences,
    tokens,
)

__all__ = [
    "augment",
    "cleaning",
    "privacy",
    "questions",
    "rewriting",
    "sentences",
    "tokens",
]
