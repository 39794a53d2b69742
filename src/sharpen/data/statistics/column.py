"""A column of texts, and what operators share of it: computed when first asked for, then kept.

The texts are UTF-8 bytes with offsets, as Arrow holds a ``large_string``, so that kernels read them
where they lie. An operator that changes the texts makes a new column; nothing shared outlives it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import DataError
from sharpen.data.statistics.counts import Counts, count_characters
from sharpen.data.statistics.grams import Forms, find_forms
from sharpen.data.statistics.lines import Pieces, find_lines, find_paragraphs
from sharpen.data.statistics.words import Words, find_words

__all__ = ["Texts"]


class Texts:
    """Texts of a batch.

    Args:
        column: strings without nulls, of valid UTF-8.

    Raises:
        DataError: a null, or no strings.
    """

    def __init__(self, column: pa.Array | Sequence[str]) -> None:
        if not isinstance(column, pa.Array):
            column = pa.array(column, pa.large_string())
        if pa.types.is_string(column.type):
            column = column.cast(pa.large_string())
        if column.type != pa.large_string():
            raise DataError(f"a column of texts must hold strings, not {column.type}.")
        if column.null_count:
            raise DataError(f"{column.null_count} of {len(column)} texts are missing.")
        self.column = column
        _, offsets, data = column.buffers()
        filled = len(column) > 0  # Arrow may leave out the buffers of an empty column
        self.offsets: npt.NDArray[np.int64] = (
            np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
            if filled
            else np.zeros(1, np.int64)
        )
        self.data: npt.NDArray[np.uint8] = (
            np.frombuffer(data, np.uint8)
            if data is not None and data.size
            else np.zeros(1, np.uint8)
        )

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.column)

    @functools.cached_property
    def strings(self) -> list[str]:
        """The texts as Python's; for operators that have no kernel."""
        return self.column.to_pylist()  # type: ignore[no-any-return]

    @property
    def bytes(self) -> int:
        """Of all texts."""
        return int(self.offsets[-1] - self.offsets[0])

    @functools.cached_property
    def counts(self) -> Counts:
        """Characters of each kind, and lines."""
        return count_characters(self.offsets, self.data)

    @functools.cached_property
    def words(self) -> Words:
        """What spaces, line feeds and tabs part."""
        return find_words(self.offsets, self.data)

    @functools.cached_property
    def forms(self) -> Forms:
        """Hashes of the words as they stand, and the kinds of their characters."""
        return find_forms(self.words, self.data)

    @functools.cached_property
    def lines(self) -> Pieces:
        """What ``str.splitlines`` parts."""
        return find_lines(self.offsets, self.data)

    @functools.cached_property
    def paragraphs(self) -> Pieces:
        """What two or more line feeds part."""
        return find_paragraphs(self.offsets, self.data)
