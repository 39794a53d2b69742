"""Mappers that take out or change characters, words and line ends."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Mapper, one_of, operator
from sharpen.data.ops.mappers.editing import edit_each, edit_where, edit_where_found
from sharpen.data.statistics import strip_special

__all__ = [
    "ChineseConvert",
    "JoinLines",
    "Lowercase",
    "PunctuationNormalization",
    "RemoveLongWords",
    "RemoveNonChineseCharacter",
    "RemoveSpecificChars",
    "RemoveWordsWithIncorrectSubstrings",
]

_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("“”„«»「」《》", '"'),
        **dict.fromkeys("‘’‚‛´", "'"),
        **dict.fromkeys("，、", ","),
        **dict.fromkeys("：∶", ":"),
        **dict.fromkeys("–━►", "-"),
        **dict(zip("。？！（）；～〈〉【】％", ".?!();~<>[]%", strict=True)),
        "．": ". ",
        "—": " - ",
        "…": "...",
    }
)


def _character_class(characters: str) -> str:
    """A class of RE2."""
    return "[" + "".join(f"\\x{{{ord(c):x}}}" for c in dict.fromkeys(characters)) + "]"


@operator("punctuation_normalization")
@dataclass(frozen=True, kw_only=True)
class PunctuationNormalization(Mapper):
    """Makes quotes, dashes, ellipses and full-width punctuation those of ASCII."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        odd = _character_class("".join(map(chr, _PUNCTUATION)))
        return edit_where_found(batch.texts.column, odd, lambda text: text.translate(_PUNCTUATION))


@operator("lowercase")
@dataclass(frozen=True, kw_only=True)
class Lowercase(Mapper):
    """Makes all letters small, as ``str.lower`` does."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = batch.texts.column
        small = pc.ascii_lower(column)
        return edit_where(small, pc.invert(pc.string_is_ascii(column)), str.lower)


@operator("join_lines")
@dataclass(frozen=True, kw_only=True)
class JoinLines(Mapper):
    """Makes one line of each paragraph, for texts that were wrapped; blank lines stay."""

    hyphens: bool = True
    """Join a word that was parted at the end of a line, if a small letter follows."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        column = pc.replace_substring_regex(batch.texts.column, r"\r\n?", "\n")
        if self.hyphens:
            column = pc.replace_substring_regex(column, r"(\pL)-\n(\p{Ll})", r"\1\2")
        for _ in range(2):  # a match takes the character after it, so that every other is missed
            column = pc.replace_substring_regex(column, r"([^\n]) *\n([^\n])", r"\1 \2")
        return column


@operator("remove_specific_chars")
@dataclass(frozen=True, kw_only=True)
class RemoveSpecificChars(Mapper):
    """Takes out some characters."""

    characters: str = "◆●■►▼▲▴∆▻▷❖♡□"
    """Which."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        if not self.characters:
            return batch.texts.column
        odd = _character_class(self.characters)
        return pc.replace_substring_regex(batch.texts.column, odd, "")


@operator("remove_non_chinese_character")
@dataclass(frozen=True, kw_only=True)
class RemoveNonChineseCharacter(Mapper):
    """Takes out all characters but Chinese ones (U+4E00 to U+9FA5) and what is to be kept."""

    keep_alphabet: bool = True
    """Keep the letters of ASCII."""

    keep_number: bool = True
    """Keep the digits 0 to 9."""

    keep_punctuation: bool = True
    """Keep spaces and the common punctuation of Chinese."""

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        kept = r"\x{4e00}-\x{9fa5}"
        kept += "A-Za-z" if self.keep_alphabet else ""
        kept += "0-9" if self.keep_number else ""
        kept += (
            _character_class(".， ,-。%《*》/•、&＆(—)（+）：？!！“”·")[1:-1]
            * self.keep_punctuation
        )
        return pc.replace_substring_regex(batch.texts.column, f"[^{kept}]+", "")


def _without_words(text: str, drop: Callable[[str], bool], maybe: Callable[[str], object]) -> str:
    """Without some words, and without what parts them from the next; lines left empty go.

    Args:
        text: of any length.
        drop: whether a word goes.
        maybe: whether a line can have such a word; false is sure.
    """
    lines = []
    for line in text.split("\n"):
        if not maybe(line):
            lines.append(line)
            continue
        found = re.findall(r"([ \t]*)([^ \t]+)", line)
        kept = [(gap, word) for gap, word in found if not drop(word)]
        if len(kept) == len(found):
            lines.append(line)
        elif kept:
            indented = found[0][0] + kept[0][1]
            lines.append(indented + "".join(gap + word for gap, word in kept[1:]))
    return "\n".join(lines)


@operator("remove_long_words")
@dataclass(frozen=True, kw_only=True)
class RemoveLongWords(Mapper):
    """Takes out words that are too long, or too short.

    One that is too long stays if without special characters at either end it is not.
    """

    min: int = 1
    """Least code points of a word."""

    max: int | None = None
    """Most code points of a word."""

    def __post_init__(self) -> None:
        """Check the order."""
        if self.max is not None and self.max < self.min:
            raise ConfigError(f"min={self.min} must not be above max={self.max}.")

    def _drop(self, word: str) -> bool:
        if self.max is not None and len(word) > self.max:
            return not self.min <= len(strip_special(word)) <= self.max
        return len(word) < self.min

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        words = batch.texts.words
        wrong = words.lengths < self.min
        if self.max is not None:
            wrong |= words.lengths > self.max
        before = np.concatenate([[0], np.cumsum(wrong)])
        which = pa.array(np.diff(before[words.offsets]) > 0)
        longest = self.max if self.max is not None and self.min <= 1 else 0
        maybe = re.compile(rf"[^ \t]{{{longest + 1}}}").search
        edit = functools.partial(_without_words, drop=self._drop, maybe=maybe)
        return edit_where(batch.texts.column, which, edit)


@operator("remove_words_with_incorrect_substrings")
@dataclass(frozen=True, kw_only=True)
class RemoveWordsWithIncorrectSubstrings(Mapper):
    """Takes out words with one of some pieces in them, without special characters at the ends."""

    substrings: tuple[str, ...] = ("http", "www", ".com", "href", "//")
    """The pieces."""

    def _drop(self, word: str) -> bool:
        plain = strip_special(word)
        return any(piece in plain for piece in self.substrings)

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        if not self.substrings:
            return batch.texts.column
        pieces = "|".join(map(re.escape, self.substrings))
        maybe = re.compile(pieces).search
        edit = functools.partial(_without_words, drop=self._drop, maybe=maybe)
        return edit_where_found(batch.texts.column, pieces, edit)


# fmt: off
_Conversion = Literal[
    "s2t", "t2s", "s2tw", "tw2s", "s2hk", "hk2s", "s2twp", "tw2sp", "t2tw", "tw2t", "hk2t", "t2hk",
    "t2jp", "jp2t",
]
# fmt: on


@functools.lru_cache(maxsize=16)
def _converter(mode: str) -> Callable[[str], str]:
    try:
        from opencc import OpenCC
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("converting Chinese", "data-chinese") from None
    convert: Callable[[str], str] = OpenCC(mode).convert
    return convert


@operator("chinese_convert")
@dataclass(frozen=True, kw_only=True)
class ChineseConvert(Mapper):
    """Converts Chinese between its scripts, by OpenCC."""

    mode: _Conversion = "s2t"
    """From and to: ``s`` simplified, ``t`` traditional, ``tw`` of Taiwan, ``hk`` of Hong Kong,
    ``jp`` of Japan; with ``p`` phrases, too."""

    def __post_init__(self) -> None:
        """Check the mode."""
        one_of(self, "mode", get_args(_Conversion))

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        return edit_each(batch.texts.column, _converter(self.mode))
