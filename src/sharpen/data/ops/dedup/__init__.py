"""Deduplicators: equal and nearly equal texts, parts of texts, and images."""

from __future__ import annotations

from sharpen.data.ops.dedup import (
    exact,
    images,
    minhash,
    pieces,
    semantic,
    simhash,
)

__all__ = [
    "exact",
    "images",
    "minhash",
    "pieces",
    "semantic",
    "simhash",
]
