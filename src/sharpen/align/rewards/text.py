"""Simple rewards that look at the text alone, or at an answer that the row knows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.align.rewards.registry import Meta
from sharpen.core.errors import ConfigError

__all__ = ["Exact", "Json", "Length", "Number", "Pattern"]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?|-?\.\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exact:
    """1 where the completion is the row's answer, but for space around it; else 0.

    A row without an answer is left out.
    """

    key: str = "answer"
    """The row's key of the answer: a text or a number, or a list of answers that are as good."""

    ignore_case: bool = False

    @property
    def needs(self) -> str:
        """The key."""
        return self.key

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> list[float | None]:
        """The reward of each completion."""
        return [
            None if self.key not in about else float(self._is_right(text, about[self.key]))
            for text, about in zip(completions, meta, strict=True)
        ]

    def _is_right(self, text: str, answer: Any) -> bool:
        answers = answer if isinstance(answer, list) else [answer]
        return self._plain(text) in {self._plain(str(one)) for one in answers}

    def _plain(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """1 where the last number of the completion is the row's; else 0.

    A row without a number is left out.
    """

    key: str = "answer"
    """The row's key of the number; of a text its last number counts."""

    tolerance: float = 1e-6
    """Relative, and absolute below 1."""

    @property
    def needs(self) -> str:
        """The key."""
        return self.key

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> list[float | None]:
        """The reward of each completion."""
        found: list[float | None] = []
        for text, about in zip(completions, meta, strict=True):
            wanted = last_number(str(about.get(self.key, "")))
            given = last_number(text)
            right = wanted is not None and given is not None and self._near(given, wanted)
            found.append(None if wanted is None else float(right))
        return found

    def _near(self, given: float, wanted: float) -> bool:
        return abs(given - wanted) <= self.tolerance * max(1.0, abs(wanted))


def last_number(text: str) -> float | None:
    """The last number in a text; commas between digits are left out."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """1 where the completion fits a regular expression; else 0."""

    pattern: str
    """Python's; a dot fits ends of lines too."""

    whole: bool = True
    """All of the completion must fit, not a part of it."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"pattern={self.pattern!r} of the reward: {error}.") from None

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> list[float | None]:
        """The reward of each completion."""
        pattern = re.compile(self.pattern, re.DOTALL)
        fits = pattern.fullmatch if self.whole else pattern.search
        return [float(fits(text) is not None) for text in completions]


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """``max(-1, -|characters - target| / target)``: 0 at the target."""

    target: int
    """Characters."""

    def __post_init__(self) -> None:
        if self.target < 1:
            raise ConfigError(f"target={self.target} of the reward 'length' must be at least 1.")

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> list[float | None]:
        """The reward of each completion."""
        return [max(-1.0, -abs(len(text) - self.target) / self.target) for text in completions]


@dataclass(frozen=True, kw_only=True, slots=True)
class Json:
    """1 for a JSON object with all wanted keys, 0.5 for one that lacks some, else 0."""

    keys: tuple[str, ...] = ()

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Meta]
    ) -> list[float | None]:
        """The reward of each completion."""
        return [self._one(text) for text in completions]

    def _one(self, text: str) -> float:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return 0.0
        if not isinstance(found, dict):
            return 0.0
        return 1.0 if all(key in found for key in self.keys) else 0.5
