"""Rows that mean nearly the same: vectors of texts, compared inside of clusters.

Abbas et al., "SemDeDup: data-efficient learning at web-scale through semantic deduplication", 2023:
the vectors are parted into clusters by k-means, and rows of a cluster whose cosine reaches the
threshold are copies. Each row is looked at in the two clusters that are nearest, so that few pairs
on the border of two are missed; up to 4,000 rows are one cluster, and nothing is missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.embedding import embedder_files, open_embedder
from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.corpus import Corpus
from sharpen.data.ops.barrier import Copies, Deduplicator
from sharpen.data.ops.base import operator
from sharpen.data.ops.dedup.joining import Cluster, groups_of
from sharpen.data.ops.filters.language_models import file_digest, file_stamp

__all__ = ["SemanticDedup"]

Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_CLUSTER = 2000  # rows of a cluster, about
_WHOLE = 4000  # rows that are compared without clusters
_SAMPLE, _ROUNDS = 64, 8  # rows for each centre that k-means learns from; its rounds
_BLOCK = 2048  # rows that are compared with the others at once


@operator("semantic_dedup")
@dataclass(frozen=True, kw_only=True)
class SemanticDedup(Deduplicator):
    """Keeps one of rows whose vectors point nearly the same way."""

    threshold: float = 0.95
    """Least cosine of copies."""

    model: str = "wordllama"
    """``wordllama`` or ``minilm-l6``, a model's folder, or a table of token vectors."""

    cluster: Cluster = "components"
    """``components``: copies of copies are copies. ``star``: a row goes only if it is a copy of one
    that stays."""

    seed: int = 0
    """Of the first centres."""

    def __post_init__(self) -> None:
        """Check the threshold and that the table is there."""
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold={self.threshold:g} must be above 0 and at most 1.")
        embedder_files(self.model)

    def describe(self) -> dict[str, Any]:
        """With what the table holds."""
        digests = [file_digest(file_stamp(str(path))) for path in embedder_files(self.model)]
        return {**super().describe(), "model": digests}

    def marks(self, batch: Batch) -> Mapping[str, pa.Array]:
        """See :class:`Deduplicator`."""
        found = open_embedder(self.model).encode(batch.texts.strings)
        width, buffers = found.shape[1], [None, pa.py_buffer(found.tobytes())]
        return {"vector": pa.Array.from_buffers(pa.binary(4 * width), len(batch), buffers)}

    def copies(self, rows: Corpus, order: Integers) -> Copies:
        """See :class:`Deduplicator`."""

        def vectors(some: Integers) -> Vectors:
            return np.ascontiguousarray(rows.gather("vector", some)).view(np.float32)

        def cosine(one: Integers, other: Integers) -> npt.NDArray[np.float64]:
            products = vectors(one).astype(np.float64) * vectors(other)
            found: npt.NDArray[np.float64] = products.sum(1)
            return found

        def meetings() -> Iterator[tuple[Integers, Integers]]:
            for members in self._clusters(len(rows), vectors):
                mine = vectors(members)
                for start in range(0, len(members), _BLOCK):
                    near = mine[start : start + _BLOCK] @ mine.T >= self.threshold - 1e-4
                    a, b = np.nonzero(near)
                    a += start
                    yield members[a[a < b]], members[b[a < b]]

        of = groups_of(
            len(rows),
            meetings(),
            lambda one, other: cosine(one, other) >= self.threshold - 1e-9,
            order,
            self.cluster,
        )
        return Copies(of, cosine, f"min={self.threshold:g}")

    def _clusters(self, n: int, vectors: Any) -> Iterator[Integers]:
        """Rows of each cluster, in order; a row is in two."""
        if n <= _WHOLE:
            if n:
                yield np.arange(n)
            return
        k = -(-n // _CLUSTER)
        rng = np.random.Generator(np.random.Philox(self.seed))
        sample = vectors(np.sort(rng.choice(n, min(n, _SAMPLE * k), replace=False)))
        centres = sample[np.sort(rng.choice(len(sample), k, replace=False))]
        for _ in range(_ROUNDS):
            nearest = (sample @ centres.T).argmax(1)
            sums = np.zeros_like(centres)
            np.add.at(sums, nearest, sample)
            length = np.linalg.norm(sums, axis=1, keepdims=True)
            centres = np.where(length > 0, sums / np.where(length > 0, length, 1), centres)
        two = np.empty((n, 2), np.int64)
        for start in range(0, n, _BLOCK):
            some = vectors(np.arange(start, min(start + _BLOCK, n)))
            two[start : start + len(some)] = np.argpartition(-(some @ centres.T), 1, axis=1)[:, :2]
        for centre in range(k):
            yield np.nonzero((two == centre).any(1))[0]
