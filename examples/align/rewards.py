"""Rewards of one's own: functions of prompts, completions and the rows' other keys."""

from collections.abc import Mapping, Sequence
from typing import Any


def short_words(
    prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """1 for words of four letters on average, less the farther from it; None drops a completion."""
    found: list[float | None] = []
    for text in completions:
        words = text.split()
        if not words:
            found.append(None)
            continue
        length = sum(map(len, words)) / len(words)
        found.append(max(0.0, 1.0 - abs(length - 4.0) / 4.0))
    return found
