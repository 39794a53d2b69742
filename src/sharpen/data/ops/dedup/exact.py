"""Exact duplicates: rows whose normalized texts are equal, by hashes of 128 bits.

Two different texts among n are taken for equal with probability below n^2 / 2^129.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import DependencyNotInstalled
from sharpen.data.batch import Batch
from sharpen.data.corpus import Corpus
from sharpen.data.ops.barrier import Copies, Deduplicator
from sharpen.data.ops.base import operator

__all__ = ["ExactDedup"]

_BYTES = 16


@operator("exact_dedup")
@dataclass(frozen=True, kw_only=True)
class ExactDedup(Deduplicator):
    """Keeps one of rows with equal texts."""

    lowercase: bool = False
    """Take upper and lower case for equal."""

    ignore_non_character: bool = False
    """Compare letters and digits alone."""

    def marks(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Deduplicator`."""
        try:
            import xxhash
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("finding duplicates", "data") from None
        texts = batch.texts
        if self.lowercase or self.ignore_non_character:
            found = b"".join(
                xxhash.xxh3_128_digest(self._normal(text).encode()) for text in texts.strings
            )
        else:
            data, offsets = texts.data.data, texts.offsets.tolist()
            found = b"".join(
                xxhash.xxh3_128_digest(data[a:b]) for a, b in itertools.pairwise(offsets)
            )
        buffers = [None, pa.py_buffer(found)]
        return {"digest": pa.Array.from_buffers(pa.binary(_BYTES), len(batch), buffers)}

    def _normal(self, text: str) -> str:
        text = text.lower() if self.lowercase else text
        return "".join(filter(str.isalnum, text)) if self.ignore_non_character else text

    def copies(self, rows: Corpus, order: npt.NDArray[np.int64]) -> Copies:
        """See :class:`Deduplicator`."""
        digests = rows.column("digest").reshape(-1, _BYTES)[order]
        whole = np.ascontiguousarray(digests).view([("a", np.uint64), ("b", np.uint64)]).reshape(-1)
        sorting = np.lexsort((whole["b"], whole["a"]))  # stable: equal ones stay in order
        placed = whole[sorting]
        first = np.ones(len(sorting), bool)
        first[1:] = placed[1:] != placed[:-1]
        found = np.empty(len(sorting), np.int64)
        if len(sorting):
            found[order[sorting]] = order[sorting[first][np.cumsum(first) - 1]]
        return Copies(found)
