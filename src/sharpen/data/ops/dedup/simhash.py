"""Near duplicates by SimHash: texts whose hashes of 64 bits differ in few places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.data.batch import Batch
from sharpen.data.corpus import Corpus
from sharpen.data.ops.barrier import Copies, Deduplicator
from sharpen.data.ops.base import at_least, one_of, operator
from sharpen.data.ops.dedup.hamming import check_blocks, close_hashes
from sharpen.data.ops.dedup.joining import Cluster
from sharpen.data.statistics.shingles import Shingling, Tokens, simhash

__all__ = ["SimhashDedup"]

Integers = npt.NDArray[np.int64]


@operator("simhash_dedup")
@dataclass(frozen=True, kw_only=True)
class SimhashDedup(Deduplicator):
    """Keeps one of rows whose texts are nearly equal, by hashes of 8 bytes a row."""

    distance: int = 4
    """Bits in which the hashes of copies may differ."""

    blocks: int = 6
    """Blocks of bits, more than ``distance``; more of them need more passes and meet fewer
    pairs."""

    window: int = 6
    """Tokens of a shingle."""

    tokens: Tokens = "words"
    """What a token is: words between white space, between spaces alone, or code points."""

    lowercase: bool = True
    """Take upper and lower case for equal."""

    cluster: Cluster = "components"
    """``components``: copies of copies are copies. ``star``: a row goes only if it is a copy of one
    that stays."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_blocks(self.distance, self.blocks)
        at_least(self, 1, "window")
        one_of(self, "tokens", get_args(Tokens))

    def marks(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Deduplicator`."""
        return {"simhash": pa.array(simhash(batch.texts, self._shingling))}

    @property
    def _shingling(self) -> Shingling:
        return Shingling(self.window, self.tokens, self.lowercase)

    def copies(self, rows: Corpus, order: Integers) -> Copies:
        """See :class:`Deduplicator`."""
        return close_hashes(
            rows.column("simhash").astype(np.uint64),
            distance=self.distance,
            blocks=self.blocks,
            order=order,
            cluster=self.cluster,
        )
