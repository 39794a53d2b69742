"""Near duplicates: texts that share most of their shingles, by MinHash and bands.

Candidates meet in a band (:mod:`sharpen.data.statistics.minhash`); of those the signatures must say
that they are as alike as is asked. Copies of copies are copies: of each connected group the first
row stays.

Differs from Data-Juicer 1.6.1: candidates are verified, texts shorter than a shingle are compared
whole, not taken for equal, and the permutations are those of 32-bit arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Deduplicator, operator
from sharpen.data.statistics.minhash import choose_bands, minhash

__all__ = ["MinhashDedup"]

Signatures = npt.NDArray[np.uint32]
Pairs = npt.NDArray[np.int64]

_Tokens = Literal["words", "space", "characters"]
_RADIX = np.uint64(0x9E3779B97F4A7C15)
_NOTHING = 0xFFFFFFFF
_AT_ONCE = 1 << 16  # pairs whose signatures are compared together


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

    tokens: _Tokens = "words"
    """What a token is: words between white space, between spaces alone, or code points."""

    lowercase: bool = True
    """Take upper and lower case for equal."""

    bands: int | None = None
    """Bands of lanes; chosen by the threshold unless given."""

    rows: int | None = None
    """Lanes of a band."""

    verify: Literal["signature", "none"] = "signature"
    """Whether the signatures of candidates must reach the threshold, too."""

    seed: int = 0
    """Of the hashes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold={self.threshold:g} must lie between 0 and 1.")
        if self.tokens not in get_args(_Tokens):
            raise ConfigError(
                f"tokens={self.tokens!r} must be one of {', '.join(get_args(_Tokens))}."
            )
        for name in ("lanes", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if (self.bands is None) != (self.rows is None):
            raise ConfigError("give both bands and rows, or neither.")
        bands, rows = self.plan
        if bands < 1 or rows < 1 or bands * rows > self.lanes:
            raise ConfigError(f"bands={bands} x rows={rows} must fit lanes={self.lanes}.")

    @property
    def plan(self) -> tuple[int, int]:
        """Bands and rows."""
        if self.bands is not None and self.rows is not None:
            return self.bands, self.rows
        return choose_bands(self.lanes, self.threshold)

    def keys(self, batch: Batch) -> pa.Array:
        """See :class:`Deduplicator`."""
        texts = batch.texts
        found = minhash(
            texts.offsets,
            texts.data,
            window=self.window,
            lanes=self.lanes,
            seed=self.seed,
            tokens=self.tokens,
            lowercase=self.lowercase,
        )
        buffers = [None, pa.py_buffer(found.tobytes())]
        return pa.Array.from_buffers(pa.binary(4 * self.lanes), len(batch), buffers)

    def copies(self, keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """See :class:`Deduplicator`."""
        signatures = np.ascontiguousarray(keys).view(np.uint32)
        parents = list(range(len(signatures)))
        if len(signatures) < 2:
            return np.array(parents, np.int64)
        known = np.nonzero((signatures != _NOTHING).any(1))[0]
        found = [
            self._alike(signatures, pairs) for pairs in _candidates(signatures, known, *self.plan)
        ]
        joined = np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)
        for one, other in joined.tolist():
            a, b = _root(parents, one), _root(parents, other)
            if a != b:
                parents[max(a, b)] = min(a, b)
        return np.array([_root(parents, i) for i in range(len(parents))], np.int64)

    def _alike(self, signatures: Signatures, pairs: Pairs) -> Pairs:
        if self.verify == "none" or not len(pairs):
            return pairs
        kept = []
        for start in range(0, len(pairs), _AT_ONCE):
            some = pairs[start : start + _AT_ONCE]
            share = (signatures[some[:, 0]] == signatures[some[:, 1]]).mean(1)
            kept.append(some[share >= self.threshold])
        return np.concatenate(kept)


def _candidates(
    signatures: Signatures, known: npt.NDArray[np.int64], bands: int, rows: int
) -> Iterator[Pairs]:
    """[pairs, 2] of each band: each text with the first of its bucket, and with the one before."""
    for band in range(bands):
        lanes = signatures[known, band * rows : (band + 1) * rows].astype(np.uint64)
        key = np.zeros(len(known), np.uint64)
        for lane in lanes.T:
            key = key * _RADIX + lane
        order = np.argsort(key, kind="stable")
        placed, members = key[order], known[order]
        begins = np.ones(len(order), bool)
        begins[1:] = placed[1:] != placed[:-1]
        first = members[begins][np.cumsum(begins) - 1]
        later = ~begins
        before = np.roll(members, 1)
        yield np.stack([first[later], members[later]], 1)
        chained = later & (before != first)
        yield np.stack([before[chained], members[chained]], 1)


def _root(parents: list[int], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i
