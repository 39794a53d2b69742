"""Chunks near a question by the cosine of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import DataError
from sharpen.text.rag.chunks import Chunk, as_chunks

__all__ = ["Embedder", "EmbeddingIndex"]

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Texts as vectors."""

    def embed(self, texts: Sequence[str], /) -> Vectors:
        """[texts, width] vectors."""
        ...


class EmbeddingIndex:
    """Compares a question with every chunk; exact, in time of chunks x width.

    Args:
        chunks: what is searched, chunks or plain texts.
        embedder: what makes vectors of texts.

    Raises:
        DataError: the vectors have another shape, or are not finite.
    """

    def __init__(self, chunks: Sequence[Chunk | str], embedder: Embedder) -> None:
        self.chunks = as_chunks(chunks)
        self._embedder = embedder
        self.vectors = self._embed([chunk.text for chunk in self.chunks])

    def __len__(self) -> int:
        return len(self.chunks)

    def _embed(self, texts: list[str]) -> Vectors:
        """[texts, width] vectors of length 1; zeros stay zeros."""
        if not texts:
            return np.zeros((0, 0), np.float32)
        found = np.array(self._embedder.embed(texts), np.float32)
        if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
            raise DataError(
                f"the embedder must give [{len(texts)}, width] finite numbers, got"
                f" {list(found.shape)}."
            )
        length = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.where(length > 0, length, 1)
        return found

    def scores(self, query: str) -> npt.NDArray[np.float64]:
        """[chunks] cosines, from -1 to 1."""
        if not self.chunks:
            return np.zeros(0)
        cosines: npt.NDArray[np.float64] = (self.vectors @ self._embed([query])[0]).astype(float)
        return cosines

    def search(self, query: str, k: int = 60) -> list[tuple[Chunk, float]]:
        """The ``k`` nearest chunks, nearest first."""
        total = self.scores(query)
        order = np.argsort(-total, kind="stable")[: max(k, 0)]
        return [(self.chunks[i], float(total[i])) for i in order]
