"""Operators that count in tokens of a tokenizer, or in code points: bounds, chunks, cuts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Mapper, Range, Splitter, Statistics, at_least, operator
from sharpen.data.ops.mappers.cleaning import compiled
from sharpen.models.tokenizer import Tokenizer, load_tokenizer

__all__ = ["TextChunk", "TokenNumber", "Truncate"]

Spans = Sequence[tuple[int, int]]


@functools.lru_cache(maxsize=4)
def _tokenizer(ref: str) -> Tokenizer:
    return load_tokenizer(ref)


def _described(ref: str | None) -> dict[str, Any]:
    return {} if ref is None else {"fingerprint": _tokenizer(ref).fingerprint}


@operator("token_num")
@dataclass(frozen=True, kw_only=True)
class TokenNumber(Range):
    """Tokens of the text, special ones not added."""

    tokenizer: str
    """A folder with ``tokenizer.json``, a ``.gguf`` file, or an asset's name."""

    min: float = 10
    """Least value to keep."""

    def describe(self) -> dict[str, Any]:
        """See :class:`Operator`; another vocabulary is another operator."""
        return {**super().describe(), **_described(self.tokenizer)}

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        made = _tokenizer(self.tokenizer).encode_batch(batch.texts.strings)
        return {self.name: np.array([len(ids) for ids in made], np.int64)}


@operator("text_chunk")
@dataclass(frozen=True, kw_only=True)
class TextChunk(Splitter):
    """Splits a text into chunks of a greatest size, where a pattern matches if it can.

    A chunk ends at the last match within its size; what matched goes. Without a match it is cut at
    its size, and the next begins ``overlap`` before the cut. Blank chunks are left out.
    """

    size: int | None = None
    """Most code points of a chunk, or tokens; without it the text is split at every match."""

    pattern: str | None = r"\n\n"
    """Where to split rather than elsewhere, for RE2; null to cut at the size alone."""

    overlap: int = 0
    """Code points or tokens that two chunks share where no match parts them."""

    tokenizer: str | None = None
    """Count tokens of this one: a folder, a ``.gguf`` file or an asset's name."""

    def __post_init__(self) -> None:
        """Check that the arguments fit each other."""
        if self.size is None and self.pattern is None:
            raise ConfigError("text_chunk needs a size, a pattern, or both.")
        at_least(self, 1, "size")
        if self.overlap < 0 or (self.size is not None and self.overlap >= self.size):
            raise ConfigError(f"overlap={self.overlap} must be at least 0 and less than the size.")
        if self.pattern is not None:
            compiled(self.pattern)

    def describe(self) -> dict[str, Any]:
        """See :class:`Operator`; another vocabulary is another operator."""
        return {**super().describe(), **_described(self.tokenizer)}

    def split(self, batch: Batch) -> Sequence[Sequence[str]]:
        """See :class:`Splitter`."""
        return [self._chunks(text) for text in batch.texts.strings]

    def _chunks(self, text: str) -> list[str]:
        breaks: Spans = []
        if self.pattern is not None:
            found = (match.span() for match in compiled(self.pattern).finditer(text))
            breaks = [(a, b) for a, b in found if a < b]
        spans = self._sized(text, breaks) if self.size is not None else _between(text, breaks)
        return [text[a:b] for a, b in spans if text[a:b].strip()]

    def _sized(self, text: str, breaks: Spans) -> Spans:
        assert self.size is not None
        if self.tokenizer is None:
            starts = np.arange(len(text))
        else:
            _, offsets = _tokenizer(self.tokenizer).encode_offsets(text)
            starts = np.maximum.accumulate(np.array([a for a, _ in offsets], np.int64))
        opens, closes = (
            (np.array(side, np.int64) for side in zip(*breaks, strict=True))
            if breaks
            else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        )
        spans: list[tuple[int, int]] = []
        begin = 0
        while True:
            first = int(np.searchsorted(starts, begin))
            if len(starts) - first <= self.size:
                return [*spans, (begin, len(text))]
            end = max(int(starts[first + self.size]), begin + 1)
            last = int(np.searchsorted(closes, end, side="right")) - 1
            if last >= 0 and opens[last] >= begin:
                spans.append((begin, int(opens[last])))
                begin = int(closes[last])
            else:
                spans.append((begin, end))
                again = int(starts[first + self.size - self.overlap])
                begin = again if again > begin else end


def _between(text: str, breaks: Spans) -> Spans:
    """What breaks part."""
    starts = [0, *(b for _, b in breaks)]
    ends = [*(a for a, _ in breaks), len(text)]
    return list(zip(starts, ends, strict=True))


@operator("truncate")
@dataclass(frozen=True, kw_only=True)
class Truncate(Mapper):
    """Cuts a text to a greatest size."""

    size: int
    """Most code points, or tokens."""

    tokenizer: str | None = None
    """Count tokens of this one: a folder, a ``.gguf`` file or an asset's name."""

    def __post_init__(self) -> None:
        """Check the size."""
        at_least(self, 1, "size")

    def describe(self) -> dict[str, Any]:
        """See :class:`Operator`; another vocabulary is another operator."""
        return {**super().describe(), **_described(self.tokenizer)}

    def edit(self, batch: Batch) -> pa.Array:
        """See :class:`Mapper`."""
        if self.tokenizer is None:
            return pc.utf8_slice_codeunits(batch.texts.column, 0, self.size)
        tokenizer = _tokenizer(self.tokenizer)
        cut = []
        for text in batch.texts.strings:
            _, offsets = tokenizer.encode_offsets(text)
            cut.append(text[: offsets[self.size][0]] if len(offsets) > self.size else text)
        return pa.array(cut, pa.large_string())
