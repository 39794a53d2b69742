"""Filters by the words of a text.

Words are parted by spaces, line feeds and tabs. Refined words, in lower case without special
characters at either end, are those of which something is left. Statistics as in Chen et al.,
"Data-Juicer: A One-Stop Data Processing System for Large Language Models", SIGMOD 2024.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Range, Statistics, operator
from sharpen.data.ops.filters.characters import Repetition
from sharpen.data.statistics import hash_words, word_repetition, words_in_list

__all__ = ["FlaggedWords", "Stopwords", "WordRepetition", "WordsNumber"]

# fmt: off
STOPWORDS = (
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "because",
    "been", "but", "by", "can", "could", "did", "do", "does", "for", "from", "had", "has", "have",
    "he", "her", "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "like", "me",
    "more", "most", "my", "no", "not", "now", "of", "on", "one", "only", "or", "other", "our",
    "out", "over", "she", "so", "some", "such", "than", "that", "the", "their", "them", "then",
    "there", "these", "they", "this", "to", "two", "up", "us", "was", "we", "were", "what",
    "when", "which", "who", "will", "with", "would", "you", "your",
)
# fmt: on
"""Frequent English words, function words nearly all."""


@operator("words_num")
@dataclass(frozen=True, kw_only=True)
class WordsNumber(Range):
    """Words of which something is left without special characters at either end."""

    min: float = 10
    """Least value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: batch.texts.words.count_refined}


@operator("word_repetition")
@dataclass(frozen=True, kw_only=True)
class WordRepetition(Repetition):
    """Share of the n-grams of refined words that occur more than once."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: word_repetition(batch.texts.words, self.size)}


@functools.lru_cache(maxsize=64)
def _hashes(words: tuple[str, ...]) -> npt.NDArray[np.uint64]:
    return hash_words(words)


@operator("stopwords")
@dataclass(frozen=True, kw_only=True)
class Stopwords(Range):
    """Share of the refined words that are frequent words of a language: prose has many."""

    min: float = 0.3
    """Least value to keep."""

    words: tuple[str, ...] = STOPWORDS
    """The list; English by default."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: words_in_list(batch.texts.words, _hashes(self.words))}


@operator("flagged_words")
@dataclass(frozen=True, kw_only=True)
class FlaggedWords(Range):
    """Share of the refined words that are on a list of yours."""

    max: float = 0.045
    """Greatest value to keep."""

    words: tuple[str, ...] = ()
    """The list."""

    def __post_init__(self) -> None:
        """Check that there are any."""
        super().__post_init__()
        if not self.words:
            raise ConfigError("flagged_words needs words: a list of those not wanted.")

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: words_in_list(batch.texts.words, _hashes(self.words))}
