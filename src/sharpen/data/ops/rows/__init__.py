"""Operators of rows: some chosen of all, groups made one, and code of one's own."""

from __future__ import annotations

from sharpen.data.ops.rows import (
    grouping,
    own_code,
    selecting,
)

__all__ = [
    "grouping",
    "own_code",
    "selecting",
]
