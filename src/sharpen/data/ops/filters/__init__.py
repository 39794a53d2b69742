"""Filters: rows kept by what is measured of their texts, and by their other fields."""

from __future__ import annotations

from sharpen.data.ops.filters import (
    characters,
    contamination,
    fields,
    language_id,
    language_models,
    lines,
    lists,
    quality,
    shares,
    web,
    words,
)

__all__ = [
    "characters",
    "contamination",
    "fields",
    "language_id",
    "language_models",
    "lines",
    "lists",
    "quality",
    "shares",
    "web",
    "words",
]
