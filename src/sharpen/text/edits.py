"""Changes to a text by whole sentences, and by phrases that the user offers.

::

    delete     a sentence                    insert    a phrase, anywhere
    swap       two neighbouring sentences    replace   a sentence by a phrase
    move       a sentence to another place
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["EDITS", "edited", "sentences"]

_END = re.compile(r"(?<=[.!?])\s+|\n+")


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, without white space around them."""
    return [part.strip() for part in _END.split(text) if part.strip()]


def _delete(parts: list[str], phrases: Sequence[str], rng: np.random.Generator) -> list[str] | None:
    if len(parts) < 2:
        return None
    k = int(rng.integers(len(parts)))
    return parts[:k] + parts[k + 1 :]


def _swap(parts: list[str], phrases: Sequence[str], rng: np.random.Generator) -> list[str] | None:
    if len(parts) < 2:
        return None
    k = int(rng.integers(len(parts) - 1))
    return [*parts[:k], parts[k + 1], parts[k], *parts[k + 2 :]]


def _move(parts: list[str], phrases: Sequence[str], rng: np.random.Generator) -> list[str] | None:
    if len(parts) < 3:
        return None
    start, to = (int(k) for k in rng.choice(len(parts), size=2, replace=False))
    left = parts[:start] + parts[start + 1 :]
    return [*left[:to], parts[start], *left[to:]]


def _insert(parts: list[str], phrases: Sequence[str], rng: np.random.Generator) -> list[str] | None:
    unused = [phrase for phrase in phrases if phrase not in parts]
    if not unused:
        return None
    k = int(rng.integers(len(parts) + 1))
    return [*parts[:k], unused[int(rng.integers(len(unused)))], *parts[k:]]


def _replace(
    parts: list[str], phrases: Sequence[str], rng: np.random.Generator
) -> list[str] | None:
    unused = [phrase for phrase in phrases if phrase not in parts]
    if not unused or not parts:
        return None
    k = int(rng.integers(len(parts)))
    return [*parts[:k], unused[int(rng.integers(len(unused)))], *parts[k + 1 :]]


EDITS: dict[str, Callable[[list[str], Sequence[str], np.random.Generator], list[str] | None]] = {
    "delete": _delete,
    "swap": _swap,
    "move": _move,
    "insert": _insert,
    "replace": _replace,
}
"""By name; each gives None where it cannot be applied."""


def edited(text: str, edit: str, phrases: Sequence[str], rng: np.random.Generator) -> str | None:
    """A text after one edit at random; None where it cannot be applied.

    Args:
        text: what to change.
        edit: a name of ``EDITS``.
        phrases: sentences that may be put in.
        rng: random numbers.
    """
    parts = EDITS[edit](sentences(text), phrases, rng)
    return None if parts is None else " ".join(parts)
