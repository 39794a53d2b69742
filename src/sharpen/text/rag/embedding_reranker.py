"""A reranker over embeddings: how near a question the chunks lie together.

::

    U(S) = cos(q, sum over chunks c of S: v_c) - penalty * |S|

``q`` and ``v`` are unit vectors of the question and of the chunks. The sum points where the vector
of the joined text would, for embedders that average tokens; so a chunk that says something else
pulls it away, one that says what is missing pulls it nearer, and one that says the same again
changes little and costs its penalty. Order makes no difference.

A path is extended by sums of vectors that are there already; no text is embedded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.core.embedding import Embedder
from sharpen.core.errors import ConfigError
from sharpen.text.rag.embedding_index import EmbeddingIndex, embed

__all__ = ["EmbeddingReranker"]

Floats = npt.NDArray[np.float64]


class EmbeddingReranker:
    """Cosine of a question and the sum of the chunks' vectors, less a price for each chunk.

    Args:
        embedder: makes vectors, or an index whose vectors are used again for its chunks.
        penalty: what a chunk costs.

    Raises:
        ConfigError: ``penalty`` is negative.
    """

    order_free = True

    def __init__(self, embedder: Embedder | EmbeddingIndex, *, penalty: float = 0.002) -> None:
        if not penalty >= 0:
            raise ConfigError(f"penalty={penalty} must be at least 0 (EmbeddingReranker).")
        self.penalty = penalty
        self._known: dict[str, npt.NDArray[np.float32]] = {}
        if isinstance(embedder, EmbeddingIndex):
            texts = (chunk.text.strip() for chunk in embedder.chunks)
            self._known = dict(zip(texts, embedder.vectors, strict=True))
            embedder = embedder.embedder
        self._embedder = embedder

    def vectors(self, texts: Sequence[str]) -> Floats:
        """[texts, width] unit vectors."""
        unknown = [text for text in texts if text not in self._known]
        made = dict(zip(unknown, embed(self._embedder, unknown), strict=True))
        return np.array([self._known.get(t, made.get(t)) for t in texts], np.float64)

    def score(self, query: str, texts: Sequence[str]) -> Floats:
        """[texts] scores; each text is one vector and pays one penalty."""
        one = self.incremental(query, texts)
        return one.scores(one.root(), np.arange(len(texts)))

    def incremental(self, query: str, texts: Sequence[str]) -> EmbeddingStates:
        """For paths of these texts."""
        question = embed(self._embedder, [query])[0].astype(np.float64)
        return EmbeddingStates(question, self.vectors(texts), self.penalty)


@dataclass(frozen=True, slots=True)
class _State:
    along: float  # of the sum, in the question's direction
    total: Floats  # [width] the sum
    chunks: int


class EmbeddingStates:
    """Scores of paths of chunks, extended one by one.

    Args:
        question: [width] unit vector.
        vectors: [chunks, width] unit vectors, or zeros.
        penalty: what a chunk costs.
    """

    def __init__(self, question: Floats, vectors: Floats, penalty: float) -> None:
        self._vectors, self._penalty = vectors, penalty
        self._along: Floats = vectors @ question
        self._sizes: Floats = (vectors * vectors).sum(axis=1)

    def root(self) -> _State:
        """Of no chunks."""
        return _State(0.0, np.zeros(self._vectors.shape[1]), 0)

    def extend(self, state: _State, chunk: int) -> _State:
        """With one chunk more."""
        along = state.along + float(self._along[chunk])
        return _State(along, state.total + self._vectors[chunk], state.chunks + 1)

    def scores(self, state: _State, chunks: np.ndarray) -> Floats:
        """[chunks] scores of the state with each of them appended."""
        crossing = 2 * (self._vectors[chunks] @ state.total)
        size = np.sqrt(np.maximum(state.total @ state.total + crossing + self._sizes[chunks], 0.0))
        along = state.along + self._along[chunks]
        cosine = np.divide(along, size, out=np.zeros(len(chunks)), where=size > 1e-9)
        found: Floats = cosine - self._penalty * (state.chunks + 1)
        return found
