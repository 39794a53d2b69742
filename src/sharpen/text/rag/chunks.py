"""Documents cut into chunks by tokens or sentences, with overlap."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sharpen.core.errors import ConfigError
from sharpen.text.rag.tokens import as_counter

__all__ = ["Chunk", "Chunker", "as_chunks"]

By = Literal["tokens", "sentences"]

_SENTENCE = re.compile(r"\S.*?(?:[.!?]+[\"')\]]*(?=\s)|\n\s*\n|\Z)", re.DOTALL)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document."""

    id: str
    """Unique among the chunks of a call."""

    text: str
    """What a model reads."""

    tokens: int
    """Of the text alone, by the counter of the chunker."""

    source: str = ""
    """Where it is from, such as a file."""


def as_chunks(chunks: Sequence[Chunk | str], tokenizer: Any = None) -> list[Chunk]:
    """Chunks of chunks or plain texts; a text's id is its position.

    Raises:
        ConfigError: two chunks have one id.
    """
    count = as_counter(tokenizer)
    found = [
        Chunk(str(i), one, count(one)) if isinstance(one, str) else one
        for i, one in enumerate(chunks)
    ]
    seen: set[str] = set()
    for one in found:
        if one.id in seen:
            raise ConfigError(f"two chunks have the id '{one.id}'; ids must differ.")
        seen.add(one.id)
    return found


class Chunker:
    """Cuts documents.

    Args:
        size: most tokens of a chunk. A single word or sentence of more is a chunk of its own.
        overlap: tokens at the end of a chunk that the next one repeats, at most.
        by: cut between words (``tokens``) or between sentences (``sentences``).
        tokenizer: what counts tokens; see :func:`~sharpen.text.rag.tokens.as_counter`.

    Raises:
        ConfigError: ``size`` is below 1, or ``overlap`` is not from 0 to below ``size``.

    Examples:
        >>> [c.text for c in Chunker(5, by="sentences").split("It rains. It pours. We wait.")]
        ['It rains.', 'It pours.', 'We wait.']
    """

    def __init__(
        self, size: int = 200, overlap: int = 0, *, by: By = "sentences", tokenizer: Any = None
    ) -> None:
        if size < 1:
            raise ConfigError(f"size={size} must be at least 1 token (Chunker).")
        if not 0 <= overlap < size:
            raise ConfigError(f"overlap={overlap} must be from 0 to below size={size} (Chunker).")
        if by not in ("tokens", "sentences"):
            raise ConfigError(f"by='{by}' must be 'tokens' or 'sentences' (Chunker).")
        self.size, self.overlap, self.by = size, overlap, by
        self._count = as_counter(tokenizer)
        self._unit = _WORD if by == "tokens" else _SENTENCE

    def split(self, text: str, source: str = "") -> list[Chunk]:
        """Chunks of a document in its order, named ``SOURCE#0``, ``SOURCE#1`` ..."""
        units = [(m.start(), m.end()) for m in self._unit.finditer(text)]
        sizes = [self._count(text[a:b]) for a, b in units]
        found: list[Chunk] = []
        for first, last in self._spans(sizes):
            piece = text[units[first][0] : units[last - 1][1]].strip()
            found.append(Chunk(f"{source}#{len(found)}", piece, self._count(piece), source))
        return found

    def _spans(self, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """First unit and the one past the last, of each chunk."""
        start = 0
        while start < len(sizes):
            end, total = start + 1, sizes[start]
            while end < len(sizes) and total + sizes[end] <= self.size:
                total += sizes[end]
                end += 1
            yield start, end
            if end == len(sizes):
                return
            back, repeated = end, 0
            while back - 1 > start and repeated + sizes[back - 1] <= self.overlap:
                back -= 1
                repeated += sizes[back]
            start = back
