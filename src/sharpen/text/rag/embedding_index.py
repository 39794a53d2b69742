"""Chunks near a question by the cosine of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sharpen.core.embedding import Embedder
from sharpen.core.errors import DataError
from sharpen.text.rag.chunks import Chunk, as_chunks

__all__ = ["EmbeddingIndex", "embed"]

Vectors = npt.NDArray[np.float32]

_AT_ONCE = 256


def embed(embedder: Embedder, texts: list[str]) -> Vectors:
    """[texts, width] vectors of length 1; zeros stay zeros.

    Raises:
        DataError: the vectors have another shape, or are not finite.
    """
    if not texts:
        return np.zeros((0, 0), np.float32)
    found = np.array(embedder.encode(texts), np.float32)
    if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
        raise DataError(
            f"the embedder must give [{len(texts)}, width] finite numbers, got {list(found.shape)}."
        )
    length = np.linalg.norm(found, axis=1, keepdims=True)
    found /= np.where(length > 0, length, 1)
    return found


class EmbeddingIndex:
    """Compares a question with every chunk; exact, in time of chunks x width.

    Args:
        chunks: what is searched, chunks or plain texts.
        embedder: what makes vectors of texts: of :func:`sharpen.core.embedding.open_embedder`, of
            sentence-transformers, or your own.
        vectors: [chunks, width] of unit length, if they are known already.
        on_progress: called with the number of chunks that were embedded since it was called last.

    Raises:
        DataError: the vectors have another shape, or are not finite.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk | str],
        embedder: Embedder,
        *,
        vectors: Vectors | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self.chunks, self.embedder = as_chunks(chunks), embedder
        if vectors is None:
            vectors = self._embed(on_progress or (lambda done: None))
        if len(vectors) != len(self.chunks):
            raise DataError(f"{len(vectors)} vectors do not fit {len(self.chunks)} chunks.")
        self.vectors = vectors

    def _embed(self, on_progress: Callable[[int], None]) -> Vectors:
        texts, found = [chunk.text for chunk in self.chunks], []
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            found.append(embed(self.embedder, some))
            on_progress(len(some))
        return np.concatenate(found) if found else np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self.chunks)

    def scores(self, query: str) -> npt.NDArray[np.float64]:
        """[chunks] cosines, from -1 to 1."""
        if not self.chunks:
            return np.zeros(0)
        question = embed(self.embedder, [query])[0]
        if len(question) != self.vectors.shape[1]:
            raise DataError(
                f"the question's vector has {len(question)} numbers and those of the chunks"
                f" {self.vectors.shape[1]}: use the embedder that the index was made with."
            )
        cosines: npt.NDArray[np.float64] = (self.vectors @ question).astype(float)
        return cosines

    def search(self, query: str, k: int = 60) -> list[tuple[Chunk, float]]:
        """The ``k`` nearest chunks, nearest first."""
        total = self.scores(query)
        order = np.argsort(-total, kind="stable")[: max(k, 0)]
        return [(self.chunks[i], float(total[i])) for i in order]
