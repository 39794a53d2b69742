"""Operators of LaTeX, HTML and source code."""

from __future__ import annotations

from sharpen.data.ops.formats import (
    latex,
    markup,
    source_code,
)

__all__ = [
    "latex",
    "markup",
    "source_code",
]
