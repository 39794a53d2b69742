"""The hash of kernels on texts, for twins and lists: FNV-1a over code points, then SplitMix64."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["hash_points", "hash_text", "mixed"]

_MASK = (1 << 64) - 1
_BASIS, _PRIME = 0xCBF29CE484222325, 0x100000001B3


def mixed(h: int) -> int:
    """SplitMix64's finalizer."""
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
    return h ^ (h >> 31)


def hash_points(points: Iterable[int]) -> int:
    """64 bits of code points."""
    h = _BASIS
    for point in points:
        h = ((h ^ point) * _PRIME) & _MASK
    return mixed(h)


def hash_text(text: str) -> int:
    """64 bits of a text."""
    return hash_points(map(ord, text))
