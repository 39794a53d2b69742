"""Mappers by sentences: one a line, and none that was said before.

A sentence ends as :mod:`sharpen.data.statistics.sentences` says, but not after an abbreviation of
English that is not the last word of one (``Dr.``, ``e.g.``), nor after a single capital, nor where
a small letter follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from sharpen.data.batch import Batch
from sharpen.data.ops.base import Mapper, at_least, operator
from sharpen.data.ops.mappers.editing import edit_each

__all__ = ["RemoveRepeatSentences", "SentenceSplit", "sentences_of"]

_END = re.compile(r"[.!?…]+[\"')\]}»’”]*(?=\s|$)|[。！？]+[’”」』》）]*")
_WORD = re.compile(r"\S+\Z")
_LOOK = 64  # characters before and after an end
_SPECIAL = re.compile(r"[^\w\s]|_")  # neither str.isalnum nor str.isspace
_BLANK = re.compile(r"\n\s*\n")
# fmt: off
_ABBREVIATIONS = frozenset((
    "approx", "capt", "cf", "col", "dr", "e.g", "eq", "eqs", "fig", "figs", "gen", "gov", "hon",
    "i.e", "lt", "mr", "mrs", "ms", "no", "nos", "p", "pp", "prof", "rep", "rev", "sec", "sen",
    "sgt", "st", "viz", "vol", "vs",
))
# fmt: on


def sentences_of(text: str) -> list[str]:
    """The sentences of a text; white space before one is part of it, so that they join to it."""
    found, start = [], 0
    for match in _END.finditer(text):
        if _ends(text, match):
            found.append(text[start : match.end()])
            start = match.end()
    return [*found, text[start:]] if start < len(text) else found


def _ends(text: str, match: re.Match[str]) -> bool:
    mark = match.group().rstrip("\"')]}»’”")
    if mark[0] not in ".…":
        return True
    following = text[match.end() : match.end() + _LOOK].lstrip()
    if not following:
        return True
    if following[0].islower():
        return False
    before = _WORD.search(text, max(match.start() - _LOOK, 0), match.start())
    if len(mark) > 1 or before is None:
        return True
    word = before.group().lstrip("\"'([{«‘“")
    initial = len(word) == 1 and word.isupper() and word != "I"
    return not initial and word.lower() not in _ABBREVIATIONS


@operator("sentence_split")
@dataclass(frozen=True, kw_only=True)
class SentenceSplit(Mapper):
    """Puts each sentence on a line of its own.

    Line feeds inside a sentence become spaces; blank lines end a sentence, and go.
    """

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        return edit_each(batch.texts.column, _one_a_line)


def _one_a_line(text: str) -> str:
    parts = (part for block in _BLANK.split(text) for part in sentences_of(block))
    lines = (" ".join(part.split("\n")).strip() for part in parts)
    return "\n".join(line for line in lines if line)


@operator("remove_repeat_sentences")
@dataclass(frozen=True, kw_only=True)
class RemoveRepeatSentences(Mapper):
    """Takes out sentences that stood in the text before."""

    lowercase: bool = False
    """Take upper and lower case for equal."""

    ignore_special_character: bool = True
    """Compare letters, digits and white space alone."""

    min_length: int = 2
    """Sentences with fewer code points, as compared, stay."""

    def __post_init__(self) -> None:
        """Check the length."""
        at_least(self, 1, "min_length")

    def _key(self, sentence: str) -> str:
        key = sentence.strip()
        key = key.lower() if self.lowercase else key
        if self.ignore_special_character:
            key = _SPECIAL.sub("", key)
        return key

    def _once(self, text: str) -> str:
        seen: set[str] = set()
        lines = []
        for line in text.split("\n"):
            kept = ""
            for sentence in sentences_of(line):
                key = self._key(sentence)
                if key not in seen:
                    kept += sentence
                if len(key) >= self.min_length:
                    seen.add(key)
            lines.append(kept)
        return "\n".join(lines)

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        return edit_each(batch.texts.column, self._once)
