"""Near duplicates by SimHash: texts whose hashes of 64 bits differ in few places.

Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007. The bits are
parted into b blocks; hashes that differ in at most d < b bits agree in some b - d blocks whole, so
that pairs which meet in one of the choices of b - d blocks are all candidates there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.corpus import Corpus
from sharpen.data.ops.barrier import Copies, Deduplicator
from sharpen.data.ops.base import operator
from sharpen.data.ops.joining import Cluster, groups_of, meeting
from sharpen.data.statistics.shingles import Shingling, Tokens, simhash

__all__ = ["SimhashDedup"]

Integers = npt.NDArray[np.int64]
_BITS = 64


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
        if not 0 <= self.distance < self.blocks <= _BITS:
            raise ConfigError(
                f"distance={self.distance} must be less than blocks={self.blocks}, and those at "
                f"most {_BITS}."
            )
        if self.window < 1:
            raise ConfigError(f"window={self.window} must be at least 1.")
        if self.tokens not in get_args(Tokens):
            raise ConfigError(
                f"tokens={self.tokens!r} must be one of {', '.join(get_args(Tokens))}."
            )

    def marks(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Deduplicator`."""
        return {"simhash": pa.array(simhash(batch.texts, self._shingling))}

    @property
    def _shingling(self) -> Shingling:
        return Shingling(self.window, self.tokens, self.lowercase)

    def copies(self, rows: Corpus, order: Integers) -> Copies:
        """See :class:`Deduplicator`."""
        hashes = rows.column("simhash").astype(np.uint64)
        known = np.nonzero(hashes)[0]

        def differ(one: Integers, other: Integers) -> Integers:
            bits: Integers = np.bitwise_count(hashes[one] ^ hashes[other]).astype(np.int64)
            return bits

        def meetings() -> Iterator[tuple[Integers, Integers]]:
            for mask in self._masks():
                yield meeting(hashes[known] & mask, known)

        of = groups_of(
            len(rows),
            meetings(),
            lambda one, other: differ(one, other) <= self.distance,
            order,
            self.cluster,
        )
        least = f"min={1 - self.distance / _BITS:g}"
        return Copies(of, lambda one, other: 1 - differ(one, other) / _BITS, least)

    def _masks(self) -> Iterator[np.uint64]:
        """All choices of as many whole blocks as close hashes must share."""
        edges = [_BITS * k // self.blocks for k in range(self.blocks + 1)]
        for chosen in itertools.combinations(range(self.blocks), self.blocks - self.distance):
            yield np.uint64(sum((1 << edges[k + 1]) - (1 << edges[k]) for k in chosen))
