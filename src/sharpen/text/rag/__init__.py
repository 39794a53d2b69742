"""Which retrieved chunks go into a prompt, in which order, under a budget of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.text.rag.baselines import METHODS, select
    from sharpen.text.rag.bm25 import BM25Index
    from sharpen.text.rag.chunks import Chunk, Chunker
    from sharpen.text.rag.config_agent import ConfigAgent
    from sharpen.text.rag.embedding_index import EmbeddingIndex
    from sharpen.text.rag.embedding_reranker import EmbeddingReranker
    from sharpen.text.rag.hybrid import HybridIndex, load_index
    from sharpen.text.rag.lexical import LexicalCoverage
    from sharpen.text.rag.pool import BudgetWarning, Selection
    from sharpen.text.rag.rerankers import CrossEncoder, LLMReranker, Reranker, RerankerError
    from sharpen.text.rag.search import ChunkSearch

_MODULES = {
    "baselines": ["METHODS", "select"],
    "bm25": ["BM25Index"],
    "chunks": ["Chunk", "Chunker"],
    "config_agent": ["ConfigAgent"],
    "embedding_index": ["EmbeddingIndex"],
    "hybrid": ["HybridIndex", "load_index"],
    "lexical": ["LexicalCoverage"],
    "pool": ["BudgetWarning", "Selection"],
    "rerankers": ["CrossEncoder", "LLMReranker", "Reranker", "RerankerError"],
    "search": ["ChunkSearch"],
    "embedding_reranker": ["EmbeddingReranker"],
}

__all__ = [
    "METHODS",
    "BM25Index",
    "BudgetWarning",
    "Chunk",
    "ChunkSearch",
    "Chunker",
    "ConfigAgent",
    "CrossEncoder",
    "EmbeddingIndex",
    "EmbeddingReranker",
    "HybridIndex",
    "LLMReranker",
    "LexicalCoverage",
    "Reranker",
    "RerankerError",
    "Selection",
    "load_index",
    "select",
]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
