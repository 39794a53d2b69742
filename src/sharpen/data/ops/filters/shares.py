"""Filters by shares of characters and words, and by how well a text compresses."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass

import numpy as np

from sharpen.data.batch import Batch
from sharpen.data.ops.base import Range, Statistics, operator
from sharpen.data.statistics import repeated_words

__all__ = [
    "CompressionRatio",
    "Digits",
    "MeanWordLength",
    "UniqueWords",
    "Uppercase",
    "Whitespace",
]


@operator("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Range):
    """Share of digits (``str.isdigit``): tables of numbers, logs."""

    max: float = 0.2
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: batch.texts.counts.share("digits")}


@operator("uppercase")
@dataclass(frozen=True, kw_only=True)
class Uppercase(Range):
    """Share of capitals (``str.isupper``) among the letters."""

    max: float = 0.4
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        counts = batch.texts.counts
        return {self.name: counts.upper / np.maximum(counts.alphabetic, 1)}


@operator("whitespace")
@dataclass(frozen=True, kw_only=True)
class Whitespace(Range):
    """Share of white space (``str.isspace``)."""

    max: float = 0.4
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: batch.texts.counts.share("spaces")}


@operator("mean_word_length")
@dataclass(frozen=True, kw_only=True)
class MeanWordLength(Range):
    """Mean code points of a word; 0 without words."""

    min: float = 3
    """Least value to keep."""

    max: float = 10
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: batch.texts.words.mean_length}


@operator("unique_words")
@dataclass(frozen=True, kw_only=True)
class UniqueWords(Range):
    """Share of different words among the refined ones; it falls with the length of a text."""

    min: float = 0.1
    """Least value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        words = batch.texts.words
        number = words.count_refined
        return {self.name: (number - repeated_words(words)) / np.maximum(number, 1)}


@operator("compression_ratio")
@dataclass(frozen=True, kw_only=True)
class CompressionRatio(Range):
    """Bytes of the text over those that zlib makes of it: 2 to 3 of prose, many of what repeats.

    Short texts come to less than 1, since zlib adds bytes of its own; an empty one to 0.
    """

    max: float = 6
    """Greatest value to keep."""

    level: int = 6
    """zlib's, 1 to 9."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        texts = batch.texts
        data, offsets = texts.data.data, texts.offsets.tolist()
        made = [len(zlib.compress(data[a:b], self.level)) for a, b in itertools.pairwise(offsets)]
        return {self.name: np.diff(texts.offsets) / np.array(made, np.int64)}
