"""The rules by which large corpora of web pages were cleaned: Gopher, C4, FineWeb.

- Gopher: Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
  2021, arXiv 2112.11446, section A.1.1 and table A1.
- C4: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
  Transformer", JMLR 2020, arXiv 1910.10683, section 2.2.
- FineWeb: Penedo et al., "The FineWeb Datasets", NeurIPS 2024, arXiv 2406.17557, section 3.5.

Rules and defaults are those of datatrove 0.10.1, which made FineWeb. Differs from it: words are
parted by white space alone, not by a tokenizer of English; stop words are looked up in lower case;
blank lines are no lines of the repetition rules; C4's sentences are counted by a pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sharpen.data.batch import Batch
from sharpen.data.ops.base import Bound, Filter, Mapper, Statistics, at_least, operator
from sharpen.data.ops.filters.lines import BULLETS, ELLIPSES, punctuated, share_of_lines
from sharpen.data.statistics import (
    hash_words,
    joined,
    repeated_grams,
    repeated_pieces,
    top_gram,
)
from sharpen.data.statistics.sentences import SENTENCE_INSIDE

__all__ = ["C4Lines", "C4Quality", "FinewebQuality", "GopherQuality", "GopherRepetition"]

Numbers = npt.NDArray[np.float64]

_FIRST_TOP, _FIRST_REPEATED = 2, 5  # words of the n-grams of the first limits
_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_POLICIES = (
    *("terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)


def _count(batch: Batch, *marks: str) -> npt.NDArray[np.int64]:
    found = [pc.count_substring(batch.texts.column, mark).to_numpy() for mark in marks]
    return np.sum(found, axis=0, dtype=np.int64)  # type: ignore[no-any-return]


@operator("gopher_quality")
@dataclass(frozen=True, kw_only=True)
class GopherQuality(Filter):
    """Gopher's rules of quality: a page must look like prose of some length."""

    min_words: float = 50
    """Least number of words that have a letter or a digit."""

    max_words: float = 100_000
    """Greatest number of them."""

    min_word_length: float = 3
    """Least mean code points of them."""

    max_word_length: float = 10
    """Greatest mean code points of them."""

    max_symbols: float = 0.1
    """Most hash signs, and most ellipses, for each word."""

    max_bullet_lines: float = 0.9
    """Greatest share of lines that begin with a bullet."""

    max_ellipsis_lines: float = 0.3
    """Greatest share of lines that end with an ellipsis."""

    min_alphabetic_words: float = 0.8
    """Least share of words with a letter."""

    min_stop_words: float = 2
    """Least number of different words of ``stop_words``."""

    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """Words that prose has."""

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        return (
            Bound("words", self.min_words, self.max_words),
            Bound("word_length", self.min_word_length, self.max_word_length),
            Bound("hashes_per_word", high=self.max_symbols),
            Bound("ellipses_per_word", high=self.max_symbols),
            Bound("bullet_lines", high=self.max_bullet_lines),
            Bound("ellipsis_lines", high=self.max_ellipsis_lines),
            Bound("alphabetic_words", self.min_alphabetic_words),
            Bound("stop_words", self.min_stop_words),
        )

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        texts = batch.texts
        words, forms, lines = texts.words, texts.forms, texts.lines
        real = forms.with_letter_or_digit
        listed = hash_words(self.stop_words)
        number, every = _sums(words.offsets, real), np.maximum(words.count, 1)
        return {
            "words": number,
            "word_length": _sums(words.offsets, words.lengths * real) / np.maximum(number, 1),
            "hashes_per_word": _count(batch, "#") / every,
            "ellipses_per_word": _count(batch, *ELLIPSES) / every,
            "bullet_lines": share_of_lines(lines, lines.begins_with(texts.data, *BULLETS)),
            "ellipsis_lines": share_of_lines(lines, lines.ends_with(texts.data, *ELLIPSES)),
            "alphabetic_words": _sums(words.offsets, forms.with_letter) / every,
            "stop_words": _distinct(words.offsets, words.refined, listed),
        }


def _sums(offsets: npt.NDArray[np.int64], values: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    before = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.diff(before[offsets])


def _distinct(
    offsets: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint64],
    listed: npt.NDArray[np.uint64],
) -> npt.NDArray[np.int64]:
    """[n] how many of the hashes of a list, in order, the words of each text have."""
    words = np.nonzero(np.isin(hashes, listed))[0]
    rows = np.searchsorted(offsets, words, side="right") - 1
    seen = np.zeros((len(offsets) - 1, len(listed)), bool)
    seen[rows, np.searchsorted(listed, hashes[words])] = True
    found: npt.NDArray[np.int64] = seen.sum(1)
    return found


@operator("gopher_repetition")
@dataclass(frozen=True, kw_only=True)
class GopherRepetition(Filter):
    """Gopher's rules of repetition: no page that says the same over and over."""

    max_duplicate_lines: float = 0.3
    """Greatest share of lines that stood before."""

    max_duplicate_paragraphs: float = 0.3
    """Greatest share of paragraphs that stood before."""

    max_duplicate_line_characters: float = 0.2
    """Greatest share of the text's characters that are in such lines."""

    max_duplicate_paragraph_characters: float = 0.2
    """Greatest share of the text's characters that are in such paragraphs."""

    max_top_grams: tuple[float, ...] = (0.2, 0.18, 0.16)
    """Greatest shares of characters of the most frequent 2-gram of words, 3-gram, ..."""

    max_repeated_grams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)
    """Greatest shares of characters of the 5-grams of words that stood before, 6-grams, ..."""

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        tops, repeated = enumerate(self.max_top_grams), enumerate(self.max_repeated_grams)
        return (
            Bound("duplicate_paragraphs", high=self.max_duplicate_paragraphs),
            Bound("duplicate_paragraph_characters", high=self.max_duplicate_paragraph_characters),
            Bound("duplicate_lines", high=self.max_duplicate_lines),
            Bound("duplicate_line_characters", high=self.max_duplicate_line_characters),
            *(Bound(f"top_{_FIRST_TOP + k}_gram", high=high) for k, high in tops),
            *(Bound(f"repeated_{_FIRST_REPEATED + k}_grams", high=high) for k, high in repeated),
        )

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        texts = batch.texts
        characters = np.maximum(texts.counts.characters, 1)
        found: dict[str, Numbers] = {}
        lines = texts.lines.where(texts.lines.lengths > 0)
        for name, pieces in (("line", lines), ("paragraph", texts.paragraphs)):
            count, points = repeated_pieces(pieces)
            found[f"duplicate_{name}s"] = count / np.maximum(pieces.count, 1)
            found[f"duplicate_{name}_characters"] = points / characters
        for k in range(len(self.max_top_grams)):
            size = _FIRST_TOP + k
            found[f"top_{size}_gram"] = top_gram(texts.words, texts.forms, size) / characters
        last = _FIRST_REPEATED + len(self.max_repeated_grams) - 1
        repeated = repeated_grams(texts.words, texts.forms, _FIRST_REPEATED, last)
        for k, points in enumerate(repeated.T):
            found[f"repeated_{_FIRST_REPEATED + k}_grams"] = points / characters
        return found


@operator("fineweb_quality")
@dataclass(frozen=True, kw_only=True)
class FinewebQuality(Filter):
    """FineWeb's own rules: no lists, no menus, no lines said twice."""

    min_punctuated_lines: float = 0.12
    """Least share of lines that end with what ends a sentence."""

    max_short_lines: float = 0.67
    """Greatest share of lines of at most ``short_line`` code points."""

    short_line: int = 30
    """Code points of the longest short line."""

    max_duplicate_characters: float = 0.01
    """Greatest share of characters in lines that stood before."""

    max_line_feeds: float = 0.3
    """Most line feeds for each word."""

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        return (
            Bound("punctuated_lines", self.min_punctuated_lines),
            Bound("short_lines", high=self.max_short_lines),
            Bound("duplicate_characters", high=self.max_duplicate_characters),
            Bound("line_feeds_per_word", high=self.max_line_feeds),
        )

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        texts = batch.texts
        lines = texts.lines.where(~texts.lines.blank)
        feeds = _count(batch, "\n")
        _, points = repeated_pieces(lines)
        return {
            "punctuated_lines": share_of_lines(lines, punctuated(lines)),
            "short_lines": share_of_lines(lines, lines.lengths <= self.short_line),
            "duplicate_characters": points / np.maximum(texts.counts.characters - feeds, 1),
            "line_feeds_per_word": feeds / np.maximum(texts.words.count, 1),
        }


@operator("c4_lines")
@dataclass(frozen=True, kw_only=True)
class C4Lines(Mapper):
    """C4's rules of lines: keeps those that end like a sentence, without white space around them.

    Marks of citations, such as ``[12]``, go as well.
    """

    min_words: int = 3
    """Least words of a line."""

    max_word_length: int = 1000
    """Most code points of a word; lines with a longer one go."""

    ends: tuple[str, ...] = (".", "?", "!", '"', "'")
    """What a line must end with; nothing is asked if there is none. ``...`` is no end."""

    without: tuple[str, ...] = ("javascript", *_POLICIES)
    """Lines with one of these phrases go, in upper or lower case."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "min_words", "max_word_length")

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        pieces = batch.texts.lines
        lines = pieces.strings(batch.texts.data)
        keep = _words_of(lines) >= self.min_words
        for k in np.nonzero(keep & (pieces.lengths > self.max_word_length))[0]:
            keep[k] = max(map(len, lines[int(k)].as_py().split())) <= self.max_word_length
        lines = pc.replace_substring_regex(lines, _CITATION, "")
        if self.ends:
            ended = [pc.ends_with(lines, end) for end in self.ends]
            keep &= np.any([flags.to_numpy(zero_copy_only=False) for flags in ended], axis=0)
            keep &= ~pc.ends_with(lines, "...").to_numpy(zero_copy_only=False)
        for phrase in self.without:
            has = pc.match_substring(lines, phrase, ignore_case=True)
            keep &= ~has.to_numpy(zero_copy_only=False)
        return pc.utf8_trim_whitespace(joined(pieces.offsets, lines, keep))


def _words_of(lines: pa.Array) -> npt.NDArray[np.int64]:
    """[lines] words that white space parts, of lines without white space at either end."""
    counts = pc.list_value_length(pc.utf8_split_whitespace(lines)).to_numpy()
    return np.where(pc.equal(lines, "").to_numpy(zero_copy_only=False), 0, counts)


@operator("c4_quality")
@dataclass(frozen=True, kw_only=True)
class C4Quality(Filter):
    """C4's rules of pages; ``c4_lines`` comes before it.

    Every line ends a sentence.
    """

    min_sentences: float = 5
    """Least number of sentences."""

    without: tuple[str, ...] = ("lorem ipsum", "{")
    """Pages with one of these go, in upper or lower case."""

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        return (
            Bound("sentences", self.min_sentences),
            *(Bound(f"times '{phrase}'", high=0) for phrase in self.without),
        )

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        column = batch.texts.column
        lines = batch.texts.lines
        inside = pc.count_substring_regex(column, SENTENCE_INSIDE).to_numpy()
        found = {"sentences": inside + lines.total(~lines.blank)}
        for phrase in self.without:
            times = pc.count_substring(column, phrase, ignore_case=True)
            found[f"times '{phrase}'"] = times.to_numpy()
        return found
