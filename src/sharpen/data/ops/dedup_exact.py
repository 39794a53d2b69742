"""Exact duplicates: rows whose normalized texts are equal, by hashes of 128 bits.

Two different texts among n are taken for equal with probability below n^2 / 2^129.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import DependencyNotInstalled
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Deduplicator, operator

__all__ = ["ExactDedup"]

_BYTES = 16


@operator("exact_dedup")
@dataclass(frozen=True, kw_only=True)
class ExactDedup(Deduplicator):
    """Keeps the first of rows with equal texts."""

    lowercase: bool = False
    """Take upper and lower case for equal."""

    ignore_non_character: bool = False
    """Compare letters and digits alone."""

    def keys(self, batch: Batch) -> pa.Array:
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
        return pa.Array.from_buffers(pa.binary(_BYTES), len(batch), buffers)

    def _normal(self, text: str) -> str:
        text = text.lower() if self.lowercase else text
        return "".join(filter(str.isalnum, text)) if self.ignore_non_character else text

    def copies(self, keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """See :class:`Deduplicator`."""
        whole = np.ascontiguousarray(keys).view([("a", np.uint64), ("b", np.uint64)]).reshape(-1)
        order = np.lexsort((whole["b"], whole["a"]))  # stable: equal keys stay in order
        placed = whole[order]
        first = np.ones(len(order), bool)
        first[1:] = placed[1:] != placed[:-1]
        heads = order[first][np.cumsum(first) - 1] if len(order) else order
        found = np.empty(len(order), np.int64)
        found[order] = heads
        return found
