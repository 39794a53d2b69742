"""A reward that never ends for one completion in twenty; light, since each worker imports it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["HANGS", "WORK_S", "hangs", "judged"]

HANGS = 0.05
WORK_S = 0.01


def hangs(text: str) -> bool:
    """Whether the reward of a completion never ends."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return number < HANGS * 2**32


def judged(
    prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """The share of vowels, after some waiting."""
    for text in completions:
        time.sleep(1e9 if hangs(text) else WORK_S)
    return [sum(one in "aeiou" for one in text) / max(1, len(text)) for text in completions]
