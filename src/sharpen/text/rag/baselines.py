"""Other ways to choose chunks under a budget, and one function for all: :func:`select`.

* ``topk``: the best alone, in that order, while they fit.
* ``mmr``: Carbonell and Goldstein, *The Use of MMR, Diversity-Based Reranking*, SIGIR 1998: next is
  the chunk of the greatest ``relevance / 2 - (greatest cosine to a chosen one) / 2``.
* ``greedy``: next is the chunk that adds most to the score of all, per token; while one adds.
* ``beam``: the best 5 combinations of each length go on.
* ``knapsack``: the set with the greatest sum of scores alone (dynamic programming, exact).
* ``exhaustive``: every order of every subset, of at most 8 chunks.

All of them answer with the chunks, their tokens, and the reranker's score of the combination.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.text.rag.bm25 import BM25Index
from sharpen.text.rag.chunks import Chunk
from sharpen.text.rag.lexical import LexicalCoverage
from sharpen.text.rag.pool import Path, Pool, Selection, finish
from sharpen.text.rag.rerankers import Reranker, Scorer
from sharpen.text.rag.search import ChunkSearch, Tree
from sharpen.text.rag.tokens import words_of

__all__ = ["METHODS", "select"]

_BEAM = 5
_EXHAUSTIVE = 8


def select(
    query: str,
    chunks: Sequence[Chunk | str],
    budget: int,
    *,
    method: str = "mcts",
    reranker: Reranker | None = None,
    template: str = "{{context}}",
    separator: str = "\n\n",
    tokenizer: Any = None,
    batch_size: int = 64,
    **options: Any,
) -> Selection:
    """Chunks for a prompt, chosen by one of :data:`METHODS`.

    Args:
        query: the question.
        chunks: candidates, chunks or plain texts.
        budget: most tokens of the prompt.
        method: how.
        reranker: scores combined texts; default :class:`LexicalCoverage` of the candidates.
        template: the prompt, with ``{{context}}``; see :class:`~sharpen.text.rag.pool.Pool`.
        separator: between two chunks.
        tokenizer: what counts tokens.
        batch_size: most texts in one call of the reranker.
        options: of :class:`ChunkSearch`, for ``mcts``.

    Raises:
        ConfigError: an unknown method or option, or more than 8 chunks for ``exhaustive``.
        RerankerError: a score is no number.

    Warns:
        BudgetWarning: no chunk fits; the selection is empty.
    """
    if method not in METHODS:
        raise ConfigError(
            f"method='{method}' is unknown.{did_you_mean(method, METHODS)} There are:"
            f" {', '.join(METHODS)}."
        )
    if options and method != "mcts":
        raise ConfigError(f"{', '.join(options)}: options are for method='mcts' only.")
    pool = Pool(query, chunks, budget, template=template, separator=separator, tokenizer=tokenizer)
    if pool.is_empty():
        return finish(pool, [], 0)
    reranker = reranker or LexicalCoverage.of(pool.texts)
    scorer = Scorer(pool, reranker, batch_size)
    if method == "mcts":
        return Tree(_config(reranker, budget, options), scorer).search()
    found = _BASELINES[method](scorer)
    # Where a joined text has more tokens than its parts, the last chunks go.
    shorter = ((path := found[:n], scorer.one(path)) for n in range(len(found), 0, -1))
    chosen = finish(pool, shorter, 0)
    return replace(chosen, evaluations=scorer.evaluations)


def _config(reranker: Reranker, budget: int, options: dict[str, Any]) -> ChunkSearch:
    try:
        return ChunkSearch(reranker, budget, **options)
    except TypeError as error:
        raise ConfigError(f"{error} (method='mcts').") from None


def _best_first(scorer: Scorer) -> tuple[np.ndarray, np.ndarray]:
    """Chunks that fit by their score alone, and the scores."""
    fits = scorer.pool.fits
    scores = scorer.children((), fits)
    order = np.argsort(-scores, kind="stable")
    return fits[order], scores[order]


def _affordable(pool: Pool, path: Path, some: np.ndarray) -> np.ndarray:
    """Those of some chunks that are not in a path and fit after it."""
    more = some[~np.isin(some, path)]
    return more[pool.cost_with(path, pool.cost(path), more) <= pool.budget]


def _topk(scorer: Scorer) -> Path:
    path: Path = ()
    for chunk in _best_first(scorer)[0]:
        if len(_affordable(scorer.pool, path, np.array([chunk]))):
            path = (*path, int(chunk))
    return path


def _mmr(scorer: Scorer) -> Path:
    chunks, scores = _best_first(scorer)
    relevance = dict(zip(chunks.tolist(), _scaled(scores), strict=True))
    cosine = _cosines(scorer.pool.texts)
    path: Path = ()
    while len(more := _affordable(scorer.pool, path, chunks)):
        near = cosine[more][:, list(path)].max(axis=1) if path else np.zeros(len(more))
        value = np.array([relevance[i] for i in more.tolist()]) - near
        path = (*path, int(more[value.argmax()]))
    return path


def _scaled(scores: np.ndarray) -> np.ndarray:
    """From 0 to 1."""
    scaled: np.ndarray = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-300)
    return scaled


def _cosines(texts: Sequence[str]) -> np.ndarray:
    """[texts, texts] cosines of their words, weighted by idf."""
    index = BM25Index(texts)
    rows = np.zeros((len(texts), len(index.vocabulary)))
    for i, text in enumerate(texts):
        for word in words_of(text):
            j = index.vocabulary[word]
            rows[i, j] += index.idf[j]
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1)
    cosines: np.ndarray = rows @ rows.T
    return cosines


def _greedy(scorer: Scorer) -> Path:
    pool = scorer.pool
    path: Path = ()
    score = 0.0
    while len(more := _affordable(pool, path, pool.fits)):
        scores = scorer.children(path, more)
        # The first chunk has nothing to be compared with: it is the best for its tokens.
        gain = scores - score if path else scores - scores.min()
        chosen = int((gain / np.maximum(pool.costs[more], 1)).argmax())
        if path and gain[chosen] <= 0:
            break
        path, score = (*path, int(more[chosen])), float(scores[chosen])
    return path


def _beam(scorer: Scorer) -> Path:
    pool = scorer.pool
    beam: list[tuple[float, int, Path]] = [(0.0, 0, ())]
    best: tuple[float, int, Path] | None = None
    while beam:
        longer = []
        for _, _, path in beam:
            more = _affordable(pool, path, pool.fits)
            costs = pool.cost_with(path, pool.cost(path), more)
            scores = scorer.children(path, more)
            longer += [
                (-float(score), int(cost), (*path, int(chunk)))
                for score, cost, chunk in zip(scores, costs, more, strict=True)
            ]
        beam = sorted(longer)[:_BEAM]
        best = min(beam[:1] + ([best] if best else []), default=best)
    return best[2] if best else ()


def _exhaustive(scorer: Scorer) -> Path:
    pool = scorer.pool
    if len(pool.fits) > _EXHAUSTIVE:
        raise ConfigError(
            f"method='exhaustive' takes at most {_EXHAUSTIVE} chunks, got {len(pool.fits)}."
            " Use mcts or beam."
        )
    best: tuple[float, int, Path] = (np.inf, 0, ())
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop()
        more = _affordable(pool, path, pool.fits)
        costs = pool.cost_with(path, pool.cost(path), more)
        for score, cost, chunk in zip(scorer.children(path, more), costs, more, strict=True):
            longer = (*path, int(chunk))
            best = min(best, (-float(score), int(cost), longer))
            waiting.append(longer)
    return best[2]


def _knapsack(scorer: Scorer) -> Path:
    """By dynamic programming over tokens: exact."""
    pool = scorer.pool
    chunks, scores = _best_first(scorer)
    costs = (pool.costs[chunks] + pool.between).tolist()
    room = pool.budget - pool.overhead + pool.between  # one separator less than chunks
    room = min(room, sum(costs))
    best = np.zeros(room + 1)
    taken = np.zeros((len(chunks), room + 1), bool)
    for i, cost in enumerate(costs):
        if cost <= room:
            held = best[: room + 1 - cost] + scores[i]
            taken[i, cost:] = held > best[cost:]
            best[cost:] = np.maximum(held, best[cost:])
    chosen: list[int] = []
    for i in reversed(range(len(chunks))):
        if taken[i, room]:
            chosen.insert(0, int(chunks[i]))
            room -= costs[i]
    return tuple(chosen or [int(chunks[0])])


_BASELINES: dict[str, Callable[[Scorer], Path]] = {
    "topk": _topk,
    "mmr": _mmr,
    "greedy": _greedy,
    "beam": _beam,
    "knapsack": _knapsack,
    "exhaustive": _exhaustive,
}

METHODS = ("mcts", *_BASELINES)
"""What :func:`select` knows."""
