"""Near duplicates: texts that share most of their shingles, by MinHash and bands.

Candidates meet in a band (:mod:`sharpen.data.statistics.minhash`). Of those the signatures must say
that they are as alike as is asked, or their sets of shingles (``verify="exact"``), so that no pair
is taken for copies that is none.

Differs from Data-Juicer 1.6.1: candidates are verified, texts shorter than a shingle are compared
whole, not taken for equal, and the permutations are those of 32-bit arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.corpus import Corpus
from sharpen.data.ops.barrier import Copies, Deduplicator
from sharpen.data.ops.base import at_least, one_of, operator
from sharpen.data.ops.dedup.joining import Alike, Cluster, groups_of, meeting
from sharpen.data.statistics import Texts
from sharpen.data.statistics.minhash import choose_bands, minhash
from sharpen.data.statistics.shingles import Shingling, Tokens, jaccard, shingle_sets

__all__ = ["MinhashDedup"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_RADIX = np.uint64(0x9E3779B97F4A7C15)
_NOTHING = 0xFFFFFFFF
_AT_ONCE = 1 << 15  # pairs that are compared together


@operator("minhash_dedup")
@dataclass(frozen=True, kw_only=True)
class MinhashDedup(Deduplicator):
    """Keeps the first of rows whose texts are nearly equal."""

    threshold: float = 0.7
    """Least share of common shingles (Jaccard similarity) of copies."""

    lanes: int = 256
    """Hashes of a signature; the similarity is known to 1 / (2 sqrt(lanes))."""

    window: int = 5
    """Tokens of a shingle."""

    tokens: Tokens = "words"
    """What a token is: words between white space, between spaces alone, or code points."""

    lowercase: bool = True
    """Take upper and lower case for equal."""

    bands: int | None = None
    """Bands of lanes; chosen by the threshold unless given."""

    rows: int | None = None
    """Lanes of a band."""

    verify: Literal["signature", "exact", "none"] = "signature"
    """What must reach the threshold, too: the share of equal lanes (off by 0.03 of the similarity
    with 256), or of the shingles themselves."""

    cluster: Cluster = "components"
    """``components``: copies of copies are copies. ``star``: a row goes only if it is a copy of one
    that stays."""

    seed: int = 0
    """Of the hashes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold={self.threshold:g} must lie between 0 and 1.")
        one_of(self, "tokens", get_args(Tokens))
        at_least(self, 1, "lanes", "window")
        if (self.bands is None) != (self.rows is None):
            raise ConfigError("give both bands and rows, or neither.")
        if self.index is not None and self.verify == "exact":
            raise ConfigError("an index keeps no texts: use verify=signature with it.")
        bands, rows = self.plan
        if bands < 1 or rows < 1 or bands * rows > self.lanes:
            raise ConfigError(f"bands={bands} x rows={rows} must fit lanes={self.lanes}.")

    @property
    def plan(self) -> tuple[int, int]:
        """Bands and rows."""
        if self.bands is not None and self.rows is not None:
            return self.bands, self.rows
        return choose_bands(self.lanes, self.threshold)

    @property
    def _shingling(self) -> Shingling:
        return Shingling(self.window, self.tokens, self.lowercase)

    def marks(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Deduplicator`: the signature, and a hash of each band."""
        found = minhash(batch.texts, self._shingling, self.lanes, self.seed)
        buffers = [None, pa.py_buffer(found.tobytes())]
        marks = {"lanes": pa.Array.from_buffers(pa.binary(4 * self.lanes), len(batch), buffers)}
        bands, rows = self.plan
        for band in range(bands):
            key = np.zeros(len(batch), np.uint64)
            for lane in found[:, band * rows : (band + 1) * rows].T:
                key = key * _RADIX + lane
            marks[f"band{band}"] = pa.array(key)
        marks["some"] = pa.array((found != _NOTHING).any(1))
        return marks

    def copies(self, rows: Corpus, order: Integers) -> Copies:
        """See :class:`Deduplicator`."""
        known = np.nonzero(rows.column("some"))[0]

        def meetings() -> Iterator[tuple[Integers, Integers]]:
            for band in range(self.plan[0]):
                yield meeting(rows.column(f"band{band}")[known], known)

        of = groups_of(len(rows), meetings(), self._alike(rows), order, self.cluster)
        similarity = self._exact if self.verify == "exact" else self._estimated
        return Copies(
            of, lambda one, other: similarity(rows, one, other), f"min={self.threshold:g}"
        )

    def _alike(self, rows: Corpus) -> Alike:
        if self.verify == "none":
            return lambda one, other: np.ones(len(one), bool)
        similarity = self._exact if self.verify == "exact" else self._estimated
        return lambda one, other: similarity(rows, one, other) >= self.threshold

    def _estimated(self, rows: Corpus, one: Integers, other: Integers) -> Floats:
        """[pairs] share of equal lanes."""
        return _in_parts(one, other, lambda a, b: self._lanes(rows, a, b))

    def _lanes(self, rows: Corpus, one: Integers, other: Integers) -> Floats:
        both, where = np.unique([one, other], return_inverse=True)
        lanes = np.ascontiguousarray(rows.gather("lanes", both)).view(np.uint32)
        a, b = where.reshape(2, -1)
        found: Floats = np.equal(lanes[a], lanes[b]).mean(1, dtype=np.float64)
        return found

    def _exact(self, rows: Corpus, one: Integers, other: Integers) -> Floats:
        """[pairs] share of common shingles."""
        return _in_parts(one, other, lambda a, b: self._shared(rows, a, b))

    def _shared(self, rows: Corpus, one: Integers, other: Integers) -> Floats:
        both, where = np.unique([one, other], return_inverse=True)
        sets = shingle_sets(Texts(rows.texts(both)), self._shingling)
        a, b = where.reshape(2, -1)
        return jaccard(*sets, a, b)


def _in_parts(
    one: Integers, other: Integers, measure: Callable[[Integers, Integers], Floats]
) -> Floats:
    starts = range(0, len(one), _AT_ONCE)
    found = [measure(one[s : s + _AT_ONCE], other[s : s + _AT_ONCE]) for s in starts]
    return np.concatenate(found) if found else np.zeros(0)
