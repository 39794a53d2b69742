"""Words and meaning together: chunks that BM25 or embeddings put first.

Reciprocal rank fusion (Cormack, Clarke and Büttcher, *Reciprocal Rank Fusion Outperforms Condorcet
and Individual Rank Learning Methods*, SIGIR 2009)::

    score(d) = sum over both lists:  1 / (60 + rank of d in it)

Ranks need no common scale. Each list gives as many chunks as are asked for.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from sharpen.core.embedding import open_embedder
from sharpen.core.errors import DataError, FileFormatError
from sharpen.text.rag.bm25 import BM25Index
from sharpen.text.rag.chunks import Chunk
from sharpen.text.rag.embedding_index import EmbeddingIndex

__all__ = ["HybridIndex", "load_index"]

_CONSTANT = 60  # of the paper: how much less the first ranks differ


class HybridIndex:
    """Searches by words and by embeddings.

    Args:
        words: the one.
        meaning: the other, of the same chunks.

    Raises:
        DataError: they hold other chunks.
    """

    def __init__(self, words: BM25Index, meaning: EmbeddingIndex) -> None:
        if [c.id for c in words.chunks] != [c.id for c in meaning.chunks]:
            raise DataError("both indexes must hold the same chunks in the same order.")
        self.words, self.meaning = words, meaning

    @property
    def chunks(self) -> list[Chunk]:
        """What is searched."""
        return self.words.chunks

    def __len__(self) -> int:
        return len(self.words)

    def search(self, query: str, k: int = 60) -> list[tuple[Chunk, float]]:
        """The ``k`` best chunks, best first; equal ones in the order of the first list."""
        found: dict[str, tuple[Chunk, float]] = {}
        for index in (self.words, self.meaning):
            for rank, (chunk, _) in enumerate(index.search(query, k), start=1):
                _, before = found.get(chunk.id, (chunk, 0.0))
                found[chunk.id] = (chunk, before + 1 / (_CONSTANT + rank))
        return sorted(found.values(), key=lambda one: -one[1])[: max(k, 0)]

    def save(self, path: str | Path, embedder: str) -> None:
        """Write both to a file (NumPy's npz); whole, or not at all.

        Args:
            path: the file.
            embedder: a name that :func:`~sharpen.core.embedding.open_embedder` opens.

        Raises:
            StorageError: it cannot be written.
        """
        name = np.frombuffer(embedder.encode(), np.uint8)
        self.words.save(path, vectors=self.meaning.vectors, embedder=name)


def load_index(path: str | Path) -> BM25Index | HybridIndex:
    """Read what an index of either kind saved.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: it is damaged, or no index.
        AssetNotInstalled: its embedder is not installed.
    """
    words = BM25Index.load(path)
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            if "vectors" not in file:
                return words
            vectors, name = file["vectors"], file["embedder"].tobytes().decode()
        if vectors.dtype != np.float32 or vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ValueError("its vectors are no finite numbers")
        if len(vectors) != len(words):
            raise ValueError(f"{len(vectors)} vectors do not fit {len(words)} chunks")
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"{path} is no index of chunks, or damaged: {error}.") from None
    meaning = EmbeddingIndex(words.chunks, open_embedder(name), vectors=vectors)
    return HybridIndex(words, meaning)
