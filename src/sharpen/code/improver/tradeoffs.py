"""Versions of which none is better than another in time, memory and length of code: a Pareto set.

The fastest version may hold a table as large as its input, or be three times as long. Of the texts
that were right, those are told that no other beats in all three (Deb et al., *NSGA-II*, IEEE TEC
2002, section III-A), the original among them. Times are those of the first look, so they are no
evidence; memory is the peak of one call of each of the largest inputs.

What differs by less than 5 % in time, or a quarter of a MiB, counts as the same: else noise would
make every text a version of its own.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sharpen.code.improver.journal import Attempt
from sharpen.code.improver.judge import Judge
from sharpen.core.errors import ExecutionError

__all__ = ["Version", "code_length", "trade_offs", "unbeaten"]

_MOST = 8  # texts whose memory is measured
_RATIO, _MIB = 1.05, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A text that nothing beats in all of time, memory and length."""

    steps: tuple[str, ...]
    """What was done; nothing for the original."""

    speedup: float
    """Times as fast at the largest inputs, by a first look."""

    memory_mib: float
    """Peak beyond an idle process, at the largest inputs."""

    length: int
    """Characters of the file's code, without comments and layout."""

    text: str
    """The whole file."""


def code_length(text: str) -> int:
    """Characters of a module's code as it is written without comments, in one layout."""
    return len(ast.unparse(ast.parse(text)))


def trade_offs(judge: Judge, found: Sequence[Attempt]) -> list[Version]:
    """The versions, the fastest first.

    Args:
        judge: knows the original and measures.
        found: texts that are right as far as was seen, the best first.
    """
    trusted = [one for one in found if one.origin != "llm" or judge.config.trust_llm]
    some = list(trusted or found)[:_MOST]
    if not some:
        return []
    is_trusted = bool(trusted)
    versions = []
    texts = [(judge.target.text, (), 1.0), *((a.text, a.steps, a.score) for a in some)]
    for text, steps, score in texts:
        with suppress(ExecutionError):
            versions.append(
                Version(
                    steps=steps,
                    speedup=score,
                    memory_mib=judge.peak_mib(text, trusted=is_trusted),
                    length=code_length(text),
                    text=text,
                )
            )
    return unbeaten(versions)


def unbeaten(versions: Sequence[Version]) -> list[Version]:
    """Those that no other beats, the fastest first; of equal ones the first."""
    kept = list(versions)
    for one in sorted(versions, key=lambda one: one.speedup):
        if any(_beats(other, one) for other in kept if other is not one):
            kept = [other for other in kept if other is not one]
    found: list[Version] = []
    for one in kept:
        if all(any(_gains(one, other)) for other in found):
            found.append(one)
    return sorted(found, key=lambda one: -one.speedup)


def _beats(one: Version, other: Version) -> bool:
    """Better in something and worse in nothing."""
    gains = _gains(one, other)
    return min(gains) >= 0 and max(gains) > 0


def _gains(one: Version, other: Version) -> tuple[int, int, int]:
    """1 where one is better than the other, -1 where worse: in time, memory and length."""
    times = math.log(max(one.speedup, 1e-9) / max(other.speedup, 1e-9)) / math.log(_RATIO)
    memory = (other.memory_mib - one.memory_mib) / _MIB
    length = other.length - one.length
    return _sign(times, 1.0), _sign(memory, 1.0), _sign(length, 0.0)


def _sign(gain: float, noise: float) -> int:
    return (gain > noise) - (gain < -noise)
