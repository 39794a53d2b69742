"""Scores and times of bm25s 0.3.16 (method lucene); asked by ``benchmarks.text.beside``.

Run with ``--record FILE`` it writes the record that tests compare with.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import bm25s

OPTIONS = {"method": "lucene", "k1": 1.5, "b": 0.75, "dtype": "float64"}


def scores(documents: list[list[str]], queries: list[list[str]]) -> list[list[float]]:
    """[queries, documents]."""
    index = bm25s.BM25(**OPTIONS)
    index.index(documents, show_progress=False)
    return [[round(float(x), 12) for x in index.get_scores(query)] for query in queries]


def times(texts: list[str], queries: list[str], k: int, repeats: int) -> dict[str, Any]:
    """Median seconds to index texts and to search."""
    indexing, searching = [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        tokens = bm25s.tokenize(texts, stopwords=None, token_pattern=r"\w+", show_progress=False)
        index = bm25s.BM25(**{**OPTIONS, "dtype": "float32"})
        index.index(tokens, show_progress=False)
        indexing.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for query in queries:
            asked = bm25s.tokenize(
                [query], stopwords=None, token_pattern=r"\w+", show_progress=False
            )
            index.retrieve(asked, k=k, show_progress=False)
        searching.append(time.perf_counter() - begin)
    return {
        "index_s": statistics.median(indexing),
        "search_s": statistics.median(searching),
        "version": bm25s.__version__,
    }


def record() -> dict[str, Any]:
    """Random documents, questions, and the scores."""
    rng = random.Random(0)
    words = [f"w{i}" for i in range(40)]
    weights = [1 / (i + 1) for i in range(40)]
    documents = [rng.choices(words, weights, k=rng.randint(1, 30)) for _ in range(25)]
    queries = [rng.choices(words, k=rng.randint(1, 5)) for _ in range(8)]
    found = scores(documents, queries)
    return {
        "peer": f"bm25s {bm25s.__version__}",
        "documents": documents,
        "queries": queries,
        "scores": found,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        Path(sys.argv[2]).write_text(json.dumps(record()) + "\n")
    else:
        request = json.load(sys.stdin)
        print(json.dumps(times(**request)))
