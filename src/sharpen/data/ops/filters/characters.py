"""Filters by characters and lines of a text.

Statistics as in Chen et al., "Data-Juicer: A One-Stop Data Processing System for Large Language
Models", SIGMOD 2024, all in code points; shares of an empty text are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharpen.data.batch import Batch
from sharpen.data.ops.base import Range, Statistics, at_least, operator
from sharpen.data.statistics import character_repetition

__all__ = [
    "Alphanumeric",
    "AverageLineLength",
    "CharacterRepetition",
    "MaximumLineLength",
    "Repetition",
    "SpecialCharacters",
    "TextLength",
]


@operator("text_length")
@dataclass(frozen=True, kw_only=True)
class TextLength(Range):
    """Code points of the text."""

    min: float = 10
    """Least value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: batch.texts.counts.characters}


@operator("alphanumeric")
@dataclass(frozen=True, kw_only=True)
class Alphanumeric(Range):
    """Share of letters and digits (``str.isalnum``)."""

    min: float = 0.25
    """Least value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: batch.texts.counts.share("alphanumeric")}


@operator("special_characters")
@dataclass(frozen=True, kw_only=True)
class SpecialCharacters(Range):
    """Share of punctuation, symbols, white space, controls and the digits 0 to 9."""

    max: float = 0.25
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: batch.texts.counts.share("special")}


@operator("average_line_length")
@dataclass(frozen=True, kw_only=True)
class AverageLineLength(Range):
    """Code points of the text over its lines; 0 without lines."""

    min: float = 10
    """Least value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        counts = batch.texts.counts
        return {self.name: counts.characters / counts.lines.clip(1)}


@operator("maximum_line_length")
@dataclass(frozen=True, kw_only=True)
class MaximumLineLength(Range):
    """Code points of the longest line."""

    min: float = 10
    """Least value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: batch.texts.counts.longest_line}


@dataclass(frozen=True, kw_only=True)
class Repetition(Range):
    """A filter of the share of n-grams that repeat."""

    max: float = 0.5
    """Greatest value to keep."""

    size: int = 10
    """n: code points or words of an n-gram."""

    def __post_init__(self) -> None:
        """Check the size."""
        super().__post_init__()
        at_least(self, 1, "size")


@operator("character_repetition")
@dataclass(frozen=True, kw_only=True)
class CharacterRepetition(Repetition):
    """Share of the most frequent n-grams of characters among all."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        texts = batch.texts
        return {self.name: character_repetition(texts.offsets, texts.data, self.size)}
