"""Texts as vectors: what an embedder is, and those that are opened by a name or a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.core.embedding.opening import Embedder, embedder_files, open_embedder
    from sharpen.core.embedding.static import StaticEmbedding

__all__ = ["Embedder", "StaticEmbedding", "embedder_files", "open_embedder"]

__getattr__ = exports(
    __name__,
    {
        "Embedder": "sharpen.core.embedding.opening",
        "StaticEmbedding": "sharpen.core.embedding.static",
        "embedder_files": "sharpen.core.embedding.opening",
        "open_embedder": "sharpen.core.embedding.opening",
    },
)
